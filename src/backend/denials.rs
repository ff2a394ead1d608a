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
pub(crate) struct Denials {
    /// Those that have denied by themselves.
    alone: Cache<LimitKey, Arc<Denial>>,
    /// Those that have denied as one of several.
    suspects: Cache<LimitKey, Suspect>,
}

struct Denial {
    asks: Box<[Ask]>,
    levels: Box<[Level]>,
    at: Timestamp,
    answered: Instant,
    until: Instant,
}

#[derive(Clone, Copy)]
struct Suspect {
    denied: Instant,
    /// How often.
    times: u32,
}

const MAX_DENIALS: usize = 1 << 16;
/// A key that refills faster than this would be asked for with every request.
const MIN_HOLD: Duration = Duration::from_millis(10);
/// What others give back, and counters that were deleted by hand, are noticed after this time. For as long, a key that
/// has denied as one of several is asked before the others.
const MAX_HOLD: Duration = Duration::from_secs(5);

impl Denials {
    pub(crate) fn new() -> Self {
        Self { alone: Cache::new(MAX_DENIALS), suspects: Cache::new(MAX_DENIALS) }
    }

    /// Remembers the state of a key that has denied, by itself and in one step: not because of another key, and not
    /// while something was taken that is given back at once.
    ///
    /// `asked` is when the question was sent: the key passes at the soonest so much later.
    pub(crate) fn remember(&self, take: &Take<'_>, levels: &[Level], at: Timestamp, asked: Instant) {
        let wait = |level: &Level| match level.verdict {
            Verdict::Within => None,
            // Not for longer than until everything is there again: what would refill later is lost.
            Verdict::Wait(wait) => Some(wait.max(MIN_HOLD.min(level.refilled))),
            Verdict::Never => Some(MAX_HOLD),
        };
        if let Some(longest) = levels.iter().filter_map(wait).max() {
            let until = asked + longest.min(MAX_HOLD);
            let (asks, levels) = (take.asks.into(), levels.into());
            self.alone.insert(take.key, Arc::new(Denial { asks, levels, at, answered: Instant::now(), until }));
        }
    }

    /// Notes whether a key has admitted that was asked as one of several. Where it has, half of what it has denied is
    /// forgotten: a key that is everybody's denies now and then, and that of a client with nothing left nearly always.
    pub(crate) fn suspect(&self, take: &Take<'_>, admitted: bool) {
        let suspect = self.suspects.get(&take.key);
        if !admitted {
            let times = suspect.map_or(0, |suspect| suspect.times).saturating_add(1);
            self.suspects.insert(take.key, Suspect { denied: Instant::now(), times });
        } else if let Some(suspect) = suspect
            // What costs nothing is admitted always.
            && take.asks.iter().any(|ask| ask.cost > 0)
        {
            match suspect.times / 2 {
                0 => drop(self.suspects.remove(&take.key)),
                times => self.suspects.insert(take.key, Suspect { times, ..suspect }),
            }
        }
    }

    /// Which of several keys has denied a moment ago, and most often.
    pub(crate) fn prime_suspect(&self, takes: &[Take<'_>]) -> Option<usize> {
        let suspects = takes.iter().enumerate().filter_map(|(n, take)| {
            let suspect = self.suspects.get(&take.key).filter(|suspect| suspect.denied.elapsed() < MAX_HOLD)?;
            Some((suspect.times, n))
        });
        suspects.max().map(|(_, n)| n)
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
        let denial = self.alone.get(&take.key)?;
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
        let levels = denial.levels.iter().zip(&denial.asks).zip(take.asks).map(|((level, denied), ask)| {
            let refilled = level.refilled.saturating_sub(age);
            // What costs more than what was denied waits for longer.
            match ask.limit.verdict_for_more(level, denied.cost, ask.cost) {
                Verdict::Wait(wait) => Level {
                    refilled: refilled.max(left),
                    verdict: Verdict::Wait(wait.saturating_sub(age).max(left)),
                    ..*level
                },
                verdict => Level { refilled, verdict, ..*level },
            }
        });
        Some((levels.collect(), denial.at))
    }

    /// A key that something is given back to may pass again; one that is charged waits for longer.
    pub(crate) fn settling(&self, settle: &Settle<'_>) {
        if settle.changes.iter().any(|change| change.units != 0) {
            self.alone.remove(&settle.key);
        }
    }
}

impl fmt::Debug for Denials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Denials").field(&self.alone.len()).finish()
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
            let denial = denials.alone.get(&key(1)).unwrap();
            let held = u64::try_from(denial.until.saturating_duration_since(denial.answered).as_micros()).unwrap();
            assert!((least..=most).contains(&held), "{held}");
        }
        // Nor for longer than it takes until everything is there again.
        let level = Level { refilled: Duration::from_millis(1), ..denied(Duration::from_micros(200))[0] };
        let asked = Instant::now();
        denials.remember(&Take { key: key(2), asks: &asks }, &[level], Timestamp::EPOCH, asked);
        assert_eq!(denials.alone.get(&key(2)).unwrap().until - asked, level.refilled);
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
        denials.settling(&Settle { key: key(1), taken: Timestamp::EPOCH, changes: &changed(0) });
        assert!(recalled(&denials, key(1), &ask(3)).is_some(), "nothing has changed");
        for units in [1, -1] {
            denials.remember(&Take { key: key(1), asks: &ask(3) }, &denied(wait), Timestamp::EPOCH, Instant::now());
            denials.settling(&Settle { key: key(1), taken: Timestamp::EPOCH, changes: &changed(units) });
            assert_eq!(recalled(&denials, key(1), &ask(3)), None, "the wait is another one");
        }
    }

    #[test]
    fn what_costs_more_than_what_was_denied_waits_for_longer_or_for_good() {
        let denials = Denials::new();
        let second = Duration::from_secs(1);
        let level = Level { remaining: 0, refilled: 5 * second, verdict: Verdict::Wait(second) };
        denials.remember(&Take { key: key(1), asks: &ask(1) }, &[level], Timestamp::EPOCH, Instant::now());
        for (cost, wait) in [(1, 1), (2, 2), (5, 5)] {
            let told = recalled(&denials, key(1), &ask(cost)).unwrap().verdict;
            let is_right = |told| told <= wait * second && told + second / 2 > wait * second;
            assert!(matches!(told, Verdict::Wait(told) if is_right(told)), "{cost}: {told:?}");
        }
        assert_eq!(recalled(&denials, key(1), &ask(6)).unwrap().verdict, Verdict::Never);
        // Of a window, nothing comes back before its end.
        let window = |cost| [Ask { limit: Limit::window(5, second), cost }];
        let level = Level { remaining: 1, refilled: second, verdict: Verdict::Wait(second) };
        denials.remember(&Take { key: key(2), asks: &window(2) }, &[level], Timestamp::EPOCH, Instant::now());
        assert!(matches!(recalled(&denials, key(2), &window(5)).unwrap().verdict, Verdict::Wait(_)));
        assert_eq!(recalled(&denials, key(2), &window(6)).unwrap().verdict, Verdict::Never);
    }

    #[test]
    fn of_several_keys_the_one_that_denies_most_is_asked_first_until_it_admits() {
        let denials = Denials::new();
        let (one, nothing) = (ask(1), ask(0));
        let takes = [0, 1, 2].map(|n| Take { key: key(n), asks: &one });
        let note =
            |n: usize, answers: &[bool]| answers.iter().for_each(|admitted| denials.suspect(&takes[n], *admitted));
        assert_eq!(denials.prime_suspect(&takes), None);
        note(1, &[false; 100]);
        note(2, &[false]);
        assert_eq!(denials.prime_suspect(&takes), Some(1));
        note(1, &[true]);
        assert_eq!(denials.prime_suspect(&takes), Some(1), "one unit has come back to it");
        note(1, &[true; 6]);
        assert_eq!(denials.prime_suspect(&takes), Some(2));
        denials.suspect(&Take { asks: &nothing, ..takes[2] }, true);
        assert_eq!(denials.prime_suspect(&takes), Some(2), "it had nothing to deny");
        note(2, &[true]);
        assert_eq!(denials.prime_suspect(&takes), None);
    }

    #[test]
    fn a_million_denied_keys_do_not_grow_beyond_the_bound() {
        let (denials, asks) = (Denials::new(), ask(1));
        for n in 0..1_000_000 {
            let take = Take { key: key(n), asks: &asks };
            denials.remember(&take, &denied(Duration::from_secs(5)), Timestamp::EPOCH, Instant::now());
        }
        assert!(denials.alone.len() <= MAX_DENIALS);
    }
}
