//! What was denied a moment ago needs no round trip.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use quick_cache::sync::Cache;
use smallvec::SmallVec;

use super::{Ask, Level, Levels, LimitKey, Settle, Take, Taken, Verdict};
use crate::Timestamp;

/// Keys that were denied, until they may pass again; for stores that are a round trip away.
///
/// What is recalled is never denied longer than the store would, but for [`MIN_HOLD`].
pub(crate) struct Denials(Cache<LimitKey, Arc<Denial>>);

struct Denial {
    asks: Box<[Ask]>,
    levels: Box<[Level]>,
    at: Timestamp,
    answered: Instant,
    until: Instant,
}

const MAX_DENIALS: usize = 1 << 16;
/// A key that refills faster than this would be asked for with every request.
const MIN_HOLD: Duration = Duration::from_millis(10);
/// What others give back, and counters that were deleted by hand, are noticed after this time.
const MAX_HOLD: Duration = Duration::from_secs(5);

impl Denials {
    pub(crate) fn new() -> Self {
        Self(Cache::new(MAX_DENIALS))
    }

    /// Remembers the state of a key that has denied, by itself and in one step: not because of another key, and not
    /// while something was taken that is given back at once.
    ///
    /// `asked` is when the question was sent: the key passes at the soonest so much later.
    pub(crate) fn remember(&self, take: &Take<'_>, levels: &[Level], at: Timestamp, asked: Instant) {
        let wait = |level: &Level| match level.verdict {
            Verdict::Within => None,
            Verdict::Wait(wait) => Some(wait),
            Verdict::Never => Some(MAX_HOLD),
        };
        if let Some(longest) = levels.iter().filter_map(wait).max() {
            let until = asked + longest.clamp(MIN_HOLD, MAX_HOLD);
            let (asks, levels) = (take.asks.into(), levels.into());
            self.0.insert(take.key, Arc::new(Denial { asks, levels, at, answered: Instant::now(), until }));
        }
    }

    /// What a take would be answered of which a key is known to be denied: of all that are known, because the longest wait
    /// counts.
    pub(crate) fn recall_any(&self, takes: &[Take<'_>]) -> Option<Taken> {
        let recalled: SmallVec<[_; 2]> = takes.iter().map(|take| self.recall(take)).collect();
        let at = recalled.iter().flatten().map(|(_, at)| *at).min()?;
        let mut levels = Levels::default();
        for (take, recalled) in takes.iter().zip(recalled) {
            match recalled {
                Some((recalled, _)) => levels.extend(recalled.into_iter().map(Some)),
                None => levels.extend(take.asks.iter().map(|_| None)),
            }
        }
        Some(Taken { admitted: false, at, levels })
    }

    /// The state of a key that would be denied, and when it was told.
    fn recall(&self, take: &Take<'_>) -> Option<(Vec<Level>, Timestamp)> {
        let denial = self.0.get(&take.key)?;
        let now = Instant::now();
        // What costs less, or has another quota, may pass.
        let demands_as_much = denial.asks.len() == take.asks.len()
            && denial
                .asks
                .iter()
                .zip(take.asks)
                .all(|(denied, ask)| denied.limit == ask.limit && denied.cost <= ask.cost);
        if now >= denial.until || !demands_as_much {
            return None;
        }
        let (age, left) = (now.saturating_duration_since(denial.answered), denial.until - now);
        let levels = denial.levels.iter().map(|level| {
            let refilled = level.refilled.saturating_sub(age);
            match level.verdict {
                Verdict::Wait(wait) => Level {
                    refilled: refilled.max(left),
                    verdict: Verdict::Wait(wait.saturating_sub(age).max(left)),
                    ..*level
                },
                _ => Level { refilled, ..*level },
            }
        });
        Some((levels.collect(), denial.at))
    }

    /// A key that something is given back to may pass again.
    pub(crate) fn settling(&self, settle: &Settle<'_>) {
        if settle.changes.iter().any(|change| change.units < 0) {
            self.0.remove(&settle.key);
        }
    }
}

impl fmt::Debug for Denials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Denials").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Change, Limit};

    fn key(n: u128) -> LimitKey {
        LimitKey::from_bytes(n.to_be_bytes())
    }

    fn ask(cost: u32) -> [Ask; 1] {
        [Ask { limit: Limit::rate(Duration::from_secs(1), 5), cost }]
    }

    fn denied(wait: Duration) -> [Level; 1] {
        [Level { remaining: 0, refilled: Duration::from_mins(1), verdict: Verdict::Wait(wait) }]
    }

    fn recalled(denials: &Denials, key: LimitKey, asks: &[Ask]) -> Option<Level> {
        denials.recall(&Take { key, asks }).map(|(levels, _)| levels[0])
    }

    #[test]
    fn a_denial_is_recalled_until_the_key_may_pass_and_never_with_too_short_a_wait() {
        let denials = Denials::new();
        let (asks, wait) = (ask(1), Duration::from_secs(3));
        let asked = Instant::now();
        std::thread::sleep(Duration::from_millis(5)); // the round trip
        denials.remember(&Take { key: key(1), asks: &asks }, &denied(wait), Timestamp::EPOCH, asked);
        let level = recalled(&denials, key(1), &asks).expect("it was denied a moment ago");
        let Verdict::Wait(left) = level.verdict else { panic!("{level:?}") };
        assert!(left <= wait && Instant::now() + left >= asked + wait, "{left:?}");
        std::thread::sleep((asked + wait).saturating_duration_since(Instant::now()));
        assert_eq!(recalled(&denials, key(1), &asks), None, "it is asked for again when it may pass");
        assert_eq!(recalled(&denials, key(2), &asks), None);
    }

    #[test]
    fn it_is_held_for_10_milliseconds_at_least_and_5_seconds_at_most() {
        let denials = Denials::new();
        let asks = ask(1);
        for (wait, least, most) in [(1, 0, 10_000), (3_600_000_000, 4_000_000, 5_000_000)] {
            let wait = Duration::from_micros(wait);
            denials.remember(&Take { key: key(1), asks: &asks }, &denied(wait), Timestamp::EPOCH, Instant::now());
            let denial = denials.0.get(&key(1)).unwrap();
            let held = u64::try_from(denial.until.saturating_duration_since(denial.answered).as_micros()).unwrap();
            assert!((least..=most).contains(&held), "{held}");
        }
        // What is told to the client is the truth, not the hold.
        let told = recalled(&denials, key(1), &asks).unwrap().verdict;
        assert!(matches!(told, Verdict::Wait(wait) if wait > Duration::from_secs(3590)), "{told:?}");
    }

    #[test]
    fn what_costs_less_or_has_another_quota_is_asked_for() {
        let denials = Denials::new();
        let wait = Duration::from_secs(5);
        denials.remember(&Take { key: key(1), asks: &ask(3) }, &denied(wait), Timestamp::EPOCH, Instant::now());
        assert!(recalled(&denials, key(1), &ask(3)).is_some());
        assert!(recalled(&denials, key(1), &ask(4)).is_some());
        assert_eq!(recalled(&denials, key(1), &ask(2)), None);
        let other = [Ask { limit: Limit::rate(Duration::from_secs(1), 50), cost: 3 }];
        assert_eq!(recalled(&denials, key(1), &other), None);
        let changed = |units| [Change { limit: ask(1)[0].limit, units }];
        denials.settling(&Settle { key: key(1), taken: Timestamp::EPOCH, changes: &changed(1) });
        assert!(recalled(&denials, key(1), &ask(3)).is_some(), "a charge gives nothing back");
        denials.settling(&Settle { key: key(1), taken: Timestamp::EPOCH, changes: &changed(-1) });
        assert_eq!(recalled(&denials, key(1), &ask(3)), None);
    }

    #[test]
    fn a_million_denied_keys_do_not_grow_beyond_the_bound() {
        let (denials, asks) = (Denials::new(), ask(1));
        for n in 0..1_000_000 {
            let take = Take { key: key(n), asks: &asks };
            denials.remember(&take, &denied(Duration::from_secs(5)), Timestamp::EPOCH, Instant::now());
        }
        assert!(denials.0.len() <= MAX_DENIALS);
    }
}
