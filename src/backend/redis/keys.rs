//! The names of all keys, and which bucket they are in.

use bytes::{BufMut, Bytes, BytesMut};
use fred::util::redis_keyslot;

/// The keys of one namespace.
///
/// Every key is `<namespace>:{<hash tag>}:<kind>[:<part>]…`. The keys of a bucket share its hash tag, so that they lie
/// in one slot of a Cluster and one script may touch them all. The tags are decimal numbers, chosen so that the slots
/// are spread evenly: bucket `i` of `n` lies in the `i`-th of `n` equal ranges of slots.
#[derive(Debug)]
pub(super) struct Keys {
    namespace: Box<str>,
    tags: Box<[HashTag]>,
}

#[derive(Debug)]
struct HashTag {
    name: Box<str>,
    slot: u16,
    /// `<namespace>:{<hash tag>}:`
    prefix: Box<[u8]>,
    clock: Bytes,
}

/// One of the buckets of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Bucket(u16);

const SLOTS: usize = 16_384;

impl Keys {
    /// The most buckets; each has a clock and copies of the tag cells that it uses.
    pub(super) const MAX_BUCKETS: u16 = 1024;

    /// `buckets` must be 1 to [`Keys::MAX_BUCKETS`].
    pub(super) fn new(namespace: &str, buckets: u16) -> Self {
        let n = usize::from(buckets.clamp(1, Self::MAX_BUCKETS));
        let mut tags: Vec<Option<HashTag>> = (0..n).map(|_| None).collect();
        let mut missing = n;
        for name in 0_u32.. {
            if missing == 0 {
                break;
            }
            let name = name.to_string();
            let slot = redis_keyslot(name.as_bytes());
            let tag = &mut tags[usize::from(slot) * n / SLOTS];
            if tag.is_none() {
                let prefix = format!("{namespace}:{{{name}}}:");
                let clock = format!("{prefix}c").into();
                *tag = Some(HashTag { name: name.into(), slot, prefix: prefix.into_bytes().into(), clock });
                missing -= 1;
            }
        }
        Self { namespace: namespace.into(), tags: tags.into_iter().flatten().collect() }
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// All buckets.
    pub(super) fn buckets(&self) -> impl ExactSizeIterator<Item = Bucket> + use<> {
        #[allow(clippy::cast_possible_truncation)] // at most MAX_BUCKETS
        let n = self.tags.len() as u16;
        (0..n).map(Bucket)
    }

    /// The bucket with the hash tag `0`, which has what there is once in a namespace.
    pub(super) fn home(&self) -> Bucket {
        self.buckets().find(|bucket| self.tag(*bucket) == "0").unwrap_or(Bucket(0))
    }

    /// The bucket of something with an evenly spread hash; pass its first 8 bytes.
    pub(super) fn bucket(&self, hash: [u8; 8]) -> Bucket {
        #[allow(clippy::cast_possible_truncation)] // less than the number of buckets
        Bucket((u64::from_le_bytes(hash) % self.tags.len() as u64) as u16)
    }

    /// The slot in which the keys of the bucket lie.
    pub(super) fn slot(&self, bucket: Bucket) -> u16 {
        self.tags[bucket.index()].slot
    }

    /// The hash tag of the bucket.
    pub(super) fn tag(&self, bucket: Bucket) -> &str {
        &self.tags[bucket.index()].name
    }

    /// The name of the bucket's clock: `key(bucket, "c", &[])`, without an allocation.
    pub(super) fn clock(&self, bucket: Bucket) -> Bytes {
        self.tags[bucket.index()].clock.clone()
    }

    /// `<namespace>:{<hash tag>}:<kind>[:<part>]…`; parts may be any bytes.
    pub(super) fn key(&self, bucket: Bucket, kind: &str, parts: &[&[u8]]) -> Bytes {
        let prefix = self.tags[bucket.index()].prefix.len();
        let len = prefix + kind.len() + parts.iter().map(|part| part.len() + 1).sum::<usize>();
        let mut key = BytesMut::with_capacity(len);
        self.put(&mut key, bucket, kind, parts);
        key.freeze()
    }

    /// The same at the end of a buffer.
    pub(super) fn put(&self, key: &mut BytesMut, bucket: Bucket, kind: &str, parts: &[&[u8]]) {
        key.put_slice(&self.tags[bucket.index()].prefix);
        key.put_slice(kind.as_bytes());
        for part in parts {
            key.put_u8(b':');
            key.put_slice(part);
        }
    }
}

impl Bucket {
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_a_person_recognises() {
        let keys = Keys::new("shop", 1);
        let bucket = keys.bucket([7; 8]);
        assert_eq!(keys.key(bucket, "c", &[]), "shop:{0}:c");
        assert_eq!(keys.key(bucket, "e", &[b"00ff", b"variant0"]), "shop:{0}:e:00ff:variant0");
    }

    #[test]
    fn buckets_are_spread_evenly_over_the_slots_and_keep_their_names() {
        for n in [1, 2, 64, 1024] {
            let keys = Keys::new("gh", n);
            assert_eq!(keys.buckets().len(), usize::from(n));
            for (i, bucket) in keys.buckets().enumerate() {
                let slot = redis_keyslot(&keys.key(bucket, "e", &[b"x"]));
                assert_eq!(slot, keys.slot(bucket));
                assert_eq!(usize::from(slot) * usize::from(n) / SLOTS, i);
            }
        }
        // Other processes, and other versions, must come to the same names.
        let keys = Keys::new("gh", 4);
        assert_eq!(keys.buckets().map(|b| keys.tag(b).to_owned()).collect::<Vec<_>>(), ["3", "2", "1", "0"]);
    }

    #[test]
    fn one_third_of_the_cluster_has_one_third_of_the_buckets() {
        let keys = Keys::new("gh", 64);
        let shards = keys.buckets().fold([0; 3], |mut shards, bucket| {
            shards[usize::from(keys.slot(bucket)) * 3 / SLOTS] += 1;
            shards
        });
        assert!(shards.iter().all(|n| (21..=22).contains(n)), "{shards:?}");
    }
}
