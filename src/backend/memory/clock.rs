//! The logical clock by which tickets and invalidations are ordered.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    Timestamp,
    backend::{Tick, Ticket},
};

/// One for each backend. Its tick never decreases; that of an invalidation is above every tick that was read before.
///
/// Each field only grows, so what a reader sees of one of them is never older than what was there when it began.
#[derive(Debug)]
pub(super) struct LogicalClock {
    tick: AtomicU64,
    /// The identity of the clock; replaced when everything is invalidated, so that no entry and no ticket matches.
    born: AtomicU64,
    /// The last invalidation of tags or of everything, hard or soft.
    invalidated: AtomicU64,
    /// The last soft invalidation of everything.
    all_soft: AtomicU64,
}

/// Ticks stay below 2⁵³ whatever a clock shows.
const LATEST: u64 = 1 << 52;

impl LogicalClock {
    pub(super) fn new(now: Timestamp) -> Self {
        let start = now.as_micros().clamp(1, LATEST);
        Self {
            tick: AtomicU64::new(start),
            born: AtomicU64::new(start),
            invalidated: AtomicU64::new(0),
            all_soft: AtomicU64::new(0),
        }
    }

    pub(super) fn ticket(&self) -> Ticket {
        // The tick first: should everything be invalidated in between, then the ticket is one of the new clock with a
        // tick that is too low, which only costs a fill.
        let tick = self.tick.load(Ordering::SeqCst);
        Ticket { tick, born: self.born() }
    }

    pub(super) fn born(&self) -> u64 {
        self.born.load(Ordering::SeqCst)
    }

    pub(super) fn all_soft(&self) -> Tick {
        self.all_soft.load(Ordering::SeqCst)
    }

    pub(super) fn invalidated(&self) -> Tick {
        self.invalidated.load(Ordering::SeqCst)
    }

    /// Moves on and returns the new tick, which nobody has read before.
    pub(super) fn advance(&self, now: Timestamp) -> Tick {
        let now = now.as_micros().min(LATEST);
        let next = |tick: Tick| now.max(tick + 1);
        next(self.tick.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |tick| Some(next(tick))).unwrap_or_else(|t| t))
    }

    /// After a commit: who sees the entry gets a ticket that is younger.
    pub(super) fn step(&self) {
        self.tick.fetch_add(1, Ordering::SeqCst);
    }

    /// To be called when the cells have been raised to `tick`, before the invalidation returns.
    pub(super) fn note_invalidation(&self, tick: Tick) {
        self.invalidated.fetch_max(tick, Ordering::SeqCst);
    }

    pub(super) fn stale_all(&self, tick: Tick) {
        self.all_soft.fetch_max(tick, Ordering::SeqCst);
    }

    pub(super) fn born_again(&self, tick: Tick) {
        self.born.fetch_max(tick, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_on_when_time_stands_still_or_steps_back() {
        let clock = LogicalClock::new(Timestamp::from_micros(100));
        let first = clock.advance(Timestamp::from_micros(100));
        assert_eq!(clock.advance(Timestamp::from_micros(5)), first + 1);
        assert_eq!(clock.advance(Timestamp::from_micros(500)), 500);
        assert_eq!(clock.ticket(), Ticket { tick: 500, born: 100 });
    }

    #[test]
    fn it_stays_below_two_to_the_53_at_the_end_of_time() {
        let clock = LogicalClock::new(Timestamp::from_micros(u64::MAX));
        assert!(clock.advance(Timestamp::from_micros(u64::MAX)) < 1 << 53);
    }
}
