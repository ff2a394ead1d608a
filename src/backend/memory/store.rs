//! The stored responses of one key, and the cache of them.

use std::sync::Arc;

use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

use super::{cells::Cell, clock::LogicalClock};
use crate::{
    Timestamp,
    backend::{Entry, PrimaryKey, Tick, Ticket, Variant, VarySpec},
};

pub(super) type Store = Cache<PrimaryKey, Arc<Record>, ByBytes, DefaultHashBuilder>;

/// All that is stored for one key. Never changed, only replaced, so that a look-up judges one state.
#[derive(Debug)]
pub(super) struct Record {
    /// That of the entry committed last.
    pub(super) spec: VarySpec,
    /// When the key was invalidated.
    pub(super) cell: Arc<Cell>,
    /// Committed longest ago first.
    pub(super) variants: Vec<Stored>,
}

#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) variant: Variant,
    pub(super) entry: Arc<Entry>,
    /// When its tags were invalidated.
    pub(super) tags: Arc<[Arc<Cell>]>,
}

impl Record {
    /// The bytes of a record without variants, with its places in the maps.
    pub(super) const OVERHEAD: u64 = 320;

    pub(super) fn find(&self, variant: Variant) -> Option<&Stored> {
        self.variants.iter().find(|stored| stored.variant == variant)
    }

    pub(super) fn weight(&self) -> u64 {
        Self::OVERHEAD + self.variants.iter().map(|stored| weight(&stored.entry)).sum::<u64>()
    }

    /// Drops the variants that were committed longest ago, down to these limits, but not the last one.
    pub(super) fn displace(&mut self, most: usize, max_weight: u64) {
        let mut weight = self.weight();
        let mut excess = 0;
        while excess + 1 < self.variants.len() && (self.variants.len() - excess > most || weight > max_weight) {
            weight -= self::weight(&self.variants[excess].entry);
            excess += 1;
        }
        self.variants.drain(..excess);
    }
}

impl Stored {
    /// Whether it may be handed out as far as invalidations go, and if so, the tick since which it is stale (0: not).
    pub(super) fn valid(&self, key: &Cell, clock: &LogicalClock) -> Option<Tick> {
        let Ticket { tick, born } = self.entry.ticket();
        if born != clock.born() {
            return None;
        }
        let mut stale_since = Tick::MAX;
        for cell in std::iter::once(key).chain(self.tags.iter().map(|cell| &**cell)) {
            if tick < cell.hard() {
                return None;
            }
            let soft = cell.soft();
            if tick < soft {
                stale_since = stale_since.min(soft);
            }
        }
        let soft = clock.all_soft();
        if tick < soft {
            stale_since = stale_since.min(soft);
        }
        Some(if stale_since == Tick::MAX { 0 } else { stale_since })
    }

    /// Whether it is of this clock and has not expired; what is not counts as absent for those who write.
    pub(super) fn is_there(&self, clock: &LogicalClock, now: Timestamp) -> bool {
        self.entry.ticket().born == clock.born() && now < self.entry.keep_until()
    }
}

/// About the bytes that an entry takes: its head twice, because its owner keeps it decoded too, and its tags' cells.
pub(super) fn weight(entry: &Entry) -> u64 {
    (128 + entry.size() + entry.head().len() + 32 * entry.tags().len()) as u64
}

#[derive(Clone, Debug)]
pub(super) struct ByBytes;

impl Weighter<PrimaryKey, Arc<Record>> for ByBytes {
    fn weight(&self, _: &PrimaryKey, record: &Arc<Record>) -> u64 {
        record.weight()
    }
}

/// How the bytes are divided: eight shards, and the variants of one key take at most half of one.
const SHARDS: u64 = 8;

/// The most bytes that the variants of one key take together.
pub(super) fn max_record(max_bytes: u64) -> u64 {
    max_bytes / (2 * SHARDS)
}

pub(super) fn new(max_bytes: u64) -> Store {
    let items = usize::try_from(max_bytes / 4096).unwrap_or(usize::MAX).clamp(32 * 8, 1 << 20);
    let options = OptionsBuilder::new()
        .shards(8)
        .estimated_items_capacity(items)
        .weight_capacity(max_bytes)
        .build()
        .expect("both capacities are set");
    Store::with_options(options, ByBytes, DefaultHashBuilder::default(), DefaultLifecycle::default())
}
