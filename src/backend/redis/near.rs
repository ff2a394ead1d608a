//! The near cache: long responses that this process has read from Redis more than once.
//!
//! A look-up of one of them asks whether Redis still has the same, in the same question as for all that may have
//! invalidated it, and is judged as if it had read it anew. So what is here saves reading it, never asking.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

use crate::{
    backend::{BackendError, Entry, PrimaryKey, Variant, blob},
    metrics::{self, Counters},
};

/// What it takes, and from which length on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Bytes of memory; 0: nothing is kept.
    pub(super) most: u64,
    /// Bytes of the value in Redis: shorter ones are read as quickly as asked for.
    pub(super) from: u64,
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
    from: u64,
    /// The weight of the heaviest entry that there is room for.
    heaviest: u64,
    kept: Cache<Key, Kept, ByBytes, DefaultHashBuilder>,
    sights: Box<[AtomicU64]>,
    refused: AtomicBool,
    counted: Counters<2>,
}

type Key = (PrimaryKey, Variant);

/// An entry in memory of its own.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) entry: Arc<Entry>,
    /// See [`blob::stamp`].
    pub(super) stamp: Bytes,
}

/// What is kept of the variant that a look-up asks for.
#[derive(Clone)]
pub(super) enum Near {
    Nothing,
    /// This.
    Kept(Kept),
    /// What Redis has another one in place of.
    Replaced,
}

/// So many are remembered that were seen once.
const SIGHTS: usize = 4096;
/// It is divided, where each part has this much.
const PART: u64 = 8 << 20;
const MAX_PARTS: u64 = 8;

impl NearCache {
    pub(super) fn new(size: Size) -> Self {
        if size.most == 0 {
            return Self(None);
        }
        let parts = (size.most / PART).clamp(1, MAX_PARTS);
        let items = usize::try_from(size.most / (32 << 10)).unwrap_or(usize::MAX).clamp(128, 1 << 20);
        #[allow(clippy::cast_possible_truncation)] // at most 8
        let options = OptionsBuilder::new()
            .shards(parts.next_power_of_two() as usize)
            .estimated_items_capacity(items)
            .weight_capacity(size.most)
            .build()
            .expect("both capacities are set");
        Self(Some(Arc::new(Shared {
            from: size.from,
            // The cache refuses what is heavier than 97 of 100 of a part.
            heaviest: size.most / parts.next_power_of_two() / 100 * 95,
            kept: Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), DefaultLifecycle::default()),
            sights: (0..SIGHTS).map(|_| AtomicU64::new(0)).collect(),
            refused: AtomicBool::new(false),
            counted: Counters::default(),
        })))
    }

    /// What was kept of this variant.
    pub(super) fn get(&self, key: &PrimaryKey, variant: Variant) -> Near {
        self.shared().and_then(|shared| shared.kept.get(&(*key, variant))).map_or(Near::Nothing, Near::Kept)
    }

    /// The server does not run the script that asks for what is near: from now on, nothing is.
    pub(super) fn refuse(&self, error: &BackendError) {
        if let Some(shared) = self.shared() {
            shared.refused.store(true, Ordering::Relaxed);
            shared.kept.clear();
            shared.report();
            tracing::warn!(%error, "Redis refuses EVALSHA_RO or EVAL_RO: long responses are read anew by every hit");
        }
    }

    /// Whether Redis had the same was asked and answered.
    pub(super) fn asked(&self, is_same: bool) {
        if let Some(shared) = self.shared() {
            let word = if is_same { "same" } else { "other" };
            shared.counted.count(usize::from(is_same), &metrics::NEAR_CACHE, || [word.into()]);
        }
    }

    /// An entry was read. It is kept in place of the one that was, or when it is seen for the second time: what is read
    /// once, or is one of very many, is not copied.
    pub(super) fn saw(&self, key: &PrimaryKey, variant: Variant, entry: &Entry, blob: &[u8], near: &Near) {
        let Some(shared) = self.shared() else { return };
        let is_kept = !matches!(near, Near::Nothing);
        if is_kept && shared.has_newer(key, variant, entry) {
            // A replica that lags, or an answer that was overtaken.
            return;
        }
        if (blob.len() as u64) < shared.from || weight(entry) > shared.heaviest {
            if is_kept {
                shared.kept.remove(&(*key, variant));
                shared.report();
            }
        } else if is_kept || shared.is_known(key, variant, entry) {
            let stamp = Bytes::copy_from_slice(blob::stamp(blob, entry));
            shared.kept.insert((*key, variant), Kept { entry: copy(entry), stamp });
            shared.report();
        }
    }

    fn shared(&self) -> Option<&Shared> {
        self.0.as_deref().filter(|shared| !shared.refused.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn has_newer(&self, key: &PrimaryKey, variant: Variant, than: &Entry) -> bool {
        let (kept, read) = (self.kept.get(&(*key, variant)), than.ticket());
        kept.is_some_and(|kept| kept.entry.ticket().born == read.born && kept.entry.ticket().tick > read.tick)
    }

    /// Whether it was seen before, as far as is remembered. Who is known has to be seen twice again.
    fn is_known(&self, key: &PrimaryKey, variant: Variant, entry: &Entry) -> bool {
        let [a, b] = [0, 8].map(|at| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&key.as_bytes()[at..at + 8]);
            u64::from_le_bytes(bytes)
        });
        let variant = variant.0.map_or(0, u64::from_le_bytes);
        #[allow(clippy::cast_possible_truncation)] // less than SIGHTS
        let sight = &self.sights[((b ^ variant) % SIGHTS as u64) as usize];
        let name = a.wrapping_add(b).wrapping_add(variant).wrapping_add(entry.ticket().tick);
        let is_known = sight.load(Ordering::Relaxed) == name;
        sight.store(if is_known { 0 } else { name }, Ordering::Relaxed);
        is_known
    }

    fn report(&self) {
        metrics::gauge(&metrics::MEMORY_BYTES, ["near_cache".into()], || self.kept.weight() as f64);
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
    fn weight(&self, _: &Key, kept: &Kept) -> u64 {
        weight(&kept.entry)
    }
}

/// About the bytes that it takes, with its place and its stamp: its head several times, because its owner keeps it decoded,
/// too, and the head of an answer.
fn weight(entry: &Entry) -> u64 {
    const OVERHEAD: usize = 512;
    (OVERHEAD + entry.size() + 4 * entry.head().len() + 8 * entry.tags().len()) as u64
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

    const PLAIN: Variant = Variant(None);

    fn entry(tick: u64, len: usize) -> Arc<Entry> {
        let time = Timestamp::from_micros(1 << 50);
        Entry::builder(Ticket { tick, born: 1 }).fresh_until(time).keep_until(time).body(vec![7; len].into()).build()
    }

    fn key(i: u64) -> PrimaryKey {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&i.to_le_bytes());
        PrimaryKey::from_bytes(bytes)
    }

    fn saw(near: &NearCache, i: u64, entry: &Entry, near_now: &Near) {
        near.saw(&key(i), PLAIN, entry, &blob::encode(entry).unwrap(), near_now);
    }

    fn kept(near: &NearCache, i: u64) -> Option<Kept> {
        match near.get(&key(i), PLAIN) {
            Near::Kept(kept) => Some(kept),
            _ => None,
        }
    }

    fn tick(near: &NearCache, i: u64) -> Option<u64> {
        kept(near, i).map(|kept| kept.entry.ticket().tick)
    }

    fn weight_of(near: &NearCache) -> u64 {
        near.0.as_ref().unwrap().kept.weight()
    }

    #[test]
    fn what_was_seen_twice_is_kept() {
        let near = NearCache::new(Size { most: 1 << 20, from: 1000 });
        let first = entry(1, 2000);
        saw(&near, 1, &first, &Near::Nothing);
        assert_eq!(tick(&near, 1), None, "seen once");
        saw(&near, 1, &first, &Near::Nothing);
        let kept = kept(&near, 1).expect("seen twice");
        assert_eq!(kept.entry.body(), first.body());
        assert_ne!(kept.entry.body().as_ptr(), first.body().as_ptr(), "a copy");
        assert!(matches!(near.get(&key(1), Variant(Some([1; 8]))), Near::Nothing), "another variant");

        saw(&near, 1, &entry(3, 2000), &Near::Replaced);
        assert_eq!(tick(&near, 1), Some(3), "in its place at once");
        saw(&near, 1, &entry(2, 2000), &Near::Replaced);
        assert_eq!(tick(&near, 1), Some(3), "an older one comes too late");
        saw(&near, 1, &entry(4, 10), &Near::Replaced);
        assert_eq!(tick(&near, 1), None, "now too short");

        (0..3).for_each(|_| saw(&near, 2, &entry(1, 10), &Near::Nothing));
        assert_eq!(tick(&near, 2), None, "too short");
    }

    #[test]
    fn memory_is_bounded() {
        let near = NearCache::new(Size { most: 1 << 20, from: 0 });
        for i in 0..1_000 {
            (0..2).for_each(|_| saw(&near, i, &entry(1, 10_000), &Near::Nothing));
        }
        assert!((500_000..=1 << 20).contains(&weight_of(&near)), "{}", weight_of(&near));
    }

    #[test]
    fn what_is_kept_is_what_there_is_room_for() {
        for most in [100 << 10, 1 << 20, 10 << 20, 32 << 20, 100 << 20] {
            let near = NearCache::new(Size { most, from: 0 });
            let heaviest = near.0.as_ref().unwrap().heaviest;
            assert!(heaviest > most / 10, "{heaviest} of {most}");
            for (i, len, is_kept) in [(1, heaviest - 1_000, true), (2, heaviest, false)] {
                let entry = entry(1, usize::try_from(len).unwrap());
                (0..2).for_each(|_| saw(&near, i, &entry, &Near::Nothing));
                assert_eq!(tick(&near, i).is_some(), is_kept, "{len} of {most}");
            }
        }
    }

    #[test]
    fn without_memory_or_the_script_nothing_is_kept() {
        let (none, refused) =
            (NearCache::new(Size { most: 0, from: 0 }), NearCache::new(Size { most: 1 << 20, from: 0 }));
        (0..2).for_each(|_| saw(&refused, 1, &entry(1, 10), &Near::Nothing));
        assert_eq!(tick(&refused, 1), Some(1));
        refused.refuse(&BackendError::new(crate::backend::ErrorKind::Denied, "no"));
        assert_eq!(weight_of(&refused), 0);
        for near in [none, refused] {
            (0..3).for_each(|_| saw(&near, 1, &entry(1, 10), &Near::Nothing));
            assert_eq!(tick(&near, 1), None);
        }
    }

    #[test]
    fn a_catalogue_that_is_read_in_turns_is_not_copied() {
        let near = NearCache::new(Size { most: 32 << 20, from: 0 });
        let entry = entry(1, 100);
        for _ in 0..3 {
            (0..20_000).for_each(|i| saw(&near, i, &entry, &Near::Nothing));
        }
        assert_eq!(weight_of(&near), 0);
    }

    #[test]
    fn what_was_displaced_has_to_be_seen_twice_again() {
        let near = NearCache::new(Size { most: 1 << 20, from: 0 });
        (0..2).for_each(|_| saw(&near, 1, &entry(1, 100), &Near::Nothing));
        near.0.as_ref().unwrap().kept.clear();
        saw(&near, 1, &entry(1, 100), &Near::Nothing);
        assert_eq!(tick(&near, 1), None);
        saw(&near, 1, &entry(1, 100), &Near::Nothing);
        assert_eq!(tick(&near, 1), Some(1));
    }
}
