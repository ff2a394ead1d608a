//! A backend whose clock a test turns forward, so that the same cases run against a real Redis.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tower_gatehouse::{
    Backend, Timestamp,
    backend::{
        Acquire, Acquired, BackendError, CacheBackend, Changes, Commit, Committed, Create, Cycle, Discarded, Entry,
        Epoch, InvalidateError, Lease, LeaseKey, Leases, Limits, Lookup, MapChange, MapChanged, MapKey, MapSnapshot,
        Mode, PrimaryKey, Record, RecordKey, Records, Release, Responses, Saved, Scope, Settle, Take, Taken, Ticket,
        UserKey, Variant, VaryOf, Waiter,
    },
};

/// How far a clock has been turned, in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shift(Arc<AtomicU64>);

impl Shift {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }

    fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// The store itself goes by its own clock, so that nothing expires early; what is asked for the time is turned.
#[derive(Debug)]
pub(crate) struct Shifted {
    inner: Backend,
    shift: Shift,
    /// How far the clock was turned at the last soft invalidation.
    soft: Shift,
}

impl Shifted {
    pub(crate) fn new(inner: Backend, shift: Shift) -> Self {
        Self { inner, shift, soft: Shift::default() }
    }
}

impl CacheBackend for Shifted {
    fn now(&self) -> Timestamp {
        self.inner.now().plus(self.shift.get())
    }

    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn ping(&self) -> Result<(), BackendError> {
        self.inner.ping().await
    }
}

impl Responses for Shifted {
    async fn lookup(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> Result<Lookup, BackendError> {
        let mut lookup = self.inner.lookup(key, vary).await?;
        if let Some(found) = &mut lookup.found {
            found.stale_since = found.stale_since.map(|since| since.plus(self.soft.get()));
        }
        Ok(lookup)
    }

    async fn ticket(&self, key: &PrimaryKey) -> Result<Ticket, BackendError> {
        self.inner.ticket(key).await
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<Committed, BackendError> {
        self.inner.commit(commit).await
    }

    async fn discard(
        &self,
        key: &PrimaryKey,
        variant: Variant,
        ticket: Ticket,
        lease: Option<&Lease>,
    ) -> Result<Discarded, BackendError> {
        self.inner.discard(key, variant, ticket, lease).await
    }

    async fn invalidate(&self, scope: Scope<'_>, mode: Mode) -> Result<(), InvalidateError> {
        if mode == Mode::Soft {
            self.soft.0.store(self.shift.0.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        self.inner.invalidate(scope, mode).await
    }
}

impl Leases for Shifted {
    async fn acquire(&self, acquire: Acquire<'_>) -> Result<Acquired, BackendError> {
        self.inner.acquire(acquire).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, BackendError> {
        self.inner.renew(lease, ttl).await
    }

    async fn release(&self, lease: &Lease, how: Release) -> Result<bool, BackendError> {
        self.inner.release(lease, how).await
    }

    fn watch(&self, key: &LeaseKey) -> Waiter {
        self.inner.watch(key)
    }

    async fn collect(&self, key: &LeaseKey, ticket: Ticket) -> Result<Option<Arc<Entry>>, BackendError> {
        self.inner.collect(key, ticket).await
    }
}

impl Records for Shifted {
    async fn load(&self, key: &RecordKey) -> Result<Option<Arc<Record>>, BackendError> {
        self.inner.load(key).await
    }

    async fn create(&self, create: Create<'_>) -> Result<Saved, BackendError> {
        self.inner.create(create).await
    }

    async fn commit(
        &self,
        key: &RecordKey,
        changes: Changes<'_>,
        expected: Option<u64>,
    ) -> Result<Saved, BackendError> {
        self.inner.commit_record(key, changes, expected).await
    }

    async fn touch(&self, key: &RecordKey) -> Result<bool, BackendError> {
        self.inner.touch(key).await
    }

    async fn destroy(&self, key: &RecordKey) -> Result<bool, BackendError> {
        self.inner.destroy(key).await
    }

    async fn cycle(&self, cycle: Cycle<'_>) -> Result<Saved, BackendError> {
        self.inner.cycle(cycle).await
    }

    async fn epoch(&self, user: &UserKey) -> Result<Epoch, BackendError> {
        self.inner.epoch(user).await
    }

    async fn revoke_all(&self, user: &UserKey) -> Result<u64, BackendError> {
        self.inner.revoke_all(user).await
    }

    async fn records_of(&self, user: &UserKey) -> Result<Vec<RecordKey>, BackendError> {
        self.inner.records_of(user).await
    }

    async fn map(&self, key: &MapKey) -> Result<MapSnapshot, BackendError> {
        self.inner.map(key).await
    }

    async fn change_map(&self, change: MapChange<'_>) -> Result<MapChanged, BackendError> {
        self.inner.change_map(change).await
    }

    async fn park_map(&self, key: &MapKey, ttl: Duration) -> Result<Option<MapSnapshot>, BackendError> {
        self.inner.park_map(key, ttl).await
    }

    async fn drop_parked(&self, key: &MapKey, version: u64) -> Result<bool, BackendError> {
        self.inner.drop_parked(key, version).await
    }
}

impl Limits for Shifted {
    async fn take(&self, takes: &[Take<'_>]) -> Result<Taken, BackendError> {
        self.inner.take(takes).await
    }

    async fn settle(&self, settle: Settle<'_>) -> Result<(), BackendError> {
        self.inner.settle(settle).await
    }
}
