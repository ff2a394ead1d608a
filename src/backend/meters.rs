//! Many counters in the memory of this process: bounded, without a background task.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Ask, Level, LimitKey, Meter, Settle, Take, Taken};
use crate::{Timestamp, clock::Clock};

/// The counters of at most so many keys.
///
/// The keys lie in sets of [`WAYS`]. A new key in a full set takes the place of one that is refilled, else of the one
/// of which the smallest part was taken. So a flood of new keys, each used once, pushes out its like, and not the
/// heavy offenders. Which keys share a set is a secret of the process, so that nobody can choose keys that push out a
/// certain other one.
pub(crate) struct Meters {
    sets: Box<[Mutex<Vec<Slot>>]>,
    secret: RandomState,
    clock: Clock,
}

const WAYS: usize = 16;

struct Slot {
    key: LimitKey,
    meter: Meter,
    idle_at: Timestamp,
    pressure: u8,
}

impl Meters {
    pub(crate) fn new(max_keys: usize, clock: Clock) -> Self {
        let sets = max_keys.div_ceil(WAYS).max(1);
        Self { sets: (0..sets).map(|_| Mutex::default()).collect(), secret: RandomState::new(), clock }
    }

    /// See [`Limits::take`](super::Limits::take).
    pub(crate) fn take(&self, takes: &[Take<'_>]) -> Taken {
        if let [take] = takes {
            let mut set = self.set(self.index(&take.key));
            // Under the lock, so that the time does not run backwards for a key.
            let at = self.clock.now();
            let slot = Slot::of(&mut set, take, at);
            let admitted = slot.meter.would_admit(take.asks, at);
            let mut levels = Vec::with_capacity(take.asks.len());
            slot.finish(take, at, admitted, &mut levels);
            return Taken { admitted, at, levels };
        }
        self.take_several(takes)
    }

    fn take_several(&self, takes: &[Take<'_>]) -> Taken {
        // Locks are taken in the order of the sets, so that two callers do not wait for each other.
        let mut indices: Vec<_> = takes.iter().map(|take| self.index(&take.key)).collect();
        indices.sort_unstable();
        indices.dedup();
        let mut sets: Vec<_> = indices.iter().map(|&index| self.set(index)).collect();
        let at = self.clock.now();
        let mut admitted = true;
        for take in takes {
            let set = indices.binary_search(&self.index(&take.key)).unwrap_or_default();
            let kept = sets[set].iter().find(|slot| slot.key == take.key && slot.meter.fits(take.asks.len()));
            admitted &= match kept {
                Some(slot) => slot.meter.would_admit(take.asks, at),
                None => Meter::new(take.asks.len()).would_admit(take.asks, at),
            };
        }
        let mut levels = Vec::with_capacity(takes.iter().map(|take| take.asks.len()).sum());
        for take in takes {
            let set = indices.binary_search(&self.index(&take.key)).unwrap_or_default();
            Slot::of(&mut sets[set], take, at).finish(take, at, admitted, &mut levels);
        }
        Taken { admitted, at, levels }
    }

    /// See [`Limits::settle`](super::Limits::settle).
    pub(crate) fn settle(&self, settle: Settle<'_>) {
        let mut set = self.set(self.index(&settle.key));
        let now = self.clock.now();
        // A key that was forgotten, or that nobody has taken from, owes nothing; charges have to be counted.
        let asks: Vec<_> = settle.changes.iter().map(|change| Ask { limit: change.limit, cost: 0 }).collect();
        let slot = Slot::of(&mut set, &Take { key: settle.key, asks: &asks }, now);
        slot.meter.settle(settle.changes, settle.taken, now);
        slot.weigh(&asks, now);
    }

    /// How many keys are kept at present, refilled ones included.
    pub(crate) fn len(&self) -> usize {
        (0..self.sets.len()).map(|index| self.set(index).len()).sum()
    }

    #[cfg(all(feature = "memory", feature = "test-util"))]
    pub(crate) fn forget(&self) {
        (0..self.sets.len()).for_each(|index| self.set(index).clear());
    }

    fn index(&self, key: &LimitKey) -> usize {
        let hash = self.secret.hash_one(key.as_bytes());
        usize::try_from(hash % self.sets.len() as u64).unwrap_or_default()
    }

    fn set(&self, index: usize) -> MutexGuard<'_, Vec<Slot>> {
        self.sets[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The key's slot, made if there is none.
    fn of<'a>(set: &'a mut Vec<Self>, take: &Take<'_>, now: Timestamp) -> &'a mut Self {
        if let Some(index) = set.iter().position(|slot| slot.key == take.key) {
            let slot = &mut set[index];
            if !slot.meter.fits(take.asks.len()) {
                slot.meter = Meter::new(take.asks.len());
            }
            return slot;
        }
        let new = Self { key: take.key, meter: Meter::new(take.asks.len()), idle_at: now, pressure: 0 };
        if set.len() < WAYS {
            set.push(new);
            let last = set.len() - 1;
            return &mut set[last];
        }
        let rank = |slot: &Self| (slot.idle_at > now, slot.pressure, slot.idle_at);
        let victim = (0..set.len()).min_by_key(|&index| rank(&set[index])).unwrap_or_default();
        set[victim] = new;
        &mut set[victim]
    }

    fn finish(&mut self, take: &Take<'_>, at: Timestamp, admitted: bool, levels: &mut Vec<Option<Level>>) {
        if admitted {
            self.meter.take(take.asks, at);
            self.weigh(take.asks, at);
        } else {
            self.meter.heal(take.asks.iter().map(|ask| ask.limit), at);
        }
        levels.extend(self.meter.report(take.asks, at, admitted).map(Some));
    }

    fn weigh(&mut self, asks: &[Ask], now: Timestamp) {
        self.idle_at = self.meter.idle_at(asks.iter().map(|ask| ask.limit), now);
        self.pressure = self.meter.pressure(asks.iter().map(|ask| ask.limit));
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters")
            .field("keys", &self.len())
            .field("max_keys", &(self.sets.len() * WAYS))
            .finish_non_exhaustive()
    }
}
