//! The secret that allows purging.

use std::fmt;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::Problem;

/// The bearer token that a request for invalidation must carry. Only its hash is kept; it is compared in constant
/// time.
#[derive(Clone)]
pub struct PurgeToken(blake3::Hash);

impl PurgeToken {
    /// Takes a token of at least 16 bytes of visible ASCII, without blanks: what a bearer token can be.
    ///
    /// # Errors
    /// Where it is shorter, or has other characters.
    pub fn new(token: impl AsRef<str>) -> Result<Self, PurgeTokenError> {
        let token = token.as_ref().as_bytes();
        if token.len() < 16 || !token.iter().all(u8::is_ascii_graphic) {
            return Err(PurgeTokenError);
        }
        Ok(Self(blake3::hash(token)))
    }

    /// 401 unless the request carries the token (RFC 6750 §2.1, §3).
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let mut fields = headers.get_all(header::AUTHORIZATION).iter();
        let given = fields.next().and_then(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
        });
        // The comparison of two hashes takes the same time wherever they differ.
        match given {
            Some(token) if fields.next().is_none() && blake3::hash(token) == self.0 => Ok(()),
            _ => Err(Problem::new(StatusCode::UNAUTHORIZED, "invalidating needs the bearer token for it")
                .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"invalidation\""))),
        }
    }
}

impl fmt::Debug for PurgeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PurgeToken(…)")
    }
}

/// A token is too short, or has characters that a bearer token cannot have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeTokenError;

impl fmt::Display for PurgeTokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the token for purging must have at least 16 visible ASCII characters, and no blanks")
    }
}

impl std::error::Error for PurgeTokenError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_long_enough_and_has_no_blanks() {
        for token in [
            "",
            "0123456789abcde",
            "                ",
            "\t0123456789abcdef",
            " 0123456789abcdef",
            "0123456789abcdef\n",
            "sixteen and more characters",
            "0123456789abcd\u{e9}f",
        ] {
            assert_eq!(PurgeToken::new(token).err(), Some(PurgeTokenError), "{token:?}");
        }
        assert!(!PurgeTokenError.to_string().contains('\n'));
        PurgeToken::new("0123456789abcdef").unwrap();
        PurgeToken::new("AZaz09-._~+/AZaz09==").unwrap();
    }
}
