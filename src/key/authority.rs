//! Authorities as they are keyed.

use std::borrow::Cow;

/// In lower case, without user information, without the port that the scheme implies.
pub(super) fn normalise(authority: &str, https: bool) -> Cow<'_, str> {
    // Most say nothing else.
    if authority.bytes().all(|byte| !matches!(byte, b'@' | b':' | b'A'..=b'Z')) {
        return Cow::Borrowed(authority);
    }
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let default_port = if https { ":443" } else { ":80" };
    // An empty port is the default one (RFC 3986 §6.2.3).
    let host = host.strip_suffix(default_port).or_else(|| host.strip_suffix(':')).unwrap_or(host);
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// Whether a `Host` field is `host[:port]` (RFC 9110 §7.2) or empty. One with user information or a path in it is read
/// in different ways, and an application that repeats it would write a link to somewhere else into what is stored.
pub(super) fn is_host(field: &str) -> bool {
    let is_of_a_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:%[]".contains(&byte);
    field.bytes().all(is_of_a_host)
}

#[cfg(test)]
mod tests {
    use super::{is_host, normalise};

    #[test]
    fn equal_authorities_look_equal() {
        for (authority, https, expected) in [
            ("example.com", false, "example.com"),
            ("EXAMPLE.com:80", false, "example.com"),
            ("example.com:443", true, "example.com"),
            ("example.com:80", true, "example.com:80"),
            ("example.com:", false, "example.com"),
            ("u:p@example.com", false, "example.com"),
            ("[::1]:80", false, "[::1]"),
            ("[::80]", false, "[::80]"),
            ("example.com:8080", false, "example.com:8080"),
            ("", false, ""),
        ] {
            assert_eq!(normalise(authority, https), expected, "{authority}");
        }
    }

    #[test]
    fn a_host_field_is_a_host_and_perhaps_a_port() {
        for field in ["", "example.com", "example.com:8080", "[::1]:80", "127.0.0.1", "a_b.example", "%61"] {
            assert!(is_host(field), "{field}");
        }
        for field in ["u@example.com", "evil.example/?@example.com", "a/b", "a?b", "a#b", "a\\b", "a b", "a,b", "a\tb"]
        {
            assert!(!is_host(field), "{field}");
        }
    }
}
