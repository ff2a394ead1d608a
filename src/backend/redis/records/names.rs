//! The keys of one home, as the table in the module's documentation names them.

use bytes::Bytes;

use super::super::{
    keys::{Bucket, Keys},
    names::hex,
};
use crate::backend::{MapKey, MapOwner, OpId, RecordKey, UserKey};

/// Names the keys of one home.
#[derive(Clone, Copy, Debug)]
pub(super) struct Home<'a> {
    keys: &'a Keys,
    pub(super) bucket: Bucket,
}

impl<'a> Home<'a> {
    pub(super) fn new(keys: &'a Keys, home: u16) -> Self {
        let mut hash = [0; 8];
        hash[..2].copy_from_slice(&home.to_le_bytes());
        Self { keys, bucket: keys.bucket(hash) }
    }

    pub(super) fn record(&self, key: &RecordKey) -> Bytes {
        self.keys.key(self.bucket, "session", &[&hex(*key.as_bytes())])
    }

    /// What the keys of all records of this home begin with.
    pub(super) fn record_prefix(&self) -> Bytes {
        self.keys.key(self.bucket, "session", &[b""])
    }

    pub(super) fn index(&self, user: &UserKey) -> Bytes {
        self.keys.key(self.bucket, "user", &[user.to_string().as_bytes()])
    }

    pub(super) fn epoch(&self, user: &UserKey) -> Bytes {
        self.keys.key(self.bucket, "epoch", &[user.to_string().as_bytes()])
    }

    pub(super) fn map(&self, key: &MapKey) -> Bytes {
        self.keys.key(self.bucket, "map", &[key.name.as_bytes(), owner(key.owner).as_bytes()])
    }

    pub(super) fn parked(&self, key: &MapKey) -> Bytes {
        self.keys.key(self.bucket, "parked", &[key.name.as_bytes(), owner(key.owner).as_bytes()])
    }

    pub(super) fn result(&self, key: &MapKey, id: OpId) -> Bytes {
        let id = format!("{:032x}", u128::from_be_bytes(id.0));
        self.keys.key(self.bucket, "op", &[key.name.as_bytes(), owner(key.owner).as_bytes(), id.as_bytes()])
    }
}

fn owner(owner: MapOwner) -> String {
    match owner {
        MapOwner::Session(key) => format!("s{key}"),
        MapOwner::User(key) => format!("u{key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_one_home_is_in_one_slot_and_named_as_in_the_table() {
        let keys = Keys::new("shop", 64);
        let mut bytes = [0xa1; 16];
        let home = Home::new(&keys, RecordKey::from_bytes(bytes).home());
        bytes[2..].fill(7);
        let (record, user) = (RecordKey::from_bytes(bytes), UserKey::from_bytes(bytes));
        let map = MapKey { owner: MapOwner::User(user), name: "cart" };
        let all = [home.record(&record), home.index(&user), home.map(&map), home.result(&map, OpId([9; 16]))];
        for key in &all {
            assert_eq!(fred::util::redis_keyslot(key), keys.slot(home.bucket), "{key:?}");
        }
        let tag = keys.tag(home.bucket);
        assert_eq!(all[2], format!("shop:{{{tag}}}:map:cart:u{user}"));
        assert_eq!(home.record(&record), [&home.record_prefix()[..], record.to_string().as_bytes()].concat());
    }

    #[test]
    fn homes_are_spread_over_all_buckets() {
        let keys = Keys::new("shop", 64);
        let used: std::collections::BTreeSet<_> = (0..=u16::MAX).map(|home| Home::new(&keys, home).bucket).collect();
        assert_eq!(used.len(), 64);
    }
}
