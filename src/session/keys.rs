//! The secrets from which everything that a client or a service may not forge is made.

use std::{fmt, str::FromStr, sync::Arc};

use base64::Engine as _;

/// The master keys of a gateway: the first one signs, all of them are accepted.
///
/// To replace a key without logging anybody out: have every gateway [accept](Self::accept) the new one first, then
/// sign with it and accept the old one, and drop the old one when the sessions that it signed have ended.
///
/// All gateways of a fleet need the same keys. A token is bound to nothing else: where two applications beside each other
/// have the same keys and the same store, a token of the one is good in the other, whatever their cookies are called.
/// Give each its own keys, and each cookie its own name: an unknown token is expired in the browser. From each master, keys for single purposes are derived
/// (`blake3::derive_key`); the master itself is not kept.
///
/// ```
/// use tower_gatehouse::session::KeyRing;
///
/// let keys = KeyRing::new([7; 32])?.accept([6; 32])?;
/// assert!(KeyRing::new(b"too short").is_err());
/// // From the environment: hexadecimal or base64, the signing key first.
/// let keys: KeyRing = "0707070707070707070707070707070707070707070707070707070707070707".parse()?;
/// assert_eq!(format!("{keys:?}"), "KeyRing { keys: 1, .. }");
/// # Ok::<(), tower_gatehouse::session::KeyError>(())
/// ```
#[derive(Clone)]
pub struct KeyRing(Arc<[Key]>);

/// What is derived from one master key.
#[derive(Clone)]
pub(super) struct Key {
    /// Chooses the key without trying all. Two masters may share one: the MAC decides.
    pub(super) kid: u8,
    /// Signs tokens, and turns the id of a session into the key of its record.
    pub(super) token: [u8; 32],
    /// From which the keys of the services behind are derived.
    pub(super) forward: [u8; 32],
}

impl KeyRing {
    /// The fewest bytes of a master key.
    pub const MIN_LEN: usize = 32;

    /// A ring with one key of at least 32 random bytes.
    ///
    /// # Errors
    /// If it is shorter, or all bytes are the same zero.
    pub fn new(master: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        Ok(Self(Arc::new([Key::derive(master.as_ref())?])))
    }

    /// One more key that is accepted, but does not sign.
    ///
    /// # Errors
    /// Like [`KeyRing::new`].
    pub fn accept(self, master: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let more = Key::derive(master.as_ref())?;
        Ok(Self(self.0.iter().cloned().chain([more]).collect()))
    }

    /// A random key that dies with the process: for tests and demonstrations. Other processes do not know it.
    ///
    /// # Panics
    /// If the operating system has no random bytes.
    pub fn ephemeral() -> Self {
        let mut master = [0; 32];
        getrandom::fill(&mut master).expect("the operating system gives random bytes");
        Self(Arc::new([Key::of(&master)]))
    }

    /// Whether both sign with the same key.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        constant_time_eq::constant_time_eq(&self.signing().token, &other.signing().token)
    }

    pub(super) fn signing(&self) -> &Key {
        // There is no way to make an empty ring.
        &self.0[0]
    }

    pub(super) fn with_kid(&self, kid: u8) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| key.kid == kid)
    }

    pub(super) fn all(&self) -> &[Key] {
        &self.0
    }
}

impl Key {
    fn derive(master: &[u8]) -> Result<Self, KeyError> {
        if master.len() < KeyRing::MIN_LEN {
            return Err(KeyError("a master key has at least 32 bytes"));
        }
        if master.iter().all(|byte| *byte == 0) {
            return Err(KeyError("a master key must not consist of zeros"));
        }
        Ok(Self::of(master))
    }

    fn of(master: &[u8]) -> Self {
        Self {
            kid: blake3::derive_key("tower-gatehouse 2026-11-21 key id", master)[0],
            token: blake3::derive_key("tower-gatehouse 2026-11-21 session token", master),
            forward: blake3::derive_key("tower-gatehouse 2026-11-21 forwarded session", master),
        }
    }
}

impl FromStr for KeyRing {
    type Err = KeyError;

    /// Master keys in hexadecimal or base64 (either alphabet), separated by commas; the first one signs.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut masters = text.split(',').map(|part| decode(part.trim()));
        let first = masters.next().ok_or(KeyError("there is no master key"))??;
        masters.try_fold(Self::new(first)?, |ring, master| ring.accept(master?))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("keys", &self.0.len()).finish_non_exhaustive()
    }
}

/// Reads a secret: hexadecimal if it looks like it, else base64 of either alphabet, padded or not.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, KeyError> {
    if text.len().is_multiple_of(2) && text.len() >= 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        let bytes = text.as_bytes().chunks_exact(2).filter_map(|pair| std::str::from_utf8(pair).ok());
        return Ok(bytes.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect());
    }
    let plain: String = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(plain)
        .map_err(|_| KeyError("a master key is written in hexadecimal or base64"))
}

/// Something that is no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError(pub(super) &'static str);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_empty_keys_are_refused() {
        for bad in [&[1; 31][..], &[0; 32], &[]] {
            assert!(KeyRing::new(bad).is_err());
            assert!(KeyRing::new([1; 32]).unwrap().accept(bad).is_err());
        }
        for bad in ["", ",", "abc", "not base64 !!", &"ab".repeat(31)] {
            assert!(bad.parse::<KeyRing>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_the_same_in_every_notation() {
        let bytes: Vec<u8> = (200..=240).collect();
        let hex = bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let ring = KeyRing::new(&bytes).unwrap();
        let standard = base64::engine::general_purpose::STANDARD.encode(&bytes);
        let url = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&bytes);
        for text in [hex, standard, url] {
            let parsed: KeyRing = text.parse().unwrap();
            assert_eq!(parsed.signing().token, ring.signing().token, "{text}");
        }
    }

    #[test]
    fn every_purpose_has_a_key_of_its_own() {
        let ring = KeyRing::new([9; 32]).unwrap();
        let key = ring.signing();
        assert_ne!(key.token, key.forward);
        assert!([key.token, key.forward].iter().all(|derived| *derived != [9; 32]));
    }
}
