//! Rules: what a user says of some responses that the responses do not say of themselves.

use std::{fmt, sync::Arc, time::Duration};

use http::HeaderName;

use super::config::bounded;
use crate::{Tag, key::decoded};

/// How the responses of a path or a route are cached.
///
/// A rule stands in the path table of [`HttpCache::rule`](crate::HttpCache::rule), where it is known before the
/// look-up, or, as a [`Layer`](tower_layer::Layer), on one route, where it is known when the response comes back. The
/// one nearest to the handler wins, part by part. The response's own `Cache-Control` wins over [`Rule::ttl`], but not
/// over [`Rule::override_ttl`].
///
/// ```
/// use std::time::Duration;
/// use tower_gatehouse::Rule;
///
/// let rule = Rule::ttl(Duration::from_secs(300)).stale(Duration::from_secs(3600)).tag("product:{id}");
/// # let _ = rule;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Rule {
    pub(crate) parts: Parts,
}

/// What a rule says; `None` and empty where it says nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts {
    pub(crate) bypass: Option<bool>,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
    pub(crate) tags: Vec<Template>,
    pub(crate) key_headers: Vec<HeaderName>,
    pub(crate) coalesce: Option<bool>,
    pub(crate) shareable: Option<bool>,
}

impl Parts {
    pub(crate) const NOTHING: Self = Self {
        bypass: None,
        ttl: None,
        stale_while_revalidate: None,
        stale_if_error: None,
        tags: Vec::new(),
        key_headers: Vec::new(),
        coalesce: None,
        shareable: None,
    };
}

/// A lifetime, and whether it wins over what the response says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ttl {
    pub(crate) lifetime: Duration,
    pub(crate) overrides: bool,
}

impl Rule {
    /// A rule that says nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Usual answers without explicit freshness are fresh for this long;
    /// [`HttpCache::default_ttl`](crate::HttpCache::default_ttl) says which are usual. Like that, never for requests
    /// with credentials or cookies, unless [`Rule::shareable`].
    pub fn ttl(lifetime: Duration) -> Self {
        Self::with(|parts| parts.ttl = Some(Ttl { lifetime: bounded(lifetime), overrides: false }))
    }

    /// Responses are fresh for this long, whatever lifetime they give themselves. `no-store` and `private` still hold.
    /// Like [`Rule::ttl`], only usual answers, and never for requests with credentials or cookies, unless
    /// [`Rule::shareable`]: for others what the response says counts.
    pub fn override_ttl(lifetime: Duration) -> Self {
        Self::with(|parts| parts.ttl = Some(Ttl { lifetime: bounded(lifetime), overrides: true }))
    }

    /// Requests go to the inner service, and nothing is stored.
    pub fn bypass() -> Self {
        Self::with(|parts| parts.bypass = Some(true))
    }

    /// For this long after they have become stale, responses may be served while they are revalidated in the
    /// background, and when the origin fails (RFC 5861). The response's own directives win.
    #[must_use]
    pub fn stale(self, window: Duration) -> Self {
        self.stale_while_revalidate(window).stale_if_error(window)
    }

    /// Only the first half of [`Rule::stale`].
    #[must_use]
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.parts.stale_while_revalidate = Some(bounded(window));
        self
    }

    /// Only the second half of [`Rule::stale`].
    #[must_use]
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.parts.stale_if_error = Some(bounded(window));
        self
    }

    /// A tag of the responses, besides those that they bring themselves; `{name}` stands for the part of the path
    /// that the pattern captures under that name, decoded as handlers read it; what no tag can contain is encoded as
    /// [`Tag::encoded`] does.
    #[must_use]
    pub fn tag(mut self, template: impl Into<String>) -> Self {
        self.parts.tags.push(Template(template.into().into()));
        self
    }

    /// A request field whose value is part of the key, as if every response had it in `Vary` (without the limits of
    /// `Vary`). Only in the path table: on a route it would come too late and is ignored.
    #[must_use]
    pub fn key_header(mut self, name: HeaderName) -> Self {
        self.parts.key_headers.push(name);
        self
    }

    /// Whether concurrent misses are collapsed where a `CoalesceLayer` stands; they are unless told otherwise.
    #[must_use]
    pub fn coalesce(mut self, collapse: bool) -> Self {
        self.parts.coalesce = Some(collapse);
        self
    }

    /// The responses are the same for everybody, with and without cookies and credentials: `ttl` applies to requests
    /// that carry them, and such requests may lead and join a flight. Responses that say `private` or `no-store`, or
    /// set a cookie, are still not shared.
    #[must_use]
    pub fn shareable(mut self) -> Self {
        self.parts.shareable = Some(true);
        self
    }

    /// This rule, and where it says nothing, the other one. Tags are not merged: they belong to their captures.
    pub(crate) fn over(self, other: Self) -> Self {
        let (parts, other) = (self.parts, other.parts);
        Self {
            parts: Parts {
                bypass: parts.bypass.or(other.bypass),
                ttl: parts.ttl.or(other.ttl),
                stale_while_revalidate: parts.stale_while_revalidate.or(other.stale_while_revalidate),
                stale_if_error: parts.stale_if_error.or(other.stale_if_error),
                tags: parts.tags,
                key_headers: other.key_headers,
                coalesce: parts.coalesce.or(other.coalesce),
                shareable: parts.shareable.or(other.shareable),
            },
        }
    }

    fn with(set: impl FnOnce(&mut Parts)) -> Self {
        let mut rule = Self::default();
        set(&mut rule.parts);
        rule
    }
}

/// The text of a tag with `{name}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Box<str>);

impl Template {
    /// The names between braces, or what is wrong with the text.
    fn names(&self) -> Result<Vec<&str>, String> {
        let (mut names, mut example) = (Vec::new(), String::new());
        let mut rest = &*self.0;
        while let Some(open) = rest.find(['{', '}']) {
            let after = &rest[open + 1..];
            let close = after.find('}').filter(|_| rest.as_bytes()[open] == b'{');
            let Some(close) = close else { return Err(format!("the tag `{}` has an unmatched brace", self.0)) };
            names.push(after[..close].trim_start_matches('*'));
            example.extend([&rest[..open], "x"]);
            rest = &after[close + 1..];
        }
        example.push_str(rest);
        Tag::new(example).map_err(|error| format!("the tag `{}` is none: {error}", self.0))?;
        Ok(names)
    }

    /// The tag for these captures; `None` where it is not a tag, because a part is missing or too long.
    pub(crate) fn render(&self, captures: &Captures) -> Option<Tag> {
        let mut text = String::with_capacity(self.0.len() + 16);
        let mut rest = &*self.0;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}')?;
            text.push_str(before);
            text.push_str(captures.get(name.trim_start_matches('*'))?);
            rest = after;
        }
        text.push_str(rest);
        Tag::new(text).ok()
    }
}

/// What a pattern captured of a path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Captures(Vec<(Box<str>, Box<str>)>);

impl Captures {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(captured, _)| **captured == *name).map(|(_, value)| &**value)
    }

    /// What `pattern`, in the syntax of axum's routes, captures of a path that it is known to match.
    pub(crate) fn of(pattern: &str, path: &str) -> Self {
        let mut captures = Vec::new();
        let mut rest = path.strip_prefix('/').unwrap_or(path);
        for segment in pattern.strip_prefix('/').unwrap_or(pattern).split('/') {
            let Some((prefix, (name, suffix))) =
                segment.split_once('{').and_then(|(prefix, after)| Some((prefix, after.split_once('}')?)))
            else {
                rest = rest.split_once('/').map_or("", |(_, rest)| rest);
                continue;
            };
            if let Some(name) = name.strip_prefix('*') {
                captures.push((name.into(), decoded(rest).into()));
                break;
            }
            let (value, after) = rest.split_once('/').unwrap_or((rest, ""));
            let value = value.strip_prefix(prefix).unwrap_or(value);
            captures.push((name.into(), decoded(value.strip_suffix(suffix).unwrap_or(value)).into()));
            rest = after;
        }
        Self(captures)
    }
}

/// The rules by path.
#[derive(Clone, Default)]
pub(crate) struct PathTable {
    router: matchit::Router<Arc<(Box<str>, Rule)>>,
    len: usize,
}

impl PathTable {
    pub(crate) fn insert(&mut self, pattern: &str, rule: Rule) -> Result<(), RuleError> {
        let fail = |reason: String| RuleError { pattern: pattern.into(), reason };
        if !pattern.starts_with('/') {
            return Err(fail("it does not begin with `/`".into()));
        }
        // Taken as it stands, it would match nothing that anybody means.
        if let Some(segment) = pattern.split('/').find(|segment| segment.starts_with([':', '*'])) {
            return Err(fail(format!("a capture is written `{{name}}` or `{{*rest}}`, and not `{segment}`")));
        }
        for template in &rule.parts.tags {
            for name in template.names().map_err(fail)? {
                if !pattern.contains(&format!("{{{name}}}")) && !pattern.contains(&format!("{{*{name}}}")) {
                    return Err(fail(format!("its tag `{}` names `{name}`, which it does not capture", template.0)));
                }
            }
        }
        self.router.insert(pattern, Arc::new((pattern.into(), rule))).map_err(|error| fail(error.to_string()))?;
        self.len += 1;
        Ok(())
    }

    pub(crate) fn find(&self, path: &str) -> Option<&Arc<(Box<str>, Rule)>> {
        if self.len == 0 {
            return None;
        }
        self.router.at(path).ok().map(|found| found.value)
    }
}

impl fmt::Debug for PathTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathTable").field("len", &self.len).finish_non_exhaustive()
    }
}

impl RuleError {
    pub(crate) fn new(pattern: &str, reason: impl Into<String>) -> Self {
        Self { pattern: pattern.into(), reason: reason.into() }
    }
}

/// A pattern or a tag of a rule is not usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    pattern: Box<str>,
    reason: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the rule for `{}` cannot be used: {}", self.pattern, self.reason)
    }
}

impl std::error::Error for RuleError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rules: &[(&str, Rule)]) -> PathTable {
        let mut table = PathTable::default();
        for (pattern, rule) in rules {
            table.insert(pattern, rule.clone()).unwrap();
        }
        table
    }

    #[test]
    fn the_most_special_pattern_is_found() {
        let table = table(&[
            ("/products/{id}", Rule::new().tag("p:{id}")),
            ("/products/new", Rule::bypass()),
            ("/a/{*rest}", Rule::new().tag("r:{rest}")),
        ]);
        assert!(table.find("/products/new").unwrap().1.parts.bypass.unwrap());
        assert_eq!(&*table.find("/products/1").unwrap().0, "/products/{id}");
        assert!(table.find("/products").is_none());
        assert!(table.find("/a/b/c").is_some());
    }

    #[test]
    fn tags_take_what_the_pattern_captured() {
        for (pattern, path, template, expected) in [
            ("/p/{id}", "/p/17", "product:{id}", Some("product:17")),
            ("/p/{id}/x/{y}", "/p/17/x/a%20b", "{y}-{id}", Some("a%20b-17")),
            ("/p/{id}.json", "/p/17.json", "p{id}", Some("p17")),
            ("/p/{*rest}", "/p/a/b", "p:{*rest}", Some("p:a/b")),
            ("/p/{id}", "/p/a,b", "p:{id}", Some("p:a%2Cb")),
            ("/p/{id}", "/p/%31%2f%zz%7E%c3%bc%25%2C", "p:{id}", Some("p:1/%zz~%C3%BC%%2C")),
            ("/p/{id}", "/p/1", "all", Some("all")),
            ("/p/{id}", "/p/1", "{other}", None),
        ] {
            let tag = Template(template.into()).render(&Captures::of(pattern, path));
            assert_eq!(tag.as_ref().map(Tag::as_str), expected, "{pattern} {path} {template}");
        }
        let long = format!("/p/{}", "x".repeat(300));
        assert_eq!(Template("{id}".into()).render(&Captures::of("/p/{id}", &long)), None);
    }

    #[test]
    fn unusable_rules_say_why_in_one_sentence() {
        for (pattern, rule, reason) in [
            ("p", Rule::new(), "begin with `/`"),
            ("/p/{id", Rule::new(), "/p/{id"),
            ("/p/{id}", Rule::new().tag("p:{name}"), "`name`, which it does not capture"),
            ("/p/{id}", Rule::new().tag("p:{id"), "unmatched brace"),
            ("/p/{id}", Rule::new().tag("p:id}"), "unmatched brace"),
            ("/admin/:id", Rule::bypass(), "`{name}`"),
            ("/secret/*", Rule::bypass(), "not `*`"),
            ("/p", Rule::new().tag("a b"), "the tag `a b`"),
            ("/p", Rule::new().tag(""), "the tag ``"),
        ] {
            let error = PathTable::default().insert(pattern, rule).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
            assert!(!error.contains('\n'));
        }
        let mut table = table(&[("/p/{id}", Rule::new())]);
        assert!(table.insert("/p/{other}", Rule::new()).is_err(), "two patterns for one path");
    }
}
