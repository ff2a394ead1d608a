//! Fields that concern one connection only (RFC 9110 §7.6.1, RFC 9111 §3.1).

use http::{HeaderMap, HeaderName, header};

use super::lists;

/// The fields that are hop-by-hop without being named in `Connection`.
static FIXED: [HeaderName; 11] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// Removes them, those that `Connection` names first.
pub(crate) fn remove(headers: &mut HeaderMap) {
    let named: Vec<_> = named(headers).collect();
    for name in named.iter().chain(&FIXED) {
        headers.remove(name);
    }
}

/// The fields that `Connection` names.
pub(crate) fn named(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    lists::field_members(headers, &header::CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok())
}

/// Whether a field is one of the fixed set.
pub(crate) fn is_fixed(name: &HeaderName) -> bool {
    FIXED.contains(name)
}
