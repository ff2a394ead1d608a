//! The near cache: long responses that this process has read from Redis more than once.
//!
//! A look-up of one of them asks whether Redis still has the same, in the same question as for all that may have
//! invalidated it, and is judged as if it had read it anew. So what is here saves reading it, never asking.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

use crate::{
    backend::{Entry, PrimaryKey, Variant, blob},
    metrics,
};

/// What it takes, and from which length on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Bytes of memory; 0: nothing is kept.
    pub(super) most: u64,
    /// Bytes of the value in Redis: shorter ones are read as quickly as asked for.
    pub(super) from: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self { most: 32 << 20, from: 32 << 10 }
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct NearCache(Option<Arc<Shared>>);

struct Shared {
    from: usize,
    kept: Cache<Key, Kept, ByBytes, DefaultHashBuilder>,
    sights: Box<[AtomicU64]>,
}

type Key = (PrimaryKey, Variant);

/// An entry in memory of its own.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) entry: Arc<Entry>,
    /// What names it among those that were ever stored at its key.
    pub(super) stamp: Bytes,
}

/// So many are remembered that were seen once.
const SIGHTS: usize = 4096;
const SHARDS: usize = 4;

impl NearCache {
    pub(super) fn new(size: Size) -> Self {
        if size.most == 0 {
            return Self(None);
        }
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(usize::try_from(size.most / (32 << 10)).unwrap_or(usize::MAX).clamp(128, 1 << 20))
            .weight_capacity(size.most)
            .build()
            .expect("both capacities are set");
        let kept = Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), DefaultLifecycle::default());
        let sights = (0..SIGHTS).map(|_| AtomicU64::new(0)).collect();
        Self(Some(Arc::new(Shared { from: size.from, kept, sights })))
    }

    /// What was kept of this variant.
    pub(super) fn get(&self, key: &PrimaryKey, variant: Variant) -> Option<Kept> {
        self.0.as_ref()?.kept.get(&(*key, variant))
    }

    /// Redis does not have it any more.
    pub(super) fn forget(&self, key: &PrimaryKey, variant: Variant) {
        if let Some(shared) = &self.0 {
            shared.kept.remove(&(*key, variant));
        }
    }

    /// An entry was read that has `len` bytes in Redis. It is kept in place of the one that was, or when it is seen for
    /// the second time: what is read once, or is one of very many, is not copied.
    pub(super) fn saw(&self, key: &PrimaryKey, variant: Variant, entry: &Entry, len: usize, replaces: bool) {
        let Some(shared) = &self.0 else { return };
        if len < shared.from {
            if replaces {
                self.forget(key, variant);
            }
        } else if replaces || shared.is_known(key, variant, entry) {
            let kept = Kept { entry: copy(entry), stamp: blob::stamp(entry) };
            shared.kept.insert((*key, variant), kept);
            metrics::gauge(&metrics::MEMORY_BYTES, ["near_cache".into()], || shared.kept.weight() as f64);
        }
    }
}

impl Shared {
    /// Whether it was seen before, as far as is remembered.
    fn is_known(&self, key: &PrimaryKey, variant: Variant, entry: &Entry) -> bool {
        let [a, b] = [0, 8].map(|at| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&key.as_bytes()[at..at + 8]);
            u64::from_le_bytes(bytes)
        });
        let variant = variant.0.map_or(0, u64::from_le_bytes);
        #[allow(clippy::cast_possible_truncation)] // less than SIGHTS
        let place = ((b ^ variant) % SIGHTS as u64) as usize;
        let name = a.wrapping_add(variant).wrapping_add(entry.ticket().tick);
        self.sights[place].swap(name, Ordering::Relaxed) == name
    }
}

/// The same in buffers of its own: what was read is a part of a buffer that may be much longer.
fn copy(entry: &Entry) -> Arc<Entry> {
    let own = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    Entry::builder(entry.ticket())
        .fresh_until(entry.fresh_until())
        .keep_until(entry.keep_until())
        .vary(entry.vary().unshared())
        .tags(entry.tags().iter().copied())
        .head(own(entry.head()))
        .body(own(entry.body()))
        .body_offset(entry.body_offset())
        .build()
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Kept> for ByBytes {
    /// The head twice, because its owner keeps it decoded, too.
    fn weight(&self, _: &Key, kept: &Kept) -> u64 {
        const OVERHEAD: usize = 256;
        (OVERHEAD + kept.entry.size() + kept.entry.head().len()) as u64
    }
}

impl fmt::Debug for NearCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_ref().map_or(0, |shared| shared.kept.weight());
        f.debug_struct("NearCache").field("bytes", &bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Timestamp, backend::Ticket};

    fn entry(tick: u64, len: usize) -> Arc<Entry> {
        let time = Timestamp::from_micros(1 << 50);
        Entry::builder(Ticket { tick, born: 1 }).fresh_until(time).keep_until(time).body(vec![7; len].into()).build()
    }

    fn key(i: u64) -> PrimaryKey {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&i.to_le_bytes());
        PrimaryKey::from_bytes(bytes)
    }

    #[test]
    fn what_was_seen_twice_is_kept() {
        let near = NearCache::new(Size { most: 1 << 20, from: 100 });
        let (first, variant) = (entry(1, 200), Variant(None));
        near.saw(&key(1), variant, &first, 200, false);
        assert!(near.get(&key(1), variant).is_none(), "seen once");
        near.saw(&key(1), variant, &first, 200, false);
        let kept = near.get(&key(1), variant).expect("seen twice");
        assert_eq!(kept.entry.body(), first.body());
        assert_ne!(kept.entry.body().as_ptr(), first.body().as_ptr(), "a copy");
        assert!(near.get(&key(1), Variant(Some([1; 8]))).is_none(), "another variant");

        near.saw(&key(1), variant, &entry(2, 200), 200, true);
        assert_eq!(near.get(&key(1), variant).map(|kept| kept.entry.ticket().tick), Some(2), "in its place at once");
        near.saw(&key(1), variant, &entry(3, 99), 99, true);
        assert!(near.get(&key(1), variant).is_none(), "now too short");

        for _ in 0..3 {
            near.saw(&key(2), variant, &entry(1, 99), 99, false);
        }
        assert!(near.get(&key(2), variant).is_none(), "too short");
    }

    #[test]
    fn memory_is_bounded() {
        let near = NearCache::new(Size { most: 1 << 20, from: 0 });
        for i in 0..1_000 {
            for _ in 0..2 {
                near.saw(&key(i), Variant(None), &entry(1, 10_000), 10_000, false);
            }
        }
        let weight = near.0.as_ref().unwrap().kept.weight();
        assert!((500_000..=1 << 20).contains(&weight), "{weight}");

        near.saw(&key(5_000), Variant(None), &entry(1, 2 << 20), 2 << 20, false);
        near.saw(&key(5_000), Variant(None), &entry(1, 2 << 20), 2 << 20, false);
        assert!(near.get(&key(5_000), Variant(None)).is_none(), "longer than all of it");
    }

    #[test]
    fn without_memory_nothing_is_kept() {
        let near = NearCache::new(Size { most: 0, from: 0 });
        for _ in 0..3 {
            near.saw(&key(1), Variant(None), &entry(1, 10), 10, false);
        }
        assert!(near.get(&key(1), Variant(None)).is_none());
    }

    #[test]
    fn a_catalogue_that_is_read_in_turns_is_not_copied() {
        let near = NearCache::new(Size::default());
        let entry = entry(1, 64 << 10);
        for _ in 0..3 {
            (0..20_000).for_each(|i| near.saw(&key(i), Variant(None), &entry, 64 << 10, false));
        }
        assert_eq!(near.0.as_ref().unwrap().kept.len(), 0);
    }
}
