//! When a tag or a key was last invalidated.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hash},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::lock;
use crate::backend::{Mode, Tick};

/// When one tag or key was last invalidated. Stored entries hold the cells of their tags, so that a look-up reads them
/// without a search.
#[derive(Debug)]
pub(super) struct Cell {
    hard: AtomicU64,
    soft: AtomicU64,
}

impl Cell {
    /// Entries with an older ticket are gone.
    pub(super) fn hard(&self) -> Tick {
        self.hard.load(Ordering::SeqCst)
    }

    /// Entries with an older ticket are stale.
    pub(super) fn soft(&self) -> Tick {
        self.soft.load(Ordering::SeqCst)
    }
}

/// The cells by name.
///
/// Bounded: what no stored entry holds is forgotten when there are too many, which raises the floor that absent cells
/// stand for. Hence forgetting only ever costs fills.
#[derive(Debug)]
pub(super) struct Cells<K> {
    shards: Box<[Mutex<Shard<K>>]>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Shard<K> {
    cells: HashMap<K, Arc<Cell>>,
    /// What was forgotten was not invalidated later than this.
    floor_hard: Tick,
    floor_soft: Tick,
    /// How many cells there may be until the next sweep.
    sweep_at: usize,
}

/// What is known without making a cell.
#[derive(Clone, Copy)]
pub(super) struct Ticks {
    pub(super) hard: Tick,
    pub(super) soft: Tick,
    /// Whether the cell was there. Otherwise this is the floor.
    pub(super) exact: bool,
}

impl Ticks {
    /// The last invalidation, hard or soft.
    pub(super) fn last(self) -> Tick {
        self.hard.max(self.soft)
    }
}

/// What is known of a cell.
pub(super) struct Known {
    pub(super) cell: Arc<Cell>,
    /// Whether it was there. Otherwise it was made from the floor, and says nothing certain of earlier tickets.
    pub(super) exact: bool,
}

const SHARDS: usize = 16;
/// The fewest cells that a shard makes room for.
const FEWEST: usize = 1024;
/// How long invalidations are remembered exactly if there is room, in ticks (microseconds): longer than a fill takes.
const REMEMBERED: Tick = 60_000_000;

impl<K: Copy + Eq + Hash> Cells<K> {
    pub(super) fn new() -> Self {
        let shard = || Mutex::new(Shard { cells: HashMap::new(), floor_hard: 0, floor_soft: 0, sweep_at: FEWEST });
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), hasher: RandomState::new() }
    }

    /// The cell for a commit; made if it is absent.
    pub(super) fn known(&self, name: &K, now: Tick) -> Known {
        lock(self.shard(name)).known(name, now)
    }

    /// Notes an invalidation at `tick`.
    pub(super) fn raise(&self, name: &K, mode: Mode, tick: Tick) {
        // Under the lock, so that the cell cannot be forgotten between being found and being raised.
        let mut shard = lock(self.shard(name));
        let cell = shard.known(name, tick).cell;
        match mode {
            Mode::Hard => cell.hard.fetch_max(tick, Ordering::SeqCst),
            Mode::Soft => cell.soft.fetch_max(tick, Ordering::SeqCst),
        };
        drop(shard);
    }

    /// When this name was last invalidated, at most.
    pub(super) fn ticks(&self, name: &K) -> Ticks {
        let shard = lock(self.shard(name));
        match shard.cells.get(name) {
            Some(cell) => Ticks { hard: cell.hard(), soft: cell.soft(), exact: true },
            None => Ticks { hard: shard.floor_hard, soft: shard.floor_soft, exact: false },
        }
    }

    /// Loses all cells: entries that hold one are dead.
    #[cfg(feature = "test-util")]
    pub(super) fn forget(&self) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            let Shard { cells, floor_hard, floor_soft, .. } = &mut *shard;
            for (_, cell) in cells.drain() {
                let hard = cell.hard.swap(u64::MAX, Ordering::SeqCst);
                *floor_hard = hard.max(*floor_hard);
                *floor_soft = cell.soft().max(*floor_soft);
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).cells.len()).sum()
    }

    fn shard(&self, name: &K) -> &Mutex<Shard<K>> {
        #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
        let hash = self.hasher.hash_one(name) as usize;
        &self.shards[hash % SHARDS]
    }
}

impl<K: Copy + Eq + Hash> Shard<K> {
    fn known(&mut self, name: &K, now: Tick) -> Known {
        if let Some(cell) = self.cells.get(name) {
            return Known { cell: Arc::clone(cell), exact: true };
        }
        if self.cells.len() >= self.sweep_at {
            self.sweep(now);
        }
        let cell = Arc::new(Cell { hard: AtomicU64::new(self.floor_hard), soft: AtomicU64::new(self.floor_soft) });
        self.cells.insert(*name, Arc::clone(&cell));
        // Where nothing was forgotten, an absent cell was never invalidated.
        Known { cell, exact: false }
    }

    /// Forgets cells that no entry holds: those that no fill can need any more, and the others only if these do not
    /// suffice. What is left is bounded by the entries; to double it before the next sweep makes the cost constant.
    fn sweep(&mut self, now: Tick) {
        self.forget_unless(now.saturating_sub(REMEMBERED));
        if self.cells.len() > self.sweep_at / 2 {
            self.forget_unless(Tick::MAX);
        }
        self.sweep_at = FEWEST.max(2 * self.cells.len());
        self.cells.shrink_to(self.sweep_at);
    }

    fn forget_unless(&mut self, since: Tick) {
        let Self { cells, floor_hard, floor_soft, .. } = self;
        cells.retain(|_, cell| {
            let (hard, soft) = (cell.hard(), cell.soft());
            // Clones are only made from those in the map, under this lock: nobody holds it, nobody will.
            let keep = Arc::strong_count(cell) > 1 || hard.max(soft) >= since;
            if !keep {
                *floor_hard = hard.max(*floor_hard);
                *floor_soft = soft.max(*floor_soft);
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgetting_raises_the_floor_of_absent_cells() {
        let cells = Cells::<u64>::new();
        let many = (SHARDS * FEWEST * 4) as u64;
        for name in 0..many {
            cells.raise(&name, Mode::Hard, name + 1);
        }
        assert!(cells.len() < SHARDS * FEWEST * 2, "{} cells", cells.len());
        for name in 0..many {
            let Known { cell, .. } = cells.known(&name, many);
            assert!(cell.hard() > name, "the invalidation of {name} would be missed");
        }
    }

    #[test]
    fn a_cell_that_an_entry_holds_is_never_forgotten() {
        let cells = Cells::<u64>::new();
        let held = cells.known(&0, 1).cell;
        for name in 1..(SHARDS * FEWEST * 4) as u64 {
            cells.raise(&name, Mode::Soft, name);
        }
        cells.raise(&0, Mode::Hard, 77);
        assert_eq!(held.hard(), 77);
    }

    #[test]
    fn what_was_invalidated_within_a_minute_is_forgotten_last() {
        let cells = Cells::<u64>::new();
        let now = 10 * REMEMBERED;
        cells.raise(&0, Mode::Hard, now);
        for name in 1..(SHARDS * FEWEST * 4) as u64 {
            let _ = cells.known(&name, now);
        }
        assert!(cells.known(&0, now).exact);
    }
}
