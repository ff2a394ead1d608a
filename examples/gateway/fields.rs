//! Fields that concern one connection only and are never passed on (RFC 9110 §7.6.1).

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Besides those that `Connection` names. `Trailer` is not among them: it is end to end, and without it hyper would
/// not send the trailers on.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Naming these in `Connection` has no effect: without them the message would be another one, and a client could
/// have them removed after whoever stands in front of us has looked at them.
const NEVER_REMOVED: [HeaderName; 7] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::COOKIE,
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
];

/// Takes out of `headers` what concerns this connection only.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .filter(|name| !NEVER_REMOVED.contains(name))
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The members of a list of tokens, over all lines of the field.
pub(crate) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(|token| token.trim_matches([' ', '\t']))
        .filter(|token| !token.is_empty())
}

/// Whether `name` has the member `token`, in any case.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|member| member.eq_ignore_ascii_case(token))
}

/// Whether the request asks for WebSocket (RFC 6455 §4.1). It is the only protocol that is tunnelled: `h2c` through a
/// proxy would let requests past every layer.
pub(crate) fn asks_for_websocket<B>(request: &http::Request<B>) -> bool {
    request.method() == http::Method::GET
        && request.version() == http::Version::HTTP_11
        && has_token(request.headers(), &header::CONNECTION, "upgrade")
        && is_websocket(request.headers())
}

/// Whether `Upgrade` names WebSocket and nothing else.
pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = tokens(headers, &header::UPGRADE);
    protocols.next().is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket")) && protocols.next().is_none()
}

/// What a message carries that switches to WebSocket.
pub(crate) fn set_websocket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}
