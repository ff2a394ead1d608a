//! The keys of one primary key, as the table in the module's documentation names them.

use bytes::{Bytes, BytesMut};
use fred::types::Value;

use super::keys::{Bucket, Keys};
use crate::{
    TagDigest,
    backend::{LeaseKey, LeaseKind, Owner, PrimaryKey, Tick, Variant},
};

/// Names the keys that belong to one primary key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    keys: &'a Keys,
    pub(super) bucket: Bucket,
    pub(super) key: PrimaryKey,
    hex: [u8; HEX],
}

const HEX: usize = 32;

impl<'a> Names<'a> {
    pub(super) fn new(keys: &'a Keys, key: &PrimaryKey) -> Self {
        Self { keys, bucket: bucket(keys, key), key: *key, hex: hex(*key.as_bytes()) }
    }

    pub(super) fn clock(&self) -> Bytes {
        self.keys.clock(self.bucket)
    }

    pub(super) fn channel(&self) -> Bytes {
        channel(self.keys, self.bucket)
    }

    pub(super) fn primary(&self) -> Bytes {
        self.keys.key(self.bucket, "p", &[&self.hex])
    }

    pub(super) fn tag(&self, tag: TagDigest) -> Bytes {
        self::tag(self.keys, self.bucket, tag)
    }

    pub(super) fn entry(&self, variant: Variant) -> Bytes {
        self.of_variant("e", variant)
    }

    pub(super) fn lease(&self, key: &LeaseKey) -> Bytes {
        self.of_variant(kind(key.kind).0, key.variant)
    }

    /// What the holder of the lease with this tick hands over.
    pub(super) fn handed_over(&self, key: &LeaseKey, tick: Tick) -> Bytes {
        let (kind, tick) = (kind(key.kind).1, tick.to_string());
        match &key.variant.0 {
            Some(variant) => self.keys.key(self.bucket, kind, &[&self.hex, variant, tick.as_bytes()]),
            None => self.keys.key(self.bucket, kind, &[&self.hex, tick.as_bytes()]),
        }
    }

    /// A name of its own for each call.
    pub(super) fn staged(&self) -> Bytes {
        self.keys.key(self.bucket, "s", &[&hex(*Owner::random().as_bytes())])
    }

    /// Adds the names of about `n` keys to a question.
    pub(super) fn ask<'b>(&'b self, n: usize, keys: &'b mut Vec<Value>) -> Several<'b> {
        let buffer = BytesMut::with_capacity(n * (self.keys.namespace().len() + TYPICAL));
        Several { names: self, buffer, keys }
    }

    fn of_variant(&self, kind: &str, variant: Variant) -> Bytes {
        match &variant.0 {
            Some(variant) => self.keys.key(self.bucket, kind, &[&self.hex, variant]),
            None => self.keys.key(self.bucket, kind, &[&self.hex]),
        }
    }
}

/// Several keys that are parts of one buffer: two allocations, however many there are.
pub(super) struct Several<'a> {
    names: &'a Names<'a>,
    buffer: BytesMut,
    keys: &'a mut Vec<Value>,
}

/// About what a key has besides the namespace.
const TYPICAL: usize = 56;

impl Several<'_> {
    pub(super) fn primary(mut self) -> Self {
        self.put("p", &[&self.names.hex]);
        self
    }

    pub(super) fn entry(mut self, variant: Variant) -> Self {
        match &variant.0 {
            Some(variant) => self.put("e", &[&self.names.hex, variant]),
            None => self.put("e", &[&self.names.hex]),
        }
        self
    }

    pub(super) fn tags(mut self, tags: &[TagDigest]) {
        for tag in tags {
            self.put("t", &[tag.as_bytes()]);
        }
    }

    fn put(&mut self, kind: &str, parts: &[&[u8]]) {
        self.names.keys.put(&mut self.buffer, self.names.bucket, kind, parts);
        self.keys.push(Value::Bytes(self.buffer.split().freeze()));
    }
}

/// The bucket in which all of a primary key is.
pub(super) fn bucket(keys: &Keys, key: &PrimaryKey) -> Bucket {
    let mut hash = [0; 8];
    hash.copy_from_slice(&key.as_bytes()[..8]);
    keys.bucket(hash)
}

pub(super) fn channel(keys: &Keys, bucket: Bucket) -> Bytes {
    keys.key(bucket, "w", &[])
}

pub(super) fn tag(keys: &Keys, bucket: Bucket, tag: TagDigest) -> Bytes {
    keys.key(bucket, "t", &[tag.as_bytes()])
}

/// The lease that a key names: what comes through a channel.
pub(super) fn parse_lease(keys: &Keys, name: &[u8]) -> Option<LeaseKey> {
    let rest = name.strip_prefix(keys.namespace().as_bytes())?.strip_prefix(b":{")?;
    let rest = &rest[rest.iter().position(|byte| *byte == b'}')? + 1..];
    let kinds = [LeaseKind::Fill, LeaseKind::Revalidate];
    let (kind, rest) = kinds.into_iter().find_map(|which| {
        Some((which, rest.strip_prefix(b":")?.strip_prefix(kind(which).0.as_bytes())?.strip_prefix(b":")?))
    })?;
    let (hex, variant) = rest.split_at_checked(HEX)?;
    let key = u128::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
    let variant = match variant {
        [] => None,
        [b':', variant @ ..] => Some(variant.try_into().ok()?),
        _ => return None,
    };
    Some(LeaseKey { key: PrimaryKey::from_bytes(key.to_be_bytes()), variant: Variant(variant), kind })
}

/// The kinds of the lease and of what is handed over under it.
fn kind(kind: LeaseKind) -> (&'static str, &'static str) {
    match kind {
        LeaseKind::Fill => ("l", "h"),
        LeaseKind::Revalidate => ("lr", "hr"),
    }
}

pub(super) fn hex(bytes: [u8; 16]) -> [u8; HEX] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = [0; HEX];
    for (i, byte) in bytes.into_iter().enumerate() {
        hex[2 * i] = DIGITS[usize::from(byte >> 4)];
        hex[2 * i + 1] = DIGITS[usize::from(byte & 15)];
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_in_the_table() {
        let keys = Keys::new("gh", 1);
        let names = Names::new(&keys, &PrimaryKey::from_bytes([0xa1; 16]));
        let variant = Variant(Some(*b"variant0"));
        let lease = LeaseKey { key: PrimaryKey::from_bytes([0xa1; 16]), variant, kind: LeaseKind::Fill };
        let hex = "a1".repeat(16);
        assert_eq!(names.clock(), "gh:{0}:c");
        assert_eq!(names.channel(), "gh:{0}:w");
        assert_eq!(names.primary(), format!("gh:{{0}}:p:{hex}"));
        assert_eq!(names.entry(Variant(None)), format!("gh:{{0}}:e:{hex}"));
        assert_eq!(names.entry(variant), format!("gh:{{0}}:e:{hex}:variant0"));
        assert_eq!(names.tag(TagDigest::from_bytes(*b"tagtagta")), "gh:{0}:t:tagtagta");
        let mut several = Vec::new();
        names.ask(1, &mut several).entry(variant).primary().tags(&[TagDigest::from_bytes(*b"tagtagta")]);
        let alone = [names.entry(variant), names.primary(), names.tag(TagDigest::from_bytes(*b"tagtagta"))];
        assert_eq!(several, alone.map(Value::Bytes));
        assert_eq!(names.handed_over(&lease, 17), format!("gh:{{0}}:h:{hex}:variant0:17"));
    }

    #[test]
    fn the_name_of_a_lease_leads_back_to_it() {
        let keys = Keys::new("gh", 64);
        for kind in [LeaseKind::Fill, LeaseKind::Revalidate] {
            for variant in [None, Some([0xff; 8]), Some(*b":}:}:}:}")] {
                let key = PrimaryKey::from_bytes([0x5e; 16]);
                let lease = LeaseKey { key, variant: Variant(variant), kind };
                let name = Names::new(&keys, &key).lease(&lease);
                assert_eq!(parse_lease(&keys, &name), Some(lease));
                assert_eq!(parse_lease(&keys, &name[..name.len() - 1]), None);
            }
        }
        assert_eq!(parse_lease(&keys, b"gh:{1}:l:xyz"), None);
        assert_eq!(parse_lease(&keys, b""), None);
    }
}
