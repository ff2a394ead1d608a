//! What the fuzz targets of sessions call.

use http::{HeaderMap, HeaderValue, header};

use super::{
    KeyRing, SessionCookie,
    token::{Parsed, Token},
};

/// No bytes are a token that was not made here.
pub(crate) fn token(data: &[u8]) {
    let Ok(keys) = KeyRing::new([3; 32]) else { return };
    assert!(!matches!(Token::parse(data, &keys), Parsed::Ours(_)));
}

/// See `forward::codec`.
pub(crate) fn x_session(data: &[u8]) {
    let Ok(keys) = KeyRing::new([3; 32]) else { return };
    super::forward::fuzz(data, &keys.for_audience("orders"));
}

/// Of any cookies ours are removed and all others are left, in their order.
pub(crate) fn cookie(data: &[u8]) {
    let cookie = SessionCookie::default();
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(header::COOKIE, line);
    }
    let ours = format!("{}=", cookie.name());
    let others = |headers: &HeaderMap| -> Vec<Vec<u8>> {
        let lines = headers.get_all(header::COOKIE).iter();
        let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
        pairs.filter(|pair| !pair.is_empty() && !pair.starts_with(ours.as_bytes())).map(<[u8]>::to_vec).collect()
    };
    let before = others(&headers);
    cookie.remove(&mut headers);
    assert_eq!(cookie.read(&headers).count(), 0);
    assert_eq!(others(&headers), before);
}
