//! How counters are calculated: pure, in whole numbers, with the time as an argument.

use std::time::Duration;

use super::limits::{Ask, Change, Level, Limit, Rule, Verdict, nanos};
use crate::Timestamp;

/// The counters of one key: what [`Limits`](super::Limits) is calculated with, for implementers.
///
/// ```
/// use std::time::Duration;
/// use tower_gatehouse::{Timestamp, backend::{Ask, Limit, Meter}};
///
/// let ask = [Ask { limit: Limit::rate(Duration::from_secs(1), 2), cost: 1 }];
/// let (mut meter, mut now) = (Meter::new(1), Timestamp::system());
/// let mut admit = |now| meter.would_admit(&ask, now) && { meter.take(&ask, now); true };
/// assert!(admit(now) && admit(now) && !admit(now));
/// now = now.plus(Duration::from_secs(1));
/// assert!(admit(now) && !admit(now));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    at: Timestamp,
    levels: Levels,
}

/// Most keys have one counter; it needs no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Levels {
    One(u64),
    Many(Box<[u64]>),
}

impl Meter {
    /// `counters` counters from which nothing was taken.
    pub fn new(counters: usize) -> Self {
        let levels = if counters == 1 { Levels::One(0) } else { Levels::Many(vec![0; counters].into()) };
        Self { at: Timestamp::EPOCH, levels }
    }

    /// The counters as [`parts`](Self::parts) told them.
    pub fn from_parts(at: Timestamp, levels: &[u64]) -> Self {
        let levels = if let [level] = levels { Levels::One(*level) } else { Levels::Many(levels.into()) };
        Self { at, levels }
    }

    /// When they were changed last, and their levels: all that a store has to keep.
    pub fn parts(&self) -> (Timestamp, &[u64]) {
        (self.at, self.as_slice())
    }

    /// Whether these are the counters that are kept here; others begin anew.
    pub fn fits(&self, counters: usize) -> bool {
        self.as_slice().len() == counters
    }

    /// Whether every counter has what is asked for.
    pub fn would_admit(&self, asks: &[Ask], now: Timestamp) -> bool {
        self.with_aged(asks, now).all(|(ask, level)| verdict(ask, level, now) == Verdict::Within)
    }

    /// Takes, whether it is there or not.
    pub fn take(&mut self, asks: &[Ask], now: Timestamp) {
        if asks.iter().all(|ask| ask.cost == 0) {
            return self.heal(asks.iter().map(|ask| ask.limit), now);
        }
        self.change(now, asks.iter().map(|ask| ask.limit), |i, limit, level| limit.charged(level, asks[i].cost.into()));
    }

    /// [`would_admit`](Self::would_admit), then [`take`](Self::take) or [`heal`](Self::heal), and the
    /// [`report`](Self::report), in one pass over a key with one counter, which most have; `None` for others.
    pub(super) fn decide_one(&mut self, asks: &[Ask], now: Timestamp) -> Option<Level> {
        let (&[ask], Levels::One(stored)) = (asks, &mut self.levels) else { return None };
        let mut level = ask.limit.aged(*stored, self.at, now);
        let verdict = verdict(ask, level, now);
        let takes = verdict == Verdict::Within && ask.cost > 0;
        if takes {
            level = ask.limit.charged(level, ask.cost.into());
        }
        if takes || now < self.at {
            (self.at, *stored) = (now, level);
        }
        Some(Level { remaining: remaining(ask.limit, level), refilled: refilled(ask.limit, level, now), verdict })
    }

    /// Notes the time of a clock that was set back, so that what was counted on the later time heals from now on; for
    /// when nothing is taken.
    pub fn heal(&mut self, limits: impl Iterator<Item = Limit>, now: Timestamp) {
        if now < self.at {
            self.change(now, limits, |_, _, level| level);
        }
    }

    /// The state of every counter, in view of what was asked for: after [`take`](Self::take), or instead of it.
    pub fn report<'a>(&'a self, asks: &'a [Ask], now: Timestamp, taken: bool) -> impl Iterator<Item = Level> + 'a {
        self.with_aged(asks, now).map(move |(ask, level)| Level {
            remaining: remaining(ask.limit, level),
            refilled: refilled(ask.limit, level, now),
            verdict: if taken { Verdict::Within } else { verdict(ask, level, now) },
        })
    }

    /// See [`Limits::settle`](super::Limits::settle).
    pub fn settle(&mut self, changes: &[Change], taken: Timestamp, now: Timestamp) {
        if changes.iter().all(|change| change.units == 0) {
            return self.heal(changes.iter().map(|change| change.limit), now);
        }
        self.change(now, changes.iter().map(|change| change.limit), |i, limit, level| {
            let units = changes[i].units;
            if units < 0 {
                limit.given_back(level, units.unsigned_abs(), taken, now)
            } else {
                limit.charged(level, units.unsigned_abs())
            }
        });
    }

    /// When everything can be taken again, so that the counters need not be kept any longer.
    pub fn idle_at(&self, limits: impl Iterator<Item = Limit>, now: Timestamp) -> Timestamp {
        let longest = limits.zip(self.as_slice()).map(|(limit, &level)| refilled(limit, level, now)).max();
        now.plus(longest.unwrap_or_default())
    }

    /// How much was taken of the counter that is nearest to its end.
    pub(super) fn pressure(&self, limits: impl Iterator<Item = Limit>) -> Pressure {
        let pressures = limits.zip(self.as_slice()).map(|(limit, &taken)| Pressure { taken, of: limit.full() });
        pressures.reduce(|a, b| if b.of_255() > a.of_255() { b } else { a }).unwrap_or_default()
    }

    fn with_aged<'a>(&'a self, asks: &'a [Ask], now: Timestamp) -> impl Iterator<Item = (Ask, u64)> + 'a {
        asks.iter().zip(self.as_slice()).map(move |(ask, &level)| (*ask, ask.limit.aged(level, self.at, now)))
    }

    fn change(&mut self, now: Timestamp, limits: impl Iterator<Item = Limit>, f: impl Fn(usize, Limit, u64) -> u64) {
        let at = std::mem::replace(&mut self.at, now);
        let levels = match &mut self.levels {
            Levels::One(level) => std::slice::from_mut(level),
            Levels::Many(levels) => levels,
        };
        for (i, (limit, level)) in limits.zip(levels).enumerate() {
            *level = f(i, limit, limit.aged(*level, at, now));
        }
    }

    fn as_slice(&self) -> &[u64] {
        match &self.levels {
            Levels::One(level) => std::slice::from_ref(level),
            Levels::Many(levels) => levels,
        }
    }
}

/// How much of a counter was taken, as a level and the level at which nothing is left.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pressure {
    taken: u64,
    of: u64,
}

impl Pressure {
    /// 0 for nothing, 255 for all.
    pub(super) fn of_255(&self) -> u8 {
        // Levels are below 2⁵³.
        u8::try_from(self.taken.saturating_mul(255) / self.of.max(1)).unwrap_or(u8::MAX)
    }
}

impl Limit {
    /// The level at which nothing is left.
    fn full(self) -> u64 {
        match self.0 {
            Rule::Rate { capacity, .. } => capacity,
            Rule::Window { limit, .. } => limit,
        }
    }

    /// When one more unit can be taken than [`Level::remaining`] says, in a window all; zero where nothing was taken.
    pub(crate) fn next_unit(self, level: &Level) -> Duration {
        match self.0 {
            Rule::Rate { interval, capacity, .. } => {
                let missing = (capacity / interval).saturating_sub(level.remaining);
                let (all, others) = (nanos(level.refilled), interval.saturating_mul(missing.saturating_sub(1)));
                // What was told a while ago may have one more by now; then it is the next one.
                Duration::from_nanos(if all > others { all - others } else { all % interval })
            }
            Rule::Window { .. } => level.refilled,
        }
    }

    /// The level as it was before so much was taken.
    pub(super) fn give_back(self, level: &mut Level, cost: u32) {
        level.remaining += u64::from(cost);
        level.refilled = match self.0 {
            Rule::Rate { interval, .. } => {
                level.refilled.saturating_sub(Duration::from_nanos(interval.saturating_mul(cost.into())))
            }
            Rule::Window { limit, .. } if level.remaining >= limit => Duration::ZERO,
            Rule::Window { .. } => level.refilled,
        };
    }

    /// The verdict on a higher cost than the one that this level was told for.
    pub(crate) fn verdict_for_more(self, level: &Level, told: u32, cost: u32) -> Verdict {
        if cost == told || level.verdict == Verdict::Never {
            return level.verdict;
        }
        match self.0 {
            Rule::Rate { interval, capacity, .. } => {
                let need = interval.saturating_mul(cost.into());
                match nanos(level.refilled).saturating_add(need).saturating_sub(capacity) {
                    _ if need > capacity => Verdict::Never,
                    0 => Verdict::Within,
                    over => Verdict::Wait(Duration::from_nanos(over)),
                }
            }
            Rule::Window { limit, .. } if u64::from(cost) > limit => Verdict::Never,
            Rule::Window { .. } if u64::from(cost) > level.remaining => Verdict::Wait(level.refilled),
            Rule::Window { .. } => level.verdict,
        }
    }

    /// The level of the time `at` as it is now. A clock that was set back neither gives nor takes.
    fn aged(self, level: u64, at: Timestamp, now: Timestamp) -> u64 {
        match self.0 {
            // The cut comes first: the outcome is then the same whether the level was stored between or not.
            Rule::Rate { ceiling, .. } => level.min(ceiling).saturating_sub(elapsed_nanos(at, now)),
            Rule::Window { length, .. } if now.as_micros() / length > at.as_micros() / length => 0,
            Rule::Window { .. } => level,
        }
    }

    fn charged(self, level: u64, units: u64) -> u64 {
        match self.0 {
            Rule::Rate { interval, ceiling, .. } => level.saturating_add(interval.saturating_mul(units)).min(ceiling),
            Rule::Window { .. } => level.saturating_add(units).min(MAX_COUNT),
        }
    }

    fn given_back(self, level: u64, units: u64, taken: Timestamp, now: Timestamp) -> u64 {
        match self.0 {
            Rule::Rate { interval, .. } => {
                let still_due = interval.saturating_mul(units).saturating_sub(elapsed_nanos(taken, now));
                level.saturating_sub(still_due)
            }
            Rule::Window { length, .. } if now.as_micros() / length == taken.as_micros() / length => {
                level.saturating_sub(units)
            }
            Rule::Window { .. } => level,
        }
    }
}

/// The most that a window counts; doubles are exact up to here.
const MAX_COUNT: u64 = 1 << 52;

fn elapsed_nanos(from: Timestamp, to: Timestamp) -> u64 {
    to.as_micros().saturating_sub(from.as_micros()).saturating_mul(1000)
}

fn verdict(ask: Ask, level: u64, now: Timestamp) -> Verdict {
    let cost = u64::from(ask.cost);
    match ask.limit.0 {
        Rule::Rate { interval, capacity, .. } => {
            let need = interval.saturating_mul(cost);
            match level.saturating_add(need).saturating_sub(capacity) {
                _ if cost == 0 => Verdict::Within,
                _ if need > capacity => Verdict::Never,
                0 => Verdict::Within,
                over => Verdict::Wait(Duration::from_micros(over.div_ceil(1000))),
            }
        }
        Rule::Window { limit, length } => {
            if cost == 0 || level.saturating_add(cost) <= limit {
                Verdict::Within
            } else if cost > limit {
                Verdict::Never
            } else {
                Verdict::Wait(window_left(length, now))
            }
        }
    }
}

fn remaining(limit: Limit, level: u64) -> u64 {
    match limit.0 {
        Rule::Rate { interval, capacity, .. } => capacity.saturating_sub(level) / interval,
        Rule::Window { limit, .. } => limit.saturating_sub(level),
    }
}

fn refilled(limit: Limit, level: u64, now: Timestamp) -> Duration {
    match limit.0 {
        Rule::Rate { .. } => Duration::from_micros(level.div_ceil(1000)),
        Rule::Window { .. } if level == 0 => Duration::ZERO,
        Rule::Window { length, .. } => window_left(length, now),
    }
}

fn window_left(length: u64, now: Timestamp) -> Duration {
    Duration::from_micros(length - now.as_micros() % length)
}
