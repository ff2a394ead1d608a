//! The bytes of a key, as it is counted by.

use std::net::IpAddr;

use smallvec::SmallVec;

use crate::backend::LimitKey;

/// Room for what stands for the policies, which always has 16 bytes, then fields, each with its length. Those of most
/// keys need no allocation.
pub(super) struct Fields(SmallVec<[u8; 128]>);

impl Fields {
    pub(super) fn new() -> Self {
        Self(SmallVec::from_slice(&[0; 16]))
    }

    /// The key under the policies that this stands for.
    pub(super) fn under(mut self, policies: &[u8; 16]) -> LimitKey {
        self.0[..16].copy_from_slice(policies);
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(&self.0).as_bytes()[..16]);
        LimitKey::from_bytes(key)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    pub(super) fn push(&mut self, field: &[u8]) {
        self.0.extend_from_slice(&(field.len() as u64).to_le_bytes());
        self.0.extend_from_slice(field);
    }

    /// A field of a kind, so that a user never has the key of a session.
    pub(super) fn tagged(&mut self, kind: u8, field: &[u8]) {
        let mut head = [kind; 9];
        head[1..].copy_from_slice(&(field.len() as u64).to_le_bytes());
        self.0.extend_from_slice(&head);
        self.0.extend_from_slice(field);
    }

    /// The end of a list; no field is as long as that.
    pub(super) fn end(&mut self) {
        self.0.extend_from_slice(&u64::MAX.to_le_bytes());
    }
}

/// A key that code says it is, which no request has.
pub(in crate::rate_limit) fn by_hand(key: &[u8], policies: &[u8; 16]) -> LimitKey {
    let mut fields = Fields::new();
    fields.tagged(b'l', key);
    fields.under(policies)
}

/// An address as a key of its own, under the policies that this stands for: with so much of that that no two addresses are
/// ever alike. Which ones a client has is not for it to choose, so that none has the hashed key of another.
pub(super) fn plain(kind: u8, address: [u8; 8], policies: &[u8; 16]) -> LimitKey {
    let mut key = *policies;
    key[7] = kind;
    key[8..].copy_from_slice(&address);
    LimitKey::from_bytes(key)
}

/// An address that is a key as it is, with its kind; `None` where it does not fit in.
pub(super) fn plain_address(address: IpAddr) -> Option<(u8, [u8; 8])> {
    match address {
        IpAddr::V4(address) => Some((b'4', u64::from(address.to_bits()).to_be_bytes())),
        IpAddr::V6(address) => {
            let octets = address.octets();
            octets.first_chunk().filter(|_| octets[8..] == [0; 8]).map(|network| (b'6', *network))
        }
    }
}
