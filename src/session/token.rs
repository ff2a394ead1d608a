//! What the client holds: a random id and a proof that we made it.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    base64url,
    keys::{Key, KeyRing},
};
use crate::backend::RecordKey;

/// A session token: `0x01 | kid | random[22] | mac[8]` in base64url, 43 characters.
///
/// The first two random bytes are the home of the record ([`RecordKey::home`]): those of the user where the session is
/// a user's. 160 bits are left that nobody can guess, and the MAC makes a guess cost nothing but a hash.
///
/// Boxed: every request has room for one that it may be given, and hardly any is.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(Box<Minted>);

#[derive(Clone, PartialEq, Eq)]
struct Minted {
    bytes: [u8; LEN],
    key: RecordKey,
}

/// What a piece of text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A token that we made.
    Ours(RecordKey),
    /// It looks like ours, but we did not make it, or with a key that is not in the ring any more.
    Forged,
    /// Something else.
    Foreign,
}

const VERSION: u8 = 1;
const LEN: usize = 32;
const SIGNED: usize = LEN - MAC;
const MAC: usize = 8;

impl Token {
    /// A new one.
    ///
    /// # Panics
    /// If the operating system has no random bytes.
    pub(super) fn mint(keys: &KeyRing, home: Option<u16>) -> Self {
        let key = keys.signing();
        let mut bytes = [0; LEN];
        getrandom::fill(&mut bytes[2..SIGNED]).expect("the operating system gives random bytes");
        (bytes[0], bytes[1]) = (VERSION, key.kid);
        if let Some(home) = home {
            bytes[2..4].copy_from_slice(&home.to_be_bytes());
        }
        let hash = hash(key, &bytes);
        bytes[SIGNED..].copy_from_slice(mac(&hash));
        Self(Box::new(Minted { bytes, key: record_key(&hash, &bytes) }))
    }

    /// What this text is. Costs a hash for each key with its id, of which there is one in general, and no look-up.
    pub(super) fn parse(text: &[u8], keys: &KeyRing) -> Parsed {
        let Some(bytes) = base64url::decode(text).filter(|bytes| bytes[0] == VERSION) else { return Parsed::Foreign };
        let ours = |hash: &blake3::Hash| constant_time_eq::constant_time_eq(mac(hash), &bytes[SIGNED..]);
        match keys.with_kid(bytes[1]).map(|key| hash(key, &bytes)).find(ours) {
            Some(hash) => Parsed::Ours(record_key(&hash, &bytes)),
            None => Parsed::Forged,
        }
    }

    /// The key of its record.
    pub(super) fn key(&self) -> RecordKey {
        self.0.key
    }

    /// What the client gets.
    pub(super) fn expose(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.bytes)
    }
}

/// Of which the client gets to see the MAC, and the store the key of the record: neither tells anything of the other.
fn hash(key: &Key, bytes: &[u8; LEN]) -> blake3::Hash {
    blake3::keyed_hash(&key.token, &bytes[..SIGNED])
}

fn mac(hash: &blake3::Hash) -> &[u8] {
    &hash.as_bytes()[..MAC]
}

fn record_key(hash: &blake3::Hash, bytes: &[u8; LEN]) -> RecordKey {
    let mut record = [0; 16];
    record.copy_from_slice(&hash.as_bytes()[MAC..MAC + 16]);
    record[..2].copy_from_slice(&bytes[2..4]);
    RecordKey::from_bytes(record)
}

impl fmt::Debug for Token {
    /// Never the token: the key of its record.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("key", &self.0.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_has_43_characters_and_leads_to_its_record() {
        let keys = KeyRing::ephemeral();
        let token = Token::mint(&keys, Some(0xbeef));
        let text = token.expose();
        assert_eq!(text.len(), 43);
        assert_eq!(Token::parse(text.as_bytes(), &keys), Parsed::Ours(token.key()));
        assert_eq!(token.key().home(), 0xbeef);
        let debug = format!("{token:?}");
        assert!(!debug.contains(&text) && debug.contains(&token.key().to_string()), "{debug}");
    }

    #[test]
    fn no_two_tokens_are_alike() {
        let keys = KeyRing::ephemeral();
        let mut seen = std::collections::HashSet::new();
        assert!((0..1000).all(|_| seen.insert(Token::mint(&keys, Some(1)).expose())));
    }

    #[test]
    fn a_token_lives_as_long_as_its_key_is_in_the_ring() {
        let old = KeyRing::new([1; 32]).unwrap();
        let token = Token::mint(&old, None);
        let text = token.expose();
        let both = KeyRing::new([2; 32]).unwrap().accept([1; 32]).unwrap();
        assert_eq!(Token::parse(text.as_bytes(), &both), Parsed::Ours(token.key()), "and has the same record");
        let new = KeyRing::new([2; 32]).unwrap();
        assert_eq!(Token::parse(text.as_bytes(), &new), Parsed::Forged);
        assert_eq!(Token::parse(Token::mint(&both, None).expose().as_bytes(), &old), Parsed::Forged, "new ones sign");
    }

    #[test]
    fn masters_that_share_a_key_id_are_told_apart_by_the_mac() {
        let kid = |n: u16| KeyRing::new([&n.to_be_bytes()[..], &[5; 30]].concat()).unwrap().signing().kid;
        let twin = (1..u16::MAX).find(|n| kid(*n) == kid(0)).unwrap();
        let master = |n: u16| [&n.to_be_bytes()[..], &[5; 30]].concat();
        let both = KeyRing::new(master(twin)).unwrap().accept(master(0)).unwrap();
        let token = Token::mint(&KeyRing::new(master(0)).unwrap(), None);
        assert_eq!(Token::parse(token.expose().as_bytes(), &both), Parsed::Ours(token.key()));
    }

    proptest! {
        #[test]
        fn nothing_that_was_not_made_here_is_accepted(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(!matches!(Token::parse(&text, &KeyRing::new([3; 32]).unwrap()), Parsed::Ours(_)));
        }

        #[test]
        fn one_changed_character_is_too_many(at in 0_usize..43, to in "[A-Za-z0-9_-]") {
            let keys = KeyRing::new([3; 32]).unwrap();
            let token = Token::mint(&keys, None).expose();
            let mut changed = token.clone().into_bytes();
            changed[at] = to.as_bytes()[0];
            prop_assume!(changed != token.as_bytes());
            prop_assert!(!matches!(Token::parse(&changed, &keys), Parsed::Ours(_)));
        }
    }
}
