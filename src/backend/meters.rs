//! Many counters in the memory of this process: bounded, without a background task.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Ask, Level, Levels, LimitKey, Meter, Settle, Take, Taken, Verdict, meter::Pressure};
use crate::{Timestamp, clock::Clock};

/// The counters of at most so many keys.
///
/// The keys lie in sets of [`WAYS`]. A new key in a full set takes the place of one that is refilled, else of the one
/// of which the smallest part was taken. So a flood of new keys, each used once, pushes out its like, and not the
/// heavy offenders. Which keys share a set is a secret of the process, so that nobody can choose keys that push out a
/// certain other one.
pub(crate) struct Meters {
    sets: Box<[Mutex<Vec<Slot>>]>,
    secret: [u64; 2],
    clock: Clock,
}

const WAYS: usize = 16;

struct Slot {
    key: LimitKey,
    meter: Meter,
    idle_at: Timestamp,
    pressure: Pressure,
}

impl Meters {
    pub(crate) fn new(max_keys: usize, clock: Clock) -> Self {
        let sets = max_keys.div_ceil(WAYS).max(1);
        let random = RandomState::new();
        let secret = [random.hash_one(0), random.hash_one(1)];
        Self { sets: (0..sets).map(|_| Mutex::default()).collect(), secret, clock }
    }

    /// See [`Limits::take`](super::Limits::take).
    pub(crate) fn take(&self, takes: &[Take<'_>]) -> Taken {
        if let [take] = takes {
            let mut set = self.set(self.index(&take.key));
            // Under the lock, so that the time does not run backwards for a key.
            let at = self.clock.now();
            let slot = Slot::of(&mut set, take, at);
            let mut levels = Levels::default();
            if let Some(level) = slot.decide_one(take.asks, at) {
                levels.push(Some(level));
                return Taken { admitted: level.verdict == Verdict::Within, at, levels };
            }
            let admitted = slot.meter.would_admit(take.asks, at);
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
        let mut levels = Levels::default();
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

    /// Keys are addresses, or were hashed in a way that everybody can calculate: a product with two secret factors
    /// spreads both so that nobody can tell where.
    fn index(&self, key: &LimitKey) -> usize {
        let key = u128::from_le_bytes(*key.as_bytes());
        let [low, high] = [low_half(key) ^ self.secret[0], low_half(key >> 64) ^ self.secret[1]];
        let product = u128::from(low) * u128::from(high);
        let hash = low_half(product) ^ low_half(product >> 64);
        // The hash as a fraction of 2⁶⁴, which costs no division.
        usize::try_from((u128::from(hash) * self.sets.len() as u128) >> 64).unwrap_or_default()
    }

    fn set(&self, index: usize) -> MutexGuard<'_, Vec<Slot>> {
        self.sets[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "that is meant")]
const fn low_half(number: u128) -> u64 {
    number as u64
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
        let new =
            Self { key: take.key, meter: Meter::new(take.asks.len()), idle_at: now, pressure: Pressure::default() };
        if set.len() < WAYS {
            set.push(new);
            let last = set.len() - 1;
            return &mut set[last];
        }
        let rank = |slot: &Self| (slot.idle_at > now, slot.pressure.of_255(), slot.idle_at);
        let victim = (0..set.len()).min_by_key(|&index| rank(&set[index])).unwrap_or_default();
        set[victim] = new;
        &mut set[victim]
    }

    /// The same as [`finish`](Self::finish) after asking whether it is admitted, for a key with one counter.
    fn decide_one(&mut self, asks: &[Ask], at: Timestamp) -> Option<Level> {
        let level = self.meter.decide_one(asks, at)?;
        if level.verdict == Verdict::Within {
            self.idle_at = at.plus(level.refilled);
            self.pressure = self.meter.pressure(asks.iter().map(|ask| ask.limit));
        }
        Some(level)
    }

    fn finish(&mut self, take: &Take<'_>, at: Timestamp, admitted: bool, levels: &mut Levels) {
        if admitted {
            self.meter.take(take.asks, at);
            self.weigh(take.asks, at);
        } else {
            self.meter.heal(take.asks.iter().map(|ask| ask.limit), at);
        }
        self.meter.report(take.asks, at, admitted).for_each(|level| levels.push(Some(level)));
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

#[cfg(all(test, feature = "memory"))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{TestClock, backend::Limit};

    fn key(n: u128) -> LimitKey {
        LimitKey::from_bytes(n.to_be_bytes())
    }

    fn take(meters: &Meters, n: u128, interval: Duration, cost: u32) -> bool {
        meters.take(&[Take { key: key(n), asks: &[Ask { limit: Limit::rate(interval, 10), cost }] }]).admitted
    }

    fn is_kept(meters: &Meters, n: u128) -> bool {
        meters.sets.iter().any(|set| set.lock().unwrap().iter().any(|slot| slot.key == key(n)))
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn a_new_key_takes_the_place_of_one_that_is_refilled_however_much_of_it_was_taken() {
        let clock = TestClock::new();
        let meters = Meters::new(WAYS, Clock::Test(clock.clone()));
        for n in 0..16 {
            let (interval, cost) = if n == 7 { (Duration::from_millis(1), 10) } else { (MINUTE, 1) };
            assert!(take(&meters, n, interval, cost));
        }
        clock.advance(Duration::from_millis(11));
        assert!(take(&meters, 100, MINUTE, 1));
        assert!(!is_kept(&meters, 7) && is_kept(&meters, 100));
        assert!((0..16).all(|n| n == 7 || is_kept(&meters, n)));
    }

    #[test]
    fn a_heavy_key_is_not_pushed_out_by_any_number_of_light_ones() {
        let meters = Meters::new(64, Clock::Test(TestClock::new()));
        assert!(take(&meters, 0, MINUTE, 10));
        for n in 1..10_000 {
            assert!(take(&meters, n, MINUTE, 1));
            assert!(meters.len() <= 64);
        }
        assert!(!take(&meters, 0, MINUTE, 1));
        assert_eq!(meters.len(), 64, "the room is used");
    }

    /// Several keys of a take may lie in one set, and callers may name them in any order.
    #[test]
    fn takes_of_many_keys_by_many_threads_do_not_wait_for_each_other_for_ever_and_count_exactly() {
        let meters = Meters::new(64, Clock::Test(TestClock::new()));
        let asks = [Ask { limit: Limit::rate(MINUTE, 1000), cost: 1 }];
        let admitted = std::thread::scope(|scope| {
            let threads = [0, 1, 2, 3].map(|thread: usize| {
                let (meters, asks) = (&meters, &asks);
                scope.spawn(move || {
                    let mut takes: Vec<_> = (0..8).map(|n| Take { key: key(n), asks }).collect();
                    takes.rotate_left(2 * thread);
                    (0..500).filter(|_| meters.take(&takes).admitted).count()
                })
            });
            threads.map(|thread| thread.join().unwrap()).iter().sum::<usize>()
        });
        assert_eq!(admitted, 1000);
    }
}
