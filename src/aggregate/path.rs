//! The path pattern of an aggregate and what it captures.

use std::{fmt, sync::Arc};

use percent_encoding::{AsciiSet, percent_decode_str, utf8_percent_encode};

use super::AggregateError;

/// A pattern such as `/profile/{id}` or `/files/{*rest}`, in the syntax of axum's routes.
#[derive(Clone)]
pub(super) struct Pattern {
    text: Arc<str>,
    router: matchit::Router<()>,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Self, AggregateError> {
        let mut router = matchit::Router::new();
        if !text.starts_with('/') {
            return Err(AggregateError::new(format!("the path pattern `{text}` must begin with a slash")));
        }
        router
            .insert(text, ())
            .map_err(|error| AggregateError::new(format!("the path pattern `{text}` is not valid: {error}")))?;
        Ok(Self { text: text.into(), router })
    }

    /// What `path` captures, percent-encoded; `None` if it does not match.
    ///
    /// What separates parameters of a query is encoded too: put there, it would add parameters.
    ///
    /// A capture with a dot segment (`..`, `%2E%2E`, `a%2F..`) does not match: put into the path of another request, it
    /// would climb out of the place that was meant for it.
    pub(super) fn captures(&self, path: &str) -> Option<Captures> {
        let found = self.router.at(path).ok()?;
        let captures: Vec<_> = found.params.iter().collect();
        if captures.iter().any(|(_, value)| has_dot_segment(value)) {
            return None;
        }
        let encode = |value| utf8_percent_encode(value, &SEPARATORS).to_string();
        let captures = captures.into_iter().map(|(name, value)| (name.into(), encode(value))).collect();
        Some(Captures { pattern: self.text.clone(), captures })
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

pub(super) struct Captures {
    pattern: Arc<str>,
    captures: Vec<(Box<str>, String)>,
}

impl Captures {
    pub(super) fn get(&self, name: &str) -> Result<&str, AggregateError> {
        self.captures
            .iter()
            .find_map(|(captured, value)| (**captured == *name).then_some(&**value))
            .ok_or_else(|| AggregateError::new(format!("the path pattern `{}` captures no `{name}`", self.pattern)))
    }
}

/// They mean nothing in a path, and something in a query.
const SEPARATORS: AsciiSet = AsciiSet::EMPTY.add(b'&').add(b'=').add(b'+').add(b';');

/// Whether `.` or `..` stands as a segment of its own, percent-encoded or not.
pub(super) fn has_dot_segment(encoded: &str) -> bool {
    let decoded: Vec<u8> = percent_decode_str(encoded).collect();
    decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| matches!(segment, b"." | b".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(pattern: &str, path: &str, name: &str) -> Option<String> {
        Pattern::new(pattern).unwrap().captures(path).map(|captures| captures.get(name).unwrap().to_owned())
    }

    #[test]
    fn captures_stay_percent_encoded() {
        assert_eq!(captured("/profile/{id}", "/profile/a%2Fb%20c", "id").as_deref(), Some("a%2Fb%20c"));
        assert_eq!(captured("/files/{*rest}", "/files/a/b", "rest").as_deref(), Some("a/b"));
    }

    #[test]
    fn a_capture_adds_no_parameters_to_a_query() {
        let id = captured("/profile/{id}", "/profile/7&admin=1;a+b%26ü", "id").unwrap();
        assert_eq!(id, "7%26admin%3D1%3Ba%2Bb%26%C3%BC");
    }

    #[test]
    fn a_capture_that_climbs_does_not_match() {
        for path in ["/p/..", "/p/.", "/p/%2e%2E", "/p/a%2f..", "/p/..%5Ca"] {
            assert_eq!(captured("/p/{id}", path, "id"), None, "{path}");
        }
        assert_eq!(captured("/f/{*rest}", "/f/a/../b", "rest"), None);
        assert_eq!(captured("/p/{id}", "/p/a..b", "id").as_deref(), Some("a..b"));
    }

    #[test]
    fn a_name_that_is_not_captured_is_an_error_that_names_the_pattern() {
        let captures = Pattern::new("/p/{id}").unwrap().captures("/p/1").unwrap();
        assert_eq!(captures.get("user").unwrap_err().to_string(), "the path pattern `/p/{id}` captures no `user`");
    }

    #[test]
    fn a_pattern_that_is_not_valid_is_refused_in_one_sentence() {
        assert_eq!(Pattern::new("p").unwrap_err().to_string(), "the path pattern `p` must begin with a slash");
        assert!(Pattern::new("/{a").unwrap_err().to_string().starts_with("the path pattern `/{a` is not valid: "));
    }
}
