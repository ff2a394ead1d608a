//! What this process remembers of keys that it has seen: how they vary, and their tags.
//!
//! A hint only decides what the first MGET of a look-up asks for. A wrong or missing one costs a round trip.

use std::{fmt, sync::Arc};

use quick_cache::{Weighter, sync::Cache};

use crate::{
    TagDigest,
    backend::{PrimaryKey, Variant, VarySpec},
};

pub(super) struct Hints {
    vary: Cache<PrimaryKey, VarySpec, Bytewise>,
    tags: Cache<(PrimaryKey, Variant), Arc<[TagDigest]>, Bytewise>,
}

/// Each of the two remembers about this many bytes.
const CAPACITY: u64 = 8 << 20;
const TYPICAL: u64 = 128;
/// About what a key and its place cost.
const OVERHEAD: usize = 64;

impl Hints {
    #[allow(clippy::cast_possible_truncation)] // 65,536
    pub(super) fn new() -> Self {
        let items = (CAPACITY / TYPICAL) as usize;
        Self {
            vary: Cache::with_weighter(items, CAPACITY, Bytewise),
            tags: Cache::with_weighter(items, CAPACITY, Bytewise),
        }
    }

    /// How the key varies; that it does not is what is assumed of unknown keys, and not remembered.
    pub(super) fn vary(&self, key: &PrimaryKey) -> VarySpec {
        self.vary.get(key).unwrap_or(VarySpec::none())
    }

    pub(super) fn learn_vary(&self, key: &PrimaryKey, vary: &VarySpec) {
        if self.vary(key) == *vary {
            return;
        }
        if vary.is_none() {
            self.vary.remove(key);
            return;
        }
        self.vary.insert(*key, vary.unshared());
    }

    pub(super) fn tags(&self, key: &PrimaryKey, variant: Variant) -> Option<Arc<[TagDigest]>> {
        self.tags.get(&(*key, variant))
    }

    pub(super) fn learn_tags(&self, key: &PrimaryKey, variant: Variant, tags: &[TagDigest]) {
        let known = self.tags(key, variant);
        match known {
            Some(known) if *known == *tags => {}
            None if tags.is_empty() => {}
            _ if tags.is_empty() => {
                self.tags.remove(&(*key, variant));
            }
            _ => self.tags.insert((*key, variant), tags.into()),
        }
    }
}

#[derive(Clone)]
struct Bytewise;

impl<K> Weighter<K, VarySpec> for Bytewise {
    fn weight(&self, _: &K, vary: &VarySpec) -> u64 {
        (OVERHEAD + vary.as_bytes().len()) as u64
    }
}

impl<K> Weighter<K, Arc<[TagDigest]>> for Bytewise {
    fn weight(&self, _: &K, tags: &Arc<[TagDigest]>) -> u64 {
        (OVERHEAD + 8 * tags.len()) as u64
    }
}

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hints").field("vary", &self.vary.len()).field("tags", &self.tags.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn memory_is_bounded_and_the_usual_case_takes_none() {
        let hints = Hints::new();
        let key = |i: u32| PrimaryKey::from_bytes(u128::from(i).to_be_bytes());
        hints.learn_vary(&key(1), &VarySpec::none());
        hints.learn_tags(&key(1), Variant(None), &[]);
        assert_eq!((hints.vary.len(), hints.tags.len()), (0, 0));
        let tags = [TagDigest::from_bytes([1; 8]); 128];
        for i in 0..20_000 {
            hints.learn_tags(&key(i), Variant(None), &tags);
        }
        assert!(hints.tags.weight() <= CAPACITY);
    }

    #[test]
    fn what_was_learned_last_counts() {
        let hints = Hints::new();
        let key = PrimaryKey::from_bytes([1; 16]);
        let vary = VarySpec::new(Bytes::from_static(b"accept")).unwrap();
        hints.learn_vary(&key, &vary);
        assert_eq!(hints.vary(&key), vary);
        hints.learn_vary(&key, &VarySpec::none());
        assert_eq!(hints.vary(&key), VarySpec::none());
        let tag = TagDigest::from_bytes([1; 8]);
        hints.learn_tags(&key, Variant(None), &[tag]);
        assert_eq!(hints.tags(&key, Variant(None)).as_deref(), Some(&[tag][..]));
        hints.learn_tags(&key, Variant(None), &[]);
        assert_eq!(hints.tags(&key, Variant(None)), None);
    }
}
