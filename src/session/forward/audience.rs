//! The keys that the gateway and one service share.

use std::{fmt, str::FromStr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::session::{KeyError, KeyRing};

/// The keys with which one service verifies `x-session`. They are derived from the gateway's master keys and the name
/// of the service: a service can neither forge for another one nor make session tokens.
///
/// ```
/// use tower_gatehouse::session::{AudienceKeys, KeyRing};
///
/// let gateway = KeyRing::ephemeral();
/// // What the service is configured with:
/// let secret = gateway.for_audience("orders").expose();
/// let service: AudienceKeys = secret.parse()?;
/// assert_eq!(format!("{service:?}"), r#"AudienceKeys { audience: "orders", .. }"#);
/// # Ok::<(), tower_gatehouse::session::KeyError>(())
/// ```
#[derive(Clone)]
pub struct AudienceKeys {
    audience: Arc<str>,
    keys: Arc<[AudienceKey]>,
}

#[derive(Clone, Copy)]
pub(super) struct AudienceKey {
    pub(super) kid: u8,
    pub(super) secret: [u8; 32],
}

impl KeyRing {
    /// The keys of one service; its name is the audience of what is forwarded to it.
    pub fn for_audience(&self, audience: &str) -> AudienceKeys {
        let keys = self.all().iter().map(|key| {
            let material = [&key.forward[..], audience.as_bytes()].concat();
            let secret = blake3::derive_key("tower-gatehouse 2026-11-21 x-session for one audience", &material);
            AudienceKey { kid: key.kid, secret }
        });
        AudienceKeys { audience: audience.into(), keys: keys.collect() }
    }
}

impl AudienceKeys {
    /// The name of the service.
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// The keys as text, for the configuration of the service: a secret.
    pub fn expose(&self) -> String {
        let keys = self.keys.iter().map(|key| format!(":{:02x}{}", key.kid, URL_SAFE_NO_PAD.encode(key.secret)));
        keys.fold(self.audience.to_string(), |text, key| text + &key)
    }

    /// The secret with which a JWT library verifies what [`ForwardSessionLayer::hs256_jwt`] sends (HS256); the first of
    /// the ring. A secret.
    ///
    /// [`ForwardSessionLayer::hs256_jwt`]: crate::session::ForwardSessionLayer
    pub fn jwt_secret(&self) -> [u8; 32] {
        blake3::derive_key("tower-gatehouse 2026-11-21 x-session as HS256 JWT", &self.signing().secret)
    }

    #[cfg(feature = "jwt")]
    pub(in crate::session) fn kid(&self) -> String {
        format!("{:02x}", self.signing().kid)
    }

    pub(super) fn signing(&self) -> &AudienceKey {
        // There is no way to make an empty list.
        &self.keys[0]
    }

    pub(super) fn with_kid(&self, kid: u8) -> impl Iterator<Item = &AudienceKey> {
        self.keys.iter().filter(move |key| key.kid == kid)
    }
}

impl FromStr for AudienceKeys {
    type Err = KeyError;

    /// Reads what [`AudienceKeys::expose`] wrote.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        const FORM: KeyError = KeyError("the keys of a service are written as the gateway shows them");

        let mut keys: Vec<AudienceKey> = Vec::new();
        let mut rest = text.trim();
        // From the end: the name of a service may contain colons.
        while let Some((before, key)) = rest.rsplit_once(':') {
            let Some(key) = AudienceKey::parse(key) else { break };
            keys.insert(0, key);
            rest = before;
        }
        if keys.is_empty() || rest.is_empty() {
            Err(FORM)
        } else {
            Ok(Self { audience: rest.into(), keys: keys.into() })
        }
    }
}

impl AudienceKey {
    fn parse(text: &str) -> Option<Self> {
        let (kid, secret) = text.split_at_checked(2)?;
        let secret = URL_SAFE_NO_PAD.decode(secret).ok()?.try_into().ok()?;
        Some(Self { kid: u8::from_str_radix(kid, 16).ok()?, secret })
    }
}

impl fmt::Debug for AudienceKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AudienceKeys").field("audience", &self.audience).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_the_way_through_a_configuration() {
        let ring = KeyRing::new([1; 32]).unwrap().accept([2; 32]).unwrap();
        for name in ["orders", "urn:orders:v1"] {
            let keys = ring.for_audience(name);
            let read: AudienceKeys = keys.expose().parse().unwrap();
            assert_eq!(read.audience(), name);
            let both = |keys: &AudienceKeys| keys.keys.iter().map(|key| (key.kid, key.secret)).collect::<Vec<_>>();
            assert_eq!(both(&read), both(&keys));
            assert_eq!(read.jwt_secret(), keys.jwt_secret());
        }
        for broken in ["", "orders", ":", "orders:", "orders:zz", &format!(":{}", "A".repeat(45))] {
            assert!(broken.parse::<AudienceKeys>().is_err(), "{broken}");
        }
    }

    #[test]
    fn services_have_nothing_in_common() {
        let ring = KeyRing::new([1; 32]).unwrap();
        let (a, b) = (ring.for_audience("a"), ring.for_audience("b"));
        assert!(a.signing().secret != b.signing().secret && a.jwt_secret() != b.jwt_secret());
        assert_ne!(a.jwt_secret(), a.signing().secret);
    }
}
