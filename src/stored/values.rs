//! Values that many responses have.

use http::{HeaderMap, HeaderValue};

/// Those of the static table of QPACK (RFC 9204, Appendix A) that answers have, what axum writes, and lifetimes that are
/// round: a minute, an hour, a day.
static KNOWN: [&str; 52] = [
    "*",
    "1; mode=block",
    "Accept-Encoding",
    "DENY",
    "FALSE",
    "Origin",
    "SAMEORIGIN",
    "TRUE",
    "accept-encoding",
    "application/dns-message",
    "application/javascript",
    "application/json",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "br",
    "bytes",
    "content-length",
    "content-type",
    "deny",
    "gzip",
    "image/gif",
    "image/jpeg",
    "image/png",
    "max-age=0",
    "max-age=2592000",
    "max-age=300",
    "max-age=31536000",
    "max-age=3600",
    "max-age=60",
    "max-age=600",
    "max-age=604800",
    "max-age=86400",
    "no-cache",
    "no-store",
    "nosniff",
    "origin",
    "private",
    "public, max-age=300",
    "public, max-age=31536000",
    "public, max-age=3600",
    "public, max-age=60",
    "public, max-age=600",
    "public, max-age=604800",
    "public, max-age=86400",
    "sameorigin",
    "script-src 'none'; object-src 'none'; base-uri 'none'",
    "text/css",
    "text/html; charset=utf-8",
    "text/javascript",
    "text/plain",
    "text/plain; charset=utf-8",
    "text/plain;charset=utf-8",
];

/// Takes them from where they stand in the program: their copies count nothing, as those of others do, for all who copy
/// at the same place.
pub(super) fn share(headers: &mut HeaderMap) {
    for value in headers.values_mut().filter(|value| !value.is_sensitive()) {
        if let Ok(at) = KNOWN.binary_search_by(|known| known.as_bytes().cmp(value.as_bytes())) {
            *value = HeaderValue::from_static(KNOWN[at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_shared_and_says_the_same() {
        assert!(KNOWN.is_sorted());
        let mut headers = HeaderMap::new();
        for (name, value) in [("vary", "Accept-Encoding"), ("vary", "origin"), ("etag", "\"1\""), ("server", "")] {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let mut secret = HeaderValue::from_bytes(b"gzip").unwrap();
        secret.set_sensitive(true);
        headers.append("x-secret", secret);
        let before = headers.clone();
        share(&mut headers);
        assert_eq!(headers, before);
        assert!(headers["x-secret"].is_sensitive());
        let places: Vec<_> = KNOWN.iter().map(|known| known.as_ptr()).collect();
        let shared = headers.values().filter(|value| places.contains(&value.as_bytes().as_ptr())).count();
        assert_eq!(shared, 2);
    }
}
