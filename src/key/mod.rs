//! What a stored response is filed under.
//!
//! BLAKE3 over fields that each carry their length: scope, scheme, authority, method class, path, query, keyed header
//! fields, a digest of the request's content. No two different lists of fields hash the same input, and the path is
//! taken as it was sent: decoding it would equate what the origin may tell apart.

mod authority;
mod decoded;
mod query;

use http::{HeaderMap, HeaderName, Method, Uri};

use crate::{TagDigest, backend::PrimaryKey, hashed::Hashed, policy::glance::Host};

pub(crate) use decoded::decoded;
pub use query::Query;

/// What of a request is keyed.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyScheme {
    /// Put before every key and tag: two caches with different scopes on one backend share nothing.
    pub(crate) scope: Box<str>,
    /// Whether all hosts share their responses.
    pub(crate) any_host: bool,
    pub(crate) query: Query,
    /// Header fields whose values are part of the key.
    pub(crate) headers: Vec<HeaderName>,
}

/// The digest of a request's content, left by `BodyKeyLayer`: it makes requests with content cacheable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyKey(pub(crate) [u8; 32]);

impl BodyKey {
    /// Whether there may be one for this method. GET and HEAD have keys without; answers to the others are not for storing
    /// (RFC 9110 §9.3.6 to §9.3.8), or they change what is stored (RFC 4918 §9, too).
    pub(crate) fn may_key(method: &Method) -> bool {
        const NEVER: [&str; 14] = [
            "GET",
            "HEAD",
            "CONNECT",
            "OPTIONS",
            "TRACE",
            "PUT",
            "PATCH",
            "DELETE",
            "MKCOL",
            "COPY",
            "MOVE",
            "LOCK",
            "UNLOCK",
            "PROPPATCH",
        ];
        !NEVER.contains(&method.as_str())
    }
}

/// What a URL is, for keys and for tags.
#[derive(Clone, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) https: bool,
    /// In lower case, without user information and without the default port.
    pub(crate) authority: std::borrow::Cow<'a, str>,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// The target of a request: an absolute URI as it stands, else the `Host` field. `None` where it is not clear
    /// which host is meant (several `Host` fields, one that is no host or not that of the URI): such a request is not
    /// cacheable.
    pub(crate) fn of(uri: &'a Uri, headers: &'a HeaderMap) -> Option<Self> {
        Self::at(uri, Host::of(headers))
    }

    /// The same for one whose `Host` is known.
    pub(crate) fn at(uri: &'a Uri, host: Host<'a>) -> Option<Self> {
        let https = uri.scheme_str().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        let host = match host {
            Host::Absent => None,
            Host::One(host) => {
                let host = host.to_str().ok().filter(|host| authority::is_host(host))?;
                Some(authority::normalise(host, https))
            }
            Host::Several => return None,
        };
        let authority = match (uri.authority(), host) {
            (None, host) => host.unwrap_or_default(),
            (Some(authority), host) => {
                let authority = authority::normalise(authority.as_str(), https);
                // An application that goes by the other one would answer for another host.
                if host.is_some_and(|host| host != authority) {
                    return None;
                }
                authority
            }
        };
        Some(Self { https, authority, path: uri.path(), query: uri.query() })
    }
}

impl KeyScheme {
    /// The primary key of a request.
    ///
    /// HEAD shares the key of GET; other methods have one of their own, with the digest of the content.
    pub(crate) fn primary(
        &self,
        target: &Target<'_>,
        method: &Method,
        headers: &HeaderMap,
        more_headers: &[HeaderName],
        body: Option<&BodyKey>,
    ) -> PrimaryKey {
        let mut fields = Hashed::new();
        self.start(&mut fields, b"response", target);
        if let Some(BodyKey(digest)) = body {
            fields.field(method.as_str().as_bytes());
            fields.field(digest);
        } else {
            fields.field(b"GET");
        }
        for name in self.headers.iter().chain(more_headers) {
            fields.field(name.as_str().as_bytes());
            let values = headers.get_all(name);
            fields.extend(&(values.iter().count() as u64).to_le_bytes());
            for value in values {
                fields.field(value.as_bytes());
            }
        }
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(&fields).as_bytes()[..16]);
        PrimaryKey::from_bytes(key)
    }

    /// The tag that responses carry whose key is more than their URL, so that they can be invalidated by it.
    pub(crate) fn url_tag(&self, target: &Target<'_>) -> TagDigest {
        let mut fields = Hashed::new();
        self.start(&mut fields, b"url", target);
        let digest = blake3::hash(&fields);
        TagDigest::of(b"url", &[&digest.as_bytes()[..16]])
    }

    /// The tag of a path prefix, over all hosts of this scope; the same however it is encoded.
    pub(crate) fn prefix_tag(&self, prefix: &str) -> TagDigest {
        TagDigest::of(b"prefix", &[self.scope.as_bytes(), decoded(prefix).as_bytes()])
    }

    /// What a tag's digest is in this scope.
    pub(crate) fn scoped(&self, tag: TagDigest) -> TagDigest {
        if self.scope.is_empty() { tag } else { TagDigest::of(b"scoped", &[self.scope.as_bytes(), tag.as_bytes()]) }
    }

    /// The origin that groups belong to (RFC 9875 §2.1): scheme and authority.
    pub(crate) fn origin<'t>(&self, target: &'t Target<'_>) -> (&'static str, &'t str) {
        match (self.any_host, target.https) {
            (true, _) => ("", ""),
            (false, true) => ("https", &*target.authority),
            (false, false) => ("http", &*target.authority),
        }
    }

    fn start(&self, fields: &mut Hashed, domain: &[u8], target: &Target<'_>) {
        fields.field(domain);
        fields.field(self.scope.as_bytes());
        if self.any_host {
            fields.extend(&[0]);
        } else {
            fields.extend(&[if target.https { 2 } else { 1 }]);
            fields.field(target.authority.as_bytes());
        }
        fields.field(target.path.as_bytes());
        match self.query.apply(target.query) {
            None => fields.extend(&[0]),
            Some(query) => {
                fields.extend(&[1]);
                fields.field(query.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    fn key_with(scheme: &KeyScheme, request: impl std::borrow::Borrow<Request<()>>) -> PrimaryKey {
        let request = request.borrow();
        let target = Target::of(request.uri(), request.headers()).unwrap();
        let body = request.extensions().get::<BodyKey>();
        scheme.primary(&target, request.method(), request.headers(), &[], body)
    }

    fn key(request: http::request::Builder) -> PrimaryKey {
        key_with(&KeyScheme::default(), request.body(()).unwrap())
    }

    fn get(uri: &str) -> http::request::Builder {
        Request::get(uri)
    }

    #[test]
    fn what_is_the_same_resource_has_one_key() {
        let a = key(get("/a?x=1").header("host", "Example.com:80"));
        assert_eq!(a, key(get("http://example.COM/a?x=1")));
        assert_eq!(a, key(Request::head("/a?x=1").header("host", "example.com")));
        assert_eq!(a, key(get("http://user:pw@example.com/a?x=1")), "user information selects nothing");
    }

    #[test]
    fn what_may_differ_has_its_own_key() {
        let requests = [
            get("http://a/"),
            get("https://a/"),
            get("http://b/"),
            get("http://a:8080/"),
            get("http://a/a"),
            get("http://a/A"),
            get("http://a/%61"),
            get("http://a/a%2Fb"),
            get("http://a/a/b"),
            get("http://a/a/b/"),
            get("http://a//a/b"),
            get("http://a/?"),
            get("http://a/?x"),
            get("http://a/?x="),
            get("http://a/?x=1&y=2"),
            get("http://a/?y=2&x=1"),
            get("http://a/x=1"),
        ];
        let keys: std::collections::HashSet<_> = requests.into_iter().map(key).collect();
        assert_eq!(keys.len(), 17);
    }

    #[test]
    fn moving_bytes_between_fields_changes_the_key() {
        let scheme = KeyScheme {
            headers: vec![HeaderName::from_static("a"), HeaderName::from_static("b")],
            ..KeyScheme::default()
        };
        let with = |headers: &[(&'static str, &'static str)]| {
            let mut request = get("http://h/").body(()).unwrap();
            for (name, value) in headers {
                request.headers_mut().append(*name, HeaderValue::from_static(value));
            }
            key_with(&scheme, request)
        };
        let keys: std::collections::HashSet<_> = [
            with(&[]),
            with(&[("a", "")]),
            with(&[("b", "")]),
            with(&[("a", "1b")]),
            with(&[("a", "1"), ("b", "")]),
            with(&[("a", "1"), ("a", "")]),
            with(&[("a", "1"), ("a", "2")]),
            with(&[("a", "1, 2")]),
            with(&[("a", "2"), ("a", "1")]),
        ]
        .into();
        assert_eq!(keys.len(), 9);
    }

    #[test]
    fn scopes_share_nothing() {
        let (a, b) = (
            KeyScheme { scope: "a".into(), ..KeyScheme::default() },
            KeyScheme { scope: "b".into(), ..KeyScheme::default() },
        );
        let request = || get("http://h/").body(()).unwrap();
        assert_ne!(key_with(&a, request()), key_with(&b, request()));
        let tag = crate::Tag::new("t").unwrap().digest();
        assert_ne!(a.scoped(tag), b.scoped(tag));
        assert_ne!(a.prefix_tag("/"), b.prefix_tag("/"));
    }

    #[test]
    fn hosts_share_where_they_are_told_to() {
        let scheme = KeyScheme { any_host: true, ..KeyScheme::default() };
        let request = |uri: &str| get(uri).body(()).unwrap();
        assert_eq!(key_with(&scheme, request("http://a/x")), key_with(&scheme, request("https://b/x")));
    }

    #[test]
    fn content_is_keyed_with_its_method() {
        let scheme = KeyScheme::default();
        let request = |method: Method, digest| {
            let mut request = Request::builder().method(method).uri("http://h/search").body(()).unwrap();
            request.extensions_mut().insert(BodyKey([digest; 32]));
            request
        };
        let post = key_with(&scheme, request(Method::POST, 1));
        assert_ne!(post, key_with(&scheme, request(Method::POST, 2)));
        assert_ne!(post, key_with(&scheme, request(Method::from_bytes(b"QUERY").unwrap(), 1)));
        assert_ne!(post, key_with(&scheme, get("http://h/search").body(()).unwrap()));
    }

    #[test]
    fn a_request_with_two_hosts_has_no_target() {
        let mut request = get("/").header("host", "a").body(()).unwrap();
        request.headers_mut().append("host", HeaderValue::from_static("b"));
        assert!(Target::of(request.uri(), request.headers()).is_none());
    }

    #[test]
    fn a_request_whose_host_is_more_than_a_host_has_no_target() {
        for host in ["evil.example/?@shop.example", "user@shop.example", "shop.example, evil.example"] {
            let request = get("/a").header("host", host).body(()).unwrap();
            assert!(Target::of(request.uri(), request.headers()).is_none(), "{host}");
        }
    }

    #[test]
    fn a_request_whose_target_and_host_differ_has_no_target() {
        let target = |host: &'static str| {
            let request = get("http://victim:80/").header("host", host).body(()).unwrap();
            Target::of(request.uri(), request.headers()).map(|target| target.authority.into_owned())
        };
        assert_eq!(target("evil"), None);
        assert_eq!(target("Victim").as_deref(), Some("victim"));
    }
}
