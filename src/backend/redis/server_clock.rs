//! The server's clock, known without asking.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::Timestamp;

/// The server's time as a distance from this process's monotonic clock, learned from samples.
///
/// Gateways' wall clocks play no part once the first sample is in. In a Cluster the samples come from whatever node
/// answered: its nodes are expected to be synchronised.
#[derive(Debug)]
pub(super) struct ServerClock {
    zero: Instant,
    /// Microseconds to add to the time since `zero`.
    offset: AtomicI64,
    best: Mutex<Option<Sample>>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    offset: i64,
    /// How far off it may be.
    error: i64,
    taken: Instant,
}

/// How much the two clocks may drift apart: 200 parts per million.
const DRIFT_DIVISOR: i64 = 5_000;

impl ServerClock {
    /// Goes by this process's wall clock until the first sample.
    pub(super) fn new() -> Self {
        let zero = Instant::now();
        Self { zero, offset: AtomicI64::new(to_i64(Timestamp::system().as_micros())), best: Mutex::default() }
    }

    pub(super) fn now(&self) -> Timestamp {
        let now = to_micros(self.zero.elapsed()).saturating_add(self.offset.load(Ordering::Relaxed));
        Timestamp::from_micros(now.try_into().unwrap_or(0))
    }

    /// Learns from a reply with the server's time to a question that was asked at `asked` and answered just now.
    ///
    /// A quick reply says more than a slow one. A slow one counts only when the last good one has grown old, or when
    /// they contradict each other, because then somebody has set the server's clock.
    pub(super) fn learn(&self, server: Timestamp, asked: Instant) {
        let taken = Instant::now();
        let error = to_micros(taken.saturating_duration_since(asked)) / 2 + 1;
        let middle = to_micros(asked.saturating_duration_since(self.zero)) + error;
        let offset = to_i64(server.as_micros()) - middle;
        let mut best = self.best.lock().unwrap_or_else(PoisonError::into_inner);
        let better = best.is_none_or(|best| {
            let age = to_micros(taken.saturating_duration_since(best.taken));
            let grown = best.error + age / DRIFT_DIVISOR;
            error <= grown || (offset - best.offset).abs() > error + grown
        });
        if better {
            *best = Some(Sample { offset, error, taken });
            self.offset.store(offset, Ordering::Relaxed);
        }
    }
}

fn to_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

fn to_i64(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR_2001: u64 = 1_000_000_000_000_000;

    fn off_by(clock: &ServerClock, server: u64) -> u64 {
        clock.now().as_micros().abs_diff(server)
    }

    #[test]
    fn a_wrong_wall_clock_is_forgotten_with_the_first_sample() {
        let clock = ServerClock::new();
        assert!(off_by(&clock, Timestamp::system().as_micros()) < 1_000_000);
        clock.learn(Timestamp::from_micros(YEAR_2001), Instant::now());
        assert!(off_by(&clock, YEAR_2001) < 1_000_000);
    }

    #[test]
    fn a_slow_reply_does_not_spoil_a_good_sample_but_a_clock_that_was_set_is_followed() {
        let clock = ServerClock::new();
        clock.learn(Timestamp::from_micros(YEAR_2001), Instant::now());
        let long_ago = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        // Asked ten seconds ago, answered now, stamped at the beginning: five seconds off if it were believed.
        clock.learn(Timestamp::from_micros(YEAR_2001), long_ago);
        assert!(off_by(&clock, YEAR_2001) < 1_000_000);
        clock.learn(Timestamp::from_micros(YEAR_2001 - 3_600_000_000), Instant::now());
        assert!(off_by(&clock, YEAR_2001 - 3_600_000_000) < 1_000_000);
    }
}
