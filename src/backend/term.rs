//! How long something is held, on clocks that are not quite the same.

use std::time::Duration;

use crate::Timestamp;

/// From a moment for a while.
///
/// Whoever looks at it may be a little behind whoever began it: the clocks of two processes differ, and between reading
/// the clock and taking a lock a thread may be overtaken. To him it has begun all the same. A clock that is set back
/// prolongs it by no more than its own length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) since: Timestamp,
    pub(crate) until: Timestamp,
}

impl Term {
    pub(crate) const fn new(now: Timestamp, length: Duration) -> Self {
        Self { since: now, until: now.plus(length) }
    }

    /// What is left of it, at most its length; `None` where it has ended.
    pub(crate) fn left(self, now: Timestamp) -> Option<Duration> {
        let length = self.until.since(self.since);
        let has_begun = self.since.since(now) <= length;
        (has_begun && now < self.until).then(|| self.until.since(now).min(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_micros(10_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_lasts_for_its_length() {
        let term = Term::new(START, 2 * SECOND);
        assert_eq!(term.left(START), Some(2 * SECOND));
        assert_eq!(term.left(START.plus(SECOND)), Some(SECOND));
        assert_eq!(term.left(START.plus(2 * SECOND)), None);
    }

    #[test]
    fn who_is_behind_finds_it_begun() {
        let term = Term::new(START, 2 * SECOND);
        assert_eq!(term.left(START.minus(Duration::from_micros(1))), Some(2 * SECOND));
        assert_eq!(term.left(START.minus(SECOND)), Some(2 * SECOND));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_prolong_it_for_long() {
        let term = Term::new(START, 2 * SECOND);
        assert_eq!(term.left(START.minus(3 * SECOND)), None);
        assert_eq!(term.left(Timestamp::EPOCH), None);
        assert_eq!(
            Term::new(START, Duration::MAX).left(Timestamp::EPOCH),
            Some(Timestamp::EPOCH.plus(Duration::MAX).since(START))
        );
    }
}
