//! The circuit breaker: while a server is out of reach, operations fail at once.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::backend::{BackendError, ErrorKind};

/// Counts outages in a row.
///
/// After [`THRESHOLD`] of them it opens; whoever opened it must probe the server in the background and close it when
/// the probe succeeds, so that no request waits for a probe.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: AtomicU32,
    open: AtomicBool,
}

/// Outages in a row that open a breaker.
const THRESHOLD: u32 = 5;

impl Breaker {
    /// Fails at once while it is open.
    pub(super) fn pass(&self) -> Result<(), BackendError> {
        if self.is_open() {
            return Err(BackendError::new(
                ErrorKind::Unavailable,
                "Redis was not asked because it could not be reached a moment ago",
            ));
        }
        Ok(())
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// The server answered, whatever it said.
    pub(super) fn answered(&self) {
        // A plain load first: on the hit path the cache line stays shared.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// The server could not be reached. `true` if that opened the breaker: the caller must start to probe.
    #[must_use]
    pub(super) fn failed(&self) -> bool {
        self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= THRESHOLD && !self.open.swap(true, Ordering::Relaxed)
    }

    /// A probe was answered.
    pub(super) fn close(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.open.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_outages_in_a_row_open_it_and_one_is_told_to_probe() {
        let breaker = Breaker::default();
        for _ in 0..10 {
            assert!(!breaker.failed());
            breaker.answered();
        }
        for _ in 1..THRESHOLD {
            assert!(!breaker.failed());
            assert!(breaker.pass().is_ok());
        }
        assert!(breaker.failed(), "it opens");
        assert!(!breaker.failed(), "and only one is told to probe");
        assert_eq!(breaker.pass().unwrap_err().kind(), ErrorKind::Unavailable);
        breaker.close();
        assert!(breaker.pass().is_ok());
    }
}
