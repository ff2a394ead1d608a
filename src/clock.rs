//! Time: one type for a moment, and where "now" comes from.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A moment in microseconds since the Unix epoch, on the clock of a [`Backend`](crate::Backend).
///
/// Every stored time is on the backend's clock, so that gateways whose own clocks differ agree about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// A moment given in microseconds since the Unix epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// This process's own clock. Times before 1970 read as the epoch.
    pub fn system() -> Self {
        SystemTime::now().into()
    }

    /// The same as the system noted it at its last tick, some milliseconds ago: what counts in whole seconds need not
    /// wait for the exact time, which takes several times as long to read.
    #[cfg(feature = "memory")]
    fn last_tick() -> Self {
        #[cfg(target_os = "linux")]
        {
            use nix::{
                sys::time::TimeValLike as _,
                time::{ClockId, clock_gettime},
            };
            if let Ok(time) = clock_gettime(ClockId::CLOCK_REALTIME_COARSE) {
                return Self(u64::try_from(time.num_microseconds()).unwrap_or_default());
            }
        }
        Self::system()
    }

    /// This moment and `duration` later; saturates.
    #[must_use]
    pub const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// This moment and `duration` earlier; not before the epoch.
    #[must_use]
    pub const fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

const fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(duration.subsec_micros() as u64)
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, micros))
    }
}

impl From<Timestamp> for SystemTime {
    /// The Unix epoch where the platform cannot express the time.
    fn from(time: Timestamp) -> Self {
        UNIX_EPOCH.checked_add(Duration::from_micros(time.0)).unwrap_or(UNIX_EPOCH)
    }
}

/// A clock that a test turns by hand; it drives freshness, sessions and limits of
/// [`Backend::memory_with`](crate::Backend::memory_with).
///
/// Clones share the time.
///
/// ```
/// use std::time::Duration;
/// use tower_gatehouse::TestClock;
///
/// let clock = TestClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().since(before), Duration::from_secs(60));
/// ```
#[derive(Clone, Debug)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    /// A clock that stands at the present time.
    pub fn new() -> Self {
        Self::at(Timestamp::system())
    }

    /// A clock that stands at `time`.
    pub fn at(time: Timestamp) -> Self {
        Self(Arc::new(AtomicU64::new(time.0)))
    }

    /// The time it shows.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        let later = |time: u64| Some(time.saturating_add(micros(by)));
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
    }

    /// Sets it, also backwards.
    pub fn set(&self, time: Timestamp) {
        self.0.store(time.0, Ordering::SeqCst);
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a backend that lives in this process takes the time from.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    #[default]
    System,
    #[cfg(feature = "memory")]
    Test(TestClock),
}

impl Clock {
    pub(crate) fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::system(),
            #[cfg(feature = "memory")]
            Self::Test(clock) => clock.now(),
        }
    }

    /// See [`CacheBackend::about_now`](crate::backend::CacheBackend::about_now).
    #[cfg(feature = "memory")]
    pub(crate) fn about_now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::last_tick(),
            Self::Test(clock) => clock.now(),
        }
    }
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use super::*;

    #[test]
    fn what_it_is_about_is_not_later_than_now_and_not_long_ago() {
        let clock = Clock::System;
        for _ in 0..1000 {
            let (before, about, now) = (clock.now(), clock.about_now(), clock.now());
            assert!(about <= now, "{about:?} {now:?}");
            assert!(before.since(about) < Duration::from_secs(1), "{before:?} {about:?}");
        }
        let clock = TestClock::new();
        assert_eq!(Clock::Test(clock.clone()).about_now(), clock.now());
    }

    #[test]
    fn durations_are_whole_microseconds_up_to_the_largest() {
        assert_eq!(micros(Duration::new(3, 4_999)), 3_000_004);
        let most = Duration::from_micros(u64::MAX);
        assert_eq!(micros(most), u64::MAX);
        assert_eq!(micros(most + Duration::from_micros(1)), u64::MAX);
        assert_eq!(micros(Duration::from_micros(u64::MAX - 1)), u64::MAX - 1);
        assert_eq!(micros(Duration::MAX), u64::MAX);
    }

    #[test]
    fn a_clock_that_is_turned_stops_at_the_end_of_time() {
        let clock = TestClock::new();
        clock.advance(Duration::MAX);
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), Timestamp(u64::MAX));
    }
}
