//! Limits: no window admits more than the quota.

use std::collections::BTreeMap;

use super::{Promise, Violation};
use crate::history::{History, Limited, Moment, Span};

/// `Quota::per_second(5).burst(5)`: one unit every 200 ms, and 5 at once after a pause.
pub(crate) const PER_SECOND: u32 = 5;
pub(crate) const BURST: u32 = 5;

/// Longer windows show nothing that shorter ones do not.
const WINDOW: Moment = 30_000_000;

pub(super) fn check(history: &History) -> Vec<Violation> {
    let mut keys: BTreeMap<usize, Vec<Span>> = BTreeMap::new();
    for Limited { span, key, .. } in history.limits.iter().filter(|limited| limited.admitted) {
        keys.entry(*key).or_default().push(*span);
    }
    keys.into_iter().filter_map(|(key, spans)| of_key(key, spans)).collect()
}

/// A request was admitted some time between its begin and its end; so those that lie within a window whole were
/// admitted in it.
fn of_key(key: usize, mut spans: Vec<Span>) -> Option<Violation> {
    spans.sort_unstable_by_key(|span| span.begin);
    for (first, from) in spans.iter().enumerate() {
        let mut ends: Vec<Moment> =
            spans[first..].iter().take_while(|span| span.begin < from.begin + WINDOW).map(|span| span.end).collect();
        ends.sort_unstable();
        for (admitted, end) in (1_u64..).zip(ends) {
            let window = end - from.begin;
            let allowed = u64::from(BURST) + window * u64::from(PER_SECOND) / 1_000_000;
            if admitted > allowed {
                let what = format!(
                    "key {key}: {admitted} were admitted in {window} µs from {} µs on, {allowed} are allowed",
                    from.begin
                );
                return Some(Violation::new(Promise::NoLimitExceeded, what));
            }
        }
    }
    None
}

pub(super) fn count(history: &History, counts: &mut BTreeMap<&'static str, u64>) {
    for limited in &history.limits {
        *counts.entry(if limited.admitted { "admitted" } else { "denied" }).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(spans: &[(Moment, Moment)]) -> usize {
        let limits = |key| {
            spans.iter().map(move |(begin, end)| Limited {
                span: Span { begin: *begin, end: *end },
                key,
                admitted: true,
            })
        };
        let denied = |limited| Limited { admitted: false, ..limited };
        let limits = limits(1).chain(limits(2).map(denied)).chain(limits(2).map(denied)).collect();
        check(&History { limits, ..History::default() }).len()
    }

    #[test]
    fn a_burst_and_then_one_every_200_ms_are_allowed() {
        let burst = (0..5).map(|n| (n, n + 1000));
        let even = (1..50).map(|n| (200_000 * n, 200_000 * n + 5000));
        assert_eq!(found(&burst.chain(even).collect::<Vec<_>>()), 0);
    }

    #[test]
    fn one_more_than_allowed_is_found() {
        assert_eq!(found(&[(0, 1000); 6]), 1);
        assert_eq!(found(&(0..100).map(|n| (150_000 * n, 150_000 * n + 1000)).collect::<Vec<_>>()), 1);
    }

    #[test]
    fn a_slow_answer_is_given_the_benefit_of_the_doubt() {
        // It may have been admitted after all the others.
        assert_eq!(found(&[(0, 1000), (0, 1000), (0, 1000), (0, 1000), (0, 1000), (0, 200_000)]), 0);
    }
}
