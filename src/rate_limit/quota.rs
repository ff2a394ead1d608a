//! How much is allowed.

use std::time::Duration;

use crate::backend::Limit;

/// How much is allowed in how long: so many units, of which a request costs one unless the policy says otherwise.
///
/// By default the quota refills evenly (GCRA): one unit every `window / limit`, and up to [`burst`](Self::burst) units
/// at once after a pause. In any window at all, at most `limit + burst` units are admitted. The burst is the limit
/// itself if it is not set, so that a client may spend its quota all at once.
///
/// | | in any window, at most | sustained |
/// |---|---|---|
/// | `Quota::per_minute(100)` | 200 | 100 a minute |
/// | `Quota::per_minute(100).burst(20)` | 120 | 100 a minute |
/// | `Quota::per_minute(100).strict()` | 100 | 50 a minute |
/// | `Quota::per_minute(100).burst(20).strict()` | 100 | 80 a minute |
/// | `Quota::per_minute(100).fixed_window()` | 200; 100 in each minute of the clock | 100 a minute |
///
/// A limit of 0 admits nothing. What takes longer than 52 days to refill is cut to that
/// ([`Limit::MAX_REFILL`](crate::backend::Limit::MAX_REFILL)); use a [fixed window](Self::fixed_window) for longer
/// ones.
///
/// ```
/// use std::time::Duration;
/// use tower_gatehouse::rate_limit::Quota;
///
/// let quota = Quota::new(100, Duration::from_secs(60)).burst(20);
/// assert_eq!((quota.limit(), quota.window(), quota.at_once()), (100, Duration::from_secs(60), 20));
/// assert_eq!(Quota::per_minute(5).at_once(), 5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    limit: u32,
    window: Duration,
    burst: Option<u32>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Even,
    Strict,
    Fixed,
}

impl Quota {
    /// `limit` units in `window`, which is at least 1 µs.
    pub const fn new(limit: u32, window: Duration) -> Self {
        let window = if window.as_micros() == 0 { Duration::from_micros(1) } else { window };
        Self { limit, window, burst: None, kind: Kind::Even }
    }

    /// So many a second.
    pub const fn per_second(limit: u32) -> Self {
        Self::new(limit, Duration::from_secs(1))
    }

    /// So many a minute.
    pub const fn per_minute(limit: u32) -> Self {
        Self::new(limit, Duration::from_mins(1))
    }

    /// So many an hour.
    pub const fn per_hour(limit: u32) -> Self {
        Self::new(limit, Duration::from_hours(1))
    }

    /// So many in 24 hours.
    pub const fn per_day(limit: u32) -> Self {
        Self::new(limit, Duration::from_hours(24))
    }

    /// How many units can be taken at once after a pause, at least 1. The limit itself by default; with
    /// [`strict`](Self::strict), half of it, rounded up, by default and the limit at most. No effect on a
    /// [fixed window](Self::fixed_window).
    #[must_use]
    pub const fn burst(mut self, units: u32) -> Self {
        self.burst = Some(if units == 0 { 1 } else { units });
        self
    }

    /// Never more than the limit in any window, however it is laid. The quota then refills at
    /// `(limit - burst) / window`, so that a burst and what refills meanwhile stay within the limit.
    #[must_use]
    pub const fn strict(mut self) -> Self {
        self.kind = Kind::Strict;
        self
    }

    /// Counts in windows that begin at multiples of their length since the Unix epoch, as a bill does. A client can
    /// spend the quota of two windows around the boundary.
    #[must_use]
    pub const fn fixed_window(mut self) -> Self {
        self.kind = Kind::Fixed;
        self
    }

    /// The units.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// The time.
    pub const fn window(&self) -> Duration {
        self.window
    }

    /// How many units can be taken at once after a pause.
    pub const fn at_once(&self) -> u32 {
        match (self.kind, self.burst) {
            (_, _) if self.limit == 0 => 0,
            (Kind::Even, Some(burst)) => burst,
            (Kind::Strict, Some(burst)) if burst < self.limit => burst,
            (Kind::Strict, None) => self.limit.div_ceil(2),
            _ => self.limit,
        }
    }

    /// All that it is, in the same bytes in every process.
    pub(super) fn to_bytes(self) -> [u8; 26] {
        let mut bytes = [0; 26];
        bytes[..4].copy_from_slice(&self.limit.to_le_bytes());
        bytes[4..20].copy_from_slice(&self.window.as_nanos().to_le_bytes());
        bytes[20] = u8::from(self.burst.is_some());
        bytes[21..25].copy_from_slice(&self.burst.unwrap_or_default().to_le_bytes());
        bytes[25] = match self.kind {
            Kind::Even => 0,
            Kind::Strict => 1,
            Kind::Fixed => 2,
        };
        bytes
    }

    /// What a store counts by. A charge afterwards may exceed it, up to ten times of what can be taken at once.
    ///
    /// So it is for all policies, also for those that charge nothing: they share their counters, and one would forget
    /// what another has charged.
    pub(super) fn to_limit(self) -> Limit {
        let limit = match self.kind {
            Kind::Fixed => Limit::window(self.limit, self.window),
            Kind::Even => Limit::rate(self.interval(self.limit), self.at_once()),
            // After the burst there is room for `limit - burst` in a window, both of its ends included.
            Kind::Strict if self.at_once() < self.limit => {
                Limit::rate(self.interval(self.limit - self.at_once()), self.at_once())
            }
            // No room at all: what was taken at the beginning of a window comes back after its end.
            Kind::Strict => Limit::rate(self.window.saturating_add(Duration::from_micros(1)), self.at_once()),
        };
        limit.overdraft(self.at_once().saturating_mul(9))
    }

    /// The share of one process; at least one unit of what is not 0.
    pub(super) fn scaled(self, share: f64) -> Self {
        let share = if share > 0.0 && share <= 1.0 { share } else { 1.0 };
        Self { limit: scale(self.limit, share), burst: self.burst.map(|burst| scale(burst, share)), ..self }
    }

    /// The time of one unit, rounded up, so that rounding never admits more.
    fn interval(self, units: u32) -> Duration {
        let nanos = self.window.as_nanos().div_ceil(u128::from(units.max(1)));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The share is at most 1, so that the product fits again.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn scale(units: u32, share: f64) -> u32 {
    if units == 0 { 0 } else { ((f64::from(units) * share) as u32).max(1) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Timestamp,
        backend::{Ask, Meter},
    };

    /// Times and units that a quota admits of a trace of pauses (in µs) and costs.
    fn admitted(quota: Quota, trace: &[(u64, u32)]) -> Vec<(u64, u64)> {
        let (mut meter, mut now) = (Meter::new(1), 1_700_000_000_000_000);
        let mut admitted = Vec::new();
        for &(pause, cost) in trace {
            now += pause;
            let asks = [Ask { limit: quota.to_limit(), cost }];
            if meter.would_admit(&asks, Timestamp::from_micros(now)) {
                meter.take(&asks, Timestamp::from_micros(now));
                admitted.push((now, u64::from(cost)));
            }
        }
        admitted
    }

    /// The most that any window admitted, both ends included: a fullest window ends with an admission.
    fn fullest(admitted: &[(u64, u64)], window: u64) -> u64 {
        let (mut from, mut units, mut fullest) = (0, 0, 0);
        for &(at, cost) in admitted {
            units += cost;
            while admitted[from].0 + window < at {
                units -= admitted[from].1;
                from += 1;
            }
            fullest = fullest.max(units);
        }
        fullest
    }

    fn traces() -> impl Strategy<Value = (u32, u64, Vec<(u64, u32)>)> {
        (1..40u32, 1..5_000_000u64).prop_flat_map(|(limit, window)| {
            // Pauses on the scale of the interval, so that both denials and refills are common.
            let pause = prop_oneof![Just(0), 0..=2 * window / u64::from(limit) + 2, 0..=window + 1];
            (Just(limit), Just(window), prop::collection::vec((pause, 1..4u32), 1..300))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn any_window_of_any_trace_has_at_most_limit_plus_burst((limit, window, trace) in traces(), burst in 1..60u32) {
            let quota = Quota::new(limit, Duration::from_micros(window)).burst(burst);
            prop_assert!(fullest(&admitted(quota, &trace), window) <= u64::from(limit + burst));
            let quota = Quota::new(limit, Duration::from_micros(window));
            prop_assert!(fullest(&admitted(quota, &trace), window) <= u64::from(2 * limit));
        }

        #[test]
        fn a_strict_quota_admits_at_most_its_limit_in_any_window(
            (limit, window, trace) in traces(),
            burst in prop::option::of(1..60u32),
        ) {
            let mut quota = Quota::new(limit, Duration::from_micros(window)).strict();
            quota.burst = burst;
            prop_assert!(fullest(&admitted(quota, &trace), window) <= u64::from(limit));
        }

        #[test]
        fn a_fixed_window_admits_at_most_its_limit_in_each_window_of_the_clock((limit, window, trace) in traces()) {
            let quota = Quota::new(limit, Duration::from_micros(window)).fixed_window();
            let mut counts = std::collections::BTreeMap::new();
            for (at, units) in admitted(quota, &trace) {
                *counts.entry(at / window).or_insert(0) += units;
            }
            prop_assert!(counts.values().all(|&units| units <= u64::from(limit)));
        }

        /// Nothing is denied that the quota has: a client that keeps to the rate is never denied.
        #[test]
        fn a_client_that_keeps_to_the_rate_is_never_denied(limit in 1..1000u32, window in 1..5_000_000u64) {
            let quota = Quota::new(limit, Duration::from_micros(window)).burst(1);
            let trace = vec![(window.div_ceil(u64::from(limit)), 1); 300];
            prop_assert_eq!(admitted(quota, &trace).len(), 300);
        }
    }

    #[test]
    fn a_whole_burst_is_there_at_once_and_not_one_more() {
        for limit in [1, 2, 3, 7, 100, 999] {
            assert_eq!(admitted(Quota::per_minute(limit), &vec![(0, 1); 2000]).len(), limit as usize, "{limit}");
            let strict = Quota::per_minute(limit).strict();
            assert_eq!(admitted(strict, &vec![(0, 1); 2000]).len(), limit.div_ceil(2) as usize, "{limit} strict");
            let fixed = Quota::per_day(limit).fixed_window();
            assert_eq!(admitted(fixed, &vec![(0, 1); 2000]).len(), limit as usize, "{limit} fixed");
        }
        assert_eq!(admitted(Quota::per_second(0), &[(1_000_000, 1); 10]), []);
    }

    #[test]
    fn the_share_of_a_process_is_at_least_one_unit() {
        assert_eq!(Quota::per_minute(100).burst(20).scaled(0.25), Quota::per_minute(25).burst(5));
        assert_eq!(Quota::per_minute(3).scaled(0.25), Quota::per_minute(1));
        assert_eq!(Quota::per_minute(0).scaled(0.25), Quota::per_minute(0));
        assert_eq!(Quota::per_minute(8).scaled(f64::NAN), Quota::per_minute(8));
    }
}
