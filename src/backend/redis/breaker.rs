//! The circuit breaker: while a server is out of reach, operations fail at once.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::backend::{BackendError, ErrorKind};

/// Counts outages in a row.
///
/// After [`THRESHOLD`] of them it opens. From the first one on the server is probed in the background, so that no request
/// waits for a probe; it is closed when a probe succeeds.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: AtomicU32,
    open: AtomicBool,
    probed: AtomicBool,
    /// How often an answer came after a failure.
    recoveries: AtomicU32,
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
            self.failures.store(0, Ordering::SeqCst);
            self.recoveries.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The server could not be reached. `true` if that opened the breaker. The caller has to see to it that it is probed.
    #[must_use]
    pub(super) fn failed(&self) -> bool {
        self.failures.fetch_add(1, Ordering::SeqCst) + 1 >= THRESHOLD && !self.open.swap(true, Ordering::SeqCst)
    }

    /// `true` if nobody probes yet: the caller begins, and goes on until [`Breaker::rest`] or [`Breaker::close`].
    #[must_use]
    pub(super) fn begin_to_probe(&self) -> bool {
        // A plain load first: while it is open, every call comes by.
        !self.probed.load(Ordering::SeqCst) && !self.probed.swap(true, Ordering::SeqCst)
    }

    /// How often an answer came after a failure.
    pub(super) fn recoveries(&self) -> u32 {
        self.recoveries.load(Ordering::SeqCst)
    }

    /// Who probed has gone away.
    pub(super) fn probe_ended(&self) {
        self.probed.store(false, Ordering::SeqCst);
    }

    /// `true` if there is nothing to probe any more.
    #[must_use]
    pub(super) fn rest(&self) -> bool {
        let is_calm = || !self.open.load(Ordering::SeqCst) && self.failures.load(Ordering::SeqCst) == 0;
        if !is_calm() {
            return false;
        }
        self.probe_ended();
        // Who has failed in between has seen that it was probed.
        is_calm() || !self.begin_to_probe()
    }

    /// A probe was answered, and probing has ended. `true` if the breaker was open; else failures of calls count on, for
    /// a server may answer a PING and nothing else.
    pub(super) fn close(&self) -> bool {
        // First: who fails from here on begins to probe anew.
        self.probe_ended();
        let was_open = self.open.swap(false, Ordering::SeqCst);
        if was_open {
            self.failures.store(0, Ordering::SeqCst);
        }
        was_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_outages_in_a_row_open_it() {
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
        assert!(!breaker.failed(), "once");
        assert_eq!(breaker.pass().unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(breaker.close());
        assert!(breaker.pass().is_ok());
        assert!(!breaker.close(), "it was closed");
    }

    #[test]
    fn one_probes_until_the_server_has_answered() {
        let breaker = Breaker::default();
        assert!(!breaker.failed() && breaker.begin_to_probe());
        assert!(!breaker.failed() && !breaker.begin_to_probe());
        assert!(!breaker.rest());
        breaker.answered();
        assert!(breaker.rest());
        assert_eq!((0..THRESHOLD).filter(|_| breaker.failed()).count(), 1);
        assert!(breaker.begin_to_probe());
        breaker.answered();
        assert!(!breaker.rest(), "an open one is closed by a probe");
        assert!(breaker.close());
        assert!(breaker.begin_to_probe());
    }

    #[test]
    fn a_server_that_answers_probes_and_nothing_else_opens_it_all_the_same() {
        let breaker = Breaker::default();
        for _ in 1..THRESHOLD {
            assert!(!breaker.failed());
            assert!(!breaker.close(), "a probe was answered");
        }
        assert!(breaker.failed());
    }
}
