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

/// All that is stored for one key. Never changed, only replaced, so that a look-up judges one state, and reads it in
/// one place.
#[derive(Debug)]
pub(super) struct Record {
    /// Entries with an older ticket are stale: the last soft invalidation of the key. A hard one takes them out.
    pub(super) soft: Tick,
    /// The last invalidation of the key, hard or soft.
    pub(super) invalidated: Tick,
    /// The entry that was committed last; its specification is the one that selects.
    pub(super) newest: Stored,
    /// The others, the oldest first.
    pub(super) older: Vec<Stored>,
}

#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) variant: Variant,
    pub(super) entry: Arc<Entry>,
    /// When its tags were invalidated.
    pub(super) tags: Arc<[Arc<Cell>]>,
}

impl Record {
    /// The bytes of a record without variants, with its place in the cache.
    pub(super) const OVERHEAD: u64 = 256;

    /// A record of these, the oldest first; `None` where there is none.
    pub(super) fn of(mut variants: Vec<Stored>, soft: Tick, invalidated: Tick) -> Option<Self> {
        let newest = variants.pop()?;
        Some(Self { soft, invalidated, newest, older: variants })
    }

    pub(super) fn spec(&self) -> &VarySpec {
        self.newest.entry.vary()
    }

    pub(super) fn find(&self, variant: Variant) -> Option<&Stored> {
        if self.newest.variant == variant {
            return Some(&self.newest);
        }
        self.older.iter().find(|stored| stored.variant == variant)
    }

    /// Copies of those that are to be kept, the oldest first, with room for one more.
    pub(super) fn keep(&self, keep: impl Fn(&Stored) -> bool) -> Vec<Stored> {
        let mut kept = Vec::with_capacity(self.older.len() + 2);
        kept.extend(self.older.iter().chain([&self.newest]).filter(|stored| keep(stored)).cloned());
        kept
    }

    pub(super) fn weight(&self) -> u64 {
        let all = self.older.iter().chain([&self.newest]);
        Self::OVERHEAD + all.map(|stored| weight(&stored.entry)).sum::<u64>()
    }

    /// Drops the variants that were committed longest ago, down to these limits, but not the newest.
    pub(super) fn displace(&mut self, most: usize, max_weight: u64) {
        let (mut len, mut weight) = (1 + self.older.len(), self.weight());
        let excess = self.older.iter().take_while(|stored| {
            let is_excess = len > most || weight > max_weight;
            len -= 1;
            weight -= self::weight(&stored.entry);
            is_excess
        });
        let excess = excess.count();
        self.older.drain(..excess);
    }
}

impl Stored {
    /// Whether it may be handed out as far as invalidations go, and if so, the tick since which it is stale (0: not).
    pub(super) fn valid(&self, record: &Record, clock: &LogicalClock) -> Option<Tick> {
        let Ticket { tick, born } = self.entry.ticket();
        if born != clock.born() {
            return None;
        }
        let mut stale_since = Tick::MAX;
        let mut soften = |soft: Tick| {
            if tick < soft {
                stale_since = stale_since.min(soft);
            }
        };
        soften(record.soft);
        soften(clock.all_soft());
        for cell in &*self.tags {
            if tick < cell.hard() {
                return None;
            }
            soften(cell.soft());
        }
        Some(if stale_since == Tick::MAX { 0 } else { stale_since })
    }

    /// Whether it is of this clock and has not expired; what is not counts as absent for those who write.
    pub(super) fn is_there(&self, clock: &LogicalClock, now: Timestamp) -> bool {
        self.entry.ticket().born == clock.born() && now < self.entry.keep_until()
    }
}

/// About the bytes that an entry takes: its head twice, because its owner keeps it decoded too, and the cells of its
/// tags as if it shared them with nobody (measured: 175 bytes each, with those that wait to be swept).
pub(super) fn weight(entry: &Entry) -> u64 {
    (128 + entry.size() + entry.head().len() + 160 * entry.tags().len()) as u64
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
