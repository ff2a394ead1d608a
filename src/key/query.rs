//! Queries as they are keyed.

use std::borrow::Cow;

/// Which part of the query string selects the stored response, and whether the order of parameters does.
///
/// The default keys the query as it was sent.
///
/// ```
/// use tower_gatehouse::Query;
///
/// // `?b=2&a=1&utm_source=mail` and `?a=1&b=2` are one resource.
/// let query = Query::sorted().ignore(["utm_*", "fbclid"]);
/// # let _ = query;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Query {
    sorted: bool,
    filter: Filter,
}

#[derive(Clone, Debug, Default)]
enum Filter {
    #[default]
    All,
    Only(Vec<Name>),
    Ignore(Vec<Name>),
}

/// A parameter's name, or the beginning of one before `*`.
#[derive(Clone, Debug)]
enum Name {
    Is(Box<str>),
    StartsWith(Box<str>),
}

impl Query {
    /// Keyed as it was sent.
    pub fn as_is() -> Self {
        Self::default()
    }

    /// Parameters are sorted by name; those of the same name keep their order, because it may matter.
    pub fn sorted() -> Self {
        Self { sorted: true, ..Self::default() }
    }

    /// Only these parameters select the response; `*` at the end of a name stands for any ending. An empty list keys
    /// no query at all.
    #[must_use]
    pub fn only<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.filter = Filter::Only(names.into_iter().map(Name::new).collect());
        self
    }

    /// These parameters do not select the response; `*` at the end of a name stands for any ending.
    #[must_use]
    pub fn ignore<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.filter = Filter::Ignore(names.into_iter().map(Name::new).collect());
        self
    }

    /// What is keyed of a query. None and an empty one differ only as long as nothing is filtered.
    pub(super) fn apply<'a>(&self, query: Option<&'a str>) -> Option<Cow<'a, str>> {
        let query = query?;
        if !self.sorted && matches!(self.filter, Filter::All) {
            return Some(query.into());
        }
        let mut pairs: Vec<&str> =
            query.split('&').filter(|pair| !pair.is_empty() && self.filter.keeps(pair)).collect();
        // Two names may be one once they are decoded, and then their order may matter.
        if self.sorted && !pairs.iter().any(|pair| is_encoded(pair)) {
            pairs.sort_by_key(|pair| name_of(pair));
        }
        (!pairs.is_empty()).then(|| pairs.join("&").into())
    }
}

impl Filter {
    fn keeps(&self, pair: &str) -> bool {
        let name = name_of(pair);
        match self {
            Self::All => true,
            // What a name is once it is decoded is the origin's to say: it may be one of these.
            Self::Only(names) => is_encoded(pair) || names.iter().any(|pattern| pattern.matches(name)),
            // And there may be another pair in it.
            Self::Ignore(names) => pair.contains(';') || !names.iter().any(|pattern| pattern.matches(name)),
        }
    }
}

impl Name {
    fn new(pattern: &str) -> Self {
        match pattern.strip_suffix('*') {
            Some(start) => Self::StartsWith(start.into()),
            None => Self::Is(pattern.into()),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Is(is) => **is == *name,
            Self::StartsWith(start) => name.starts_with(&**start),
        }
    }
}

/// Whether its name may be another one for the origin: encoded, or several pairs for those that split at `;`, too.
fn is_encoded(pair: &str) -> bool {
    pair.contains(';') || name_of(pair).contains(['%', '+'])
}

fn name_of(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_keyed_as_told() {
        let cases: [(Query, Option<&str>, Option<&str>); 18] = [
            (Query::as_is().only(["page"]), Some("p%61ge=2&x=1"), Some("p%61ge=2")),
            (Query::sorted(), Some("b=1&%61=2&a=3"), Some("b=1&%61=2&a=3")),
            (Query::as_is(), Some("b=2&a=1"), Some("b=2&a=1")),
            (Query::as_is(), Some(""), Some("")),
            (Query::as_is(), None, None),
            (Query::sorted(), Some("b=2&a=1"), Some("a=1&b=2")),
            (Query::sorted(), Some("a=2&b&a=1"), Some("a=2&a=1&b")),
            (Query::sorted(), Some("&&"), None),
            (Query::sorted().ignore(["utm_*"]), Some("utm_source=x&b=1&utm=2"), Some("b=1&utm=2")),
            (Query::as_is().ignore(["x"]), Some("x=1"), None),
            (Query::as_is().ignore(["x"]), Some("b=1&x=1&a=2"), Some("b=1&a=2")),
            (Query::as_is().only(["page", "q*"]), Some("q=1&z=2&page=3&query=4"), Some("q=1&page=3&query=4")),
            (Query::sorted().only(["a", "b"]), Some("b=1&c=2&a=3"), Some("a=3&b=1")),
            (Query::as_is().only([]), Some("a=1"), None),
            (Query::sorted(), Some("a=%26&A=1"), Some("A=1&a=%26")),
            // An origin that splits at `;` as well sees a page.
            (Query::sorted().ignore(["utm_*"]), Some("utm_source=x;page=2&a=1"), Some("utm_source=x;page=2&a=1")),
            (Query::as_is().only(["q"]), Some("x=1;q=2&y=1"), Some("x=1;q=2")),
            (Query::sorted(), Some("b=1;a=1&a=2"), Some("b=1;a=1&a=2")),
        ];
        for (query, given, expected) in cases {
            assert_eq!(query.apply(given).as_deref(), expected, "{query:?} {given:?}");
        }
    }
}
