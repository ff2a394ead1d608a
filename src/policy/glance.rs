//! What a cache has to know of a request's fields, found in one pass.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// What one pass over the fields of a request has found.
///
/// A look-up in a [`HeaderMap`] hashes the name, and a cache has a dozen of them to ask for, most of which are not
/// there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glance<'a> {
    /// Whether there is a field that steers caches: a condition, a range, a directive, an upgrade, a kind of content.
    /// Without one a stored response that is fresh answers as it stands.
    pub(crate) steered: bool,
    pub(crate) host: Host<'a>,
}

/// The `Host` of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Host<'a> {
    Absent,
    One(&'a HeaderValue),
    /// It is not clear which one is meant.
    Several,
}

impl<'a> Glance<'a> {
    pub(crate) fn at(headers: &'a HeaderMap) -> Self {
        let mut this = Self { steered: false, host: Host::Absent };
        for (name, value) in headers {
            this.steered |= steers(name);
            if *name == header::HOST {
                this.host = if matches!(this.host, Host::Absent) { Host::One(value) } else { Host::Several };
            }
        }
        this
    }
}

impl<'a> Host<'a> {
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (None, _) => Self::Absent,
            (Some(host), None) => Self::One(host),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

fn steers(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "range"
            | "pragma"
            | "upgrade"
            | "if-match"
            | "if-range"
            | "content-type"
            | "cache-control"
            | "if-none-match"
            | "if-modified-since"
            | "if-unmodified-since"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glance<T>(fields: &[(&'static str, &'static str)], look: impl FnOnce(Glance<'_>) -> T) -> T {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        look(Glance::at(&headers))
    }

    #[test]
    fn every_field_that_a_decision_looks_at_steers() {
        for name in [
            header::CACHE_CONTROL,
            header::PRAGMA,
            header::CONTENT_TYPE,
            header::UPGRADE,
            header::RANGE,
            header::IF_RANGE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_UNMODIFIED_SINCE,
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
            headers.append(name.clone(), HeaderValue::from_static(""));
            assert!(Glance::at(&headers).steered, "{name}");
        }
        assert!(!glance(&[("accept", "*/*"), ("host", "a"), ("user-agent", "x"), ("cookie", "a=b")], |g| g.steered));
    }

    #[test]
    fn several_hosts_are_none() {
        assert!(glance(&[("accept", "a")], |glance| matches!(glance.host, Host::Absent)));
        assert!(glance(&[("host", "a")], |glance| matches!(glance.host, Host::One(host) if host == "a")));
        assert!(glance(&[("host", "a"), ("accept", "b"), ("host", "a")], |g| matches!(g.host, Host::Several)));
    }
}
