//! How a service is told.

use std::fmt::Write as _;

use http::HeaderValue;

use super::{
    audience::AudienceKeys,
    codec::{self, MAX_LEN, Payload},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `v1.kid.payload.mac`.
    Signed,
    /// A JWT with HS256.
    #[cfg(feature = "jwt")]
    Hs256Jwt,
    /// JSON, which anybody can write who reaches the service.
    PlainJson,
}

impl Format {
    /// `None` if it is too long.
    pub(super) fn write(self, payload: &Payload, keys: &AudienceKeys) -> Option<HeaderValue> {
        let text = match self {
            Self::Signed => codec::sign(payload, keys)?,
            #[cfg(feature = "jwt")]
            Self::Hs256Jwt => crate::session::jwt::sign_hs256(payload, keys)?,
            Self::PlainJson => ascii(&serde_json::to_string(payload).ok()?),
        };
        let mut value = HeaderValue::try_from(text).ok().filter(|value| value.len() <= MAX_LEN)?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// The same JSON in ASCII, as a field needs it: outside of strings JSON is ASCII, and in strings every UTF-16 unit may
/// be escaped.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        // JSON has no DEL and no control characters that are not escaped, but DEL is allowed in strings.
        if c.is_ascii() && c != '\u{7f}' {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::KeyRing;

    #[test]
    fn plain_json_is_ascii_and_means_the_same() {
        let payload = Payload { sub: Some("Zoë 🦀\u{7f}\n\"".into()), ..Payload::default() };
        let keys = KeyRing::ephemeral().for_audience("a");
        let value = Format::PlainJson.write(&payload, &keys).unwrap();
        let text = value.to_str().unwrap();
        assert!(text.is_ascii() && value.is_sensitive());
        assert_eq!(serde_json::from_str::<Payload>(text).unwrap(), payload);
    }

    #[test]
    fn nothing_is_longer_than_4_kib() {
        let payload = Payload { sub: Some("x".repeat(4096)), ..Payload::default() };
        let keys = KeyRing::ephemeral().for_audience("a");
        assert!(Format::PlainJson.write(&payload, &keys).is_none() && Format::Signed.write(&payload, &keys).is_none());
    }
}
