//! The circuit breaker: while the store is out of reach, operations fail at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::keys::{Bucket, Keys};
use crate::backend::{BackendError, ErrorKind};

/// One breaker for each bucket, because in a Cluster each may be on another node.
///
/// Operations report how they ended. After [`THRESHOLD`] outages in a row a breaker opens; whoever opened it must probe
/// the bucket every [`PROBE_EVERY`] in the background and close it when the probe succeeds, so that no request waits
/// for a probe.
#[derive(Clone, Debug)]
pub(super) struct Breakers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    breakers: Box<[Breaker]>,
    open: AtomicUsize,
    name: String,
}

#[derive(Debug, Default)]
struct Breaker {
    failures: AtomicU32,
    open: AtomicBool,
}

/// Outages in a row that open a breaker.
pub(super) const THRESHOLD: u32 = 5;

/// How often an open breaker is probed.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(1);

impl Breakers {
    /// `name` is what the log calls the store.
    pub(super) fn new(keys: &Keys, name: String) -> Self {
        let breakers = keys.buckets().map(|_| Breaker::default()).collect();
        Self(Arc::new(Shared { breakers, open: AtomicUsize::new(0), name }))
    }

    /// Fails at once while the breaker is open.
    pub(super) fn pass(&self, bucket: Bucket) -> Result<(), BackendError> {
        if self.is_open(bucket) {
            return Err(BackendError::new(
                ErrorKind::Unavailable,
                "Redis was not asked because it could not be reached a moment ago",
            ));
        }
        Ok(())
    }

    pub(super) fn is_open(&self, bucket: Bucket) -> bool {
        self.0.breakers[bucket.index()].open.load(Ordering::Relaxed)
    }

    /// Whether any breaker is open.
    pub(super) fn any_open(&self) -> bool {
        self.0.open.load(Ordering::Relaxed) > 0
    }

    /// The server answered, whatever it said.
    pub(super) fn answered(&self, bucket: Bucket) {
        let failures = &self.0.breakers[bucket.index()].failures;
        // A plain load first: on the hit path the cache line stays shared.
        if failures.load(Ordering::Relaxed) != 0 {
            failures.store(0, Ordering::Relaxed);
        }
    }

    /// The server could not be reached. `true` if that opened the breaker: the caller must start to probe.
    #[must_use]
    pub(super) fn failed(&self, bucket: Bucket, error: &BackendError) -> bool {
        let breaker = &self.0.breakers[bucket.index()];
        if breaker.failures.fetch_add(1, Ordering::Relaxed) + 1 < THRESHOLD
            || breaker.open.swap(true, Ordering::Relaxed)
        {
            return false;
        }
        if self.0.open.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                store = %self.0.name,
                bucket = bucket.index(),
                error = %error,
                "Redis is out of reach; operations fail at once until it answers again"
            );
        }
        true
    }

    /// A probe was answered.
    pub(super) fn close(&self, bucket: Bucket) {
        let breaker = &self.0.breakers[bucket.index()];
        breaker.failures.store(0, Ordering::Relaxed);
        if breaker.open.swap(false, Ordering::Relaxed) && self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            tracing::info!(store = %self.0.name, "Redis answers again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage() -> BackendError {
        BackendError::new(ErrorKind::Timeout, "too slow")
    }

    #[test]
    fn only_outages_in_a_row_open_it_and_only_its_own_bucket() {
        let keys = Keys::new("gh", 2);
        let breakers = Breakers::new(&keys, "test".into());
        let mut buckets = keys.buckets();
        let (one, two) = (buckets.next().unwrap(), buckets.next().unwrap());
        for _ in 0..10 {
            assert!(!breakers.failed(one, &outage()));
            breakers.answered(one);
        }
        for _ in 1..THRESHOLD {
            assert!(!breakers.failed(one, &outage()));
            assert!(breakers.pass(one).is_ok());
        }
        assert!(breakers.failed(one, &outage()), "it opens");
        assert!(!breakers.failed(one, &outage()), "and only one is told to probe");
        assert_eq!(breakers.pass(one).unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(breakers.pass(two).is_ok());
        breakers.close(one);
        assert!(breakers.pass(one).is_ok());
        assert!(!breakers.any_open());
    }
}
