//! What the fuzz targets of sessions call.

use super::{
    KeyRing,
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
