//! Settings that have bounds.

use std::{fmt::Debug, ops::RangeInclusive};

/// What is nearest to `asked` within the bounds. A setter cannot refuse, so it says what it takes instead.
pub(crate) fn within<T: Copy + Debug + PartialOrd>(setting: &str, asked: T, bounds: RangeInclusive<T>) -> T {
    if bounds.contains(&asked) {
        return asked;
    }
    // What is no number at all has nothing that is nearest.
    let used = if asked > *bounds.end() { *bounds.end() } else { *bounds.start() };
    tracing::warn!("{setting} is {asked:?}, which is not within {bounds:?}; {used:?} is used");
    used
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::within;

    #[test]
    fn what_is_out_of_bounds_becomes_what_is_nearest() {
        for (asked, used) in [(-1, 0), (0, 0), (3, 3), (5, 5), (7, 5)] {
            assert_eq!(within("percent", asked, 0..=5), used);
        }
        assert!(within("jitter", f64::NAN, 0.0..=0.5) <= 0.0, "no number");
        let half_a_minute = Duration::from_secs(30);
        assert_eq!(within("wait", Duration::from_hours(1), Duration::ZERO..=half_a_minute), half_a_minute);
    }
}
