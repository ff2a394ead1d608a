//! A backend that counts how often it is asked: what a request costs in round trips.

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

/// A backend, counted.
#[derive(Debug)]
pub(crate) struct Counted {
    inner: Backend,
    calls: Arc<AtomicU64>,
}

impl Counted {
    /// The same backend, and how often it has been asked.
    pub(crate) fn around(inner: Backend) -> (Backend, Arc<AtomicU64>) {
        let calls = Arc::default();
        (Backend::custom(Self { inner, calls: Arc::clone(&calls) }), calls)
    }

    fn counted(&self) -> &Backend {
        self.calls.fetch_add(1, Ordering::Relaxed);
        &self.inner
    }
}

impl CacheBackend for Counted {
    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn ping(&self) -> Result<(), BackendError> {
        self.counted().ping().await
    }
}

impl Responses for Counted {
    async fn lookup(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> Result<Lookup, BackendError> {
        self.counted().lookup(key, vary).await
    }

    async fn ticket(&self, key: &PrimaryKey) -> Result<Ticket, BackendError> {
        self.counted().ticket(key).await
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<Committed, BackendError> {
        self.counted().commit(commit).await
    }

    async fn discard(
        &self,
        key: &PrimaryKey,
        variant: Variant,
        ticket: Ticket,
        lease: Option<&Lease>,
    ) -> Result<Discarded, BackendError> {
        self.counted().discard(key, variant, ticket, lease).await
    }

    async fn invalidate(&self, scope: Scope<'_>, mode: Mode) -> Result<(), InvalidateError> {
        self.counted().invalidate(scope, mode).await
    }
}

impl Leases for Counted {
    async fn acquire(&self, acquire: Acquire<'_>) -> Result<Acquired, BackendError> {
        self.counted().acquire(acquire).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, BackendError> {
        self.counted().renew(lease, ttl).await
    }

    async fn release(&self, lease: &Lease, how: Release) -> Result<bool, BackendError> {
        self.counted().release(lease, how).await
    }

    fn watch(&self, key: &LeaseKey) -> Waiter {
        self.inner.watch(key)
    }

    async fn collect(&self, key: &LeaseKey, ticket: Ticket) -> Result<Option<Arc<Entry>>, BackendError> {
        self.counted().collect(key, ticket).await
    }
}

impl Records for Counted {
    async fn load(&self, key: &RecordKey) -> Result<Option<Arc<Record>>, BackendError> {
        self.counted().load(key).await
    }

    async fn create(&self, create: Create<'_>) -> Result<Saved, BackendError> {
        self.counted().create(create).await
    }

    async fn commit(
        &self,
        key: &RecordKey,
        changes: Changes<'_>,
        expected: Option<u64>,
    ) -> Result<Saved, BackendError> {
        self.counted().commit_record(key, changes, expected).await
    }

    async fn touch(&self, key: &RecordKey) -> Result<bool, BackendError> {
        self.counted().touch(key).await
    }

    async fn destroy(&self, key: &RecordKey) -> Result<bool, BackendError> {
        self.counted().destroy(key).await
    }

    async fn cycle(&self, cycle: Cycle<'_>) -> Result<Saved, BackendError> {
        self.counted().cycle(cycle).await
    }

    async fn epoch(&self, user: &UserKey) -> Result<Epoch, BackendError> {
        self.counted().epoch(user).await
    }

    async fn revoke_all(&self, user: &UserKey) -> Result<u64, BackendError> {
        self.counted().revoke_all(user).await
    }

    async fn records_of(&self, user: &UserKey) -> Result<Vec<RecordKey>, BackendError> {
        self.counted().records_of(user).await
    }

    async fn map(&self, key: &MapKey) -> Result<MapSnapshot, BackendError> {
        self.counted().map(key).await
    }

    async fn change_map(&self, change: MapChange<'_>) -> Result<MapChanged, BackendError> {
        self.counted().change_map(change).await
    }

    async fn park_map(&self, key: &MapKey, ttl: Duration) -> Result<Option<MapSnapshot>, BackendError> {
        self.counted().park_map(key, ttl).await
    }

    async fn drop_parked(&self, key: &MapKey, version: u64) -> Result<bool, BackendError> {
        self.counted().drop_parked(key, version).await
    }
}

impl Limits for Counted {
    async fn take(&self, takes: &[Take<'_>]) -> Result<Taken, BackendError> {
        self.counted().take(takes).await
    }

    async fn settle(&self, settle: Settle<'_>) -> Result<(), BackendError> {
        self.counted().settle(settle).await
    }
}
