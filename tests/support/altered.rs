//! A store that does some things otherwise and hands everything else on: for tests that turn its clock, or that want to
//! see whether a fault is seen.

use std::{fmt, sync::Arc, time::Duration};

use tower_gatehouse::{
    Backend, Timestamp,
    backend::{
        Acquire, Acquired, BackendError, CacheBackend, Changes, Commit, Committed, Create, Cycle, Discarded, Entry,
        Epoch, InvalidateError, Lease, LeaseKey, Leases, Limits, Lookup, MapChange, MapChanged, MapKey, MapSnapshot,
        Mode, PrimaryKey, Record, RecordKey, Records, Release, Responses, Saved, Scope, Settle, Take, Taken, Ticket,
        UserKey, Variant, VaryOf, Waiter,
    },
};

/// What a store does otherwise; what is not said it hands on. What no test alters is not in here.
pub trait Alter: fmt::Debug + Send + Sync + 'static {
    /// The store that does the work.
    fn inner(&self) -> &Backend;

    fn now(&self) -> Timestamp {
        self.inner().now()
    }

    fn about_now(&self) -> Timestamp {
        self.now()
    }

    fn lookup(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> impl Future<Output = Result<Lookup, BackendError>> + Send {
        self.inner().lookup(key, vary)
    }

    /// Nothing is at hand, so that every look-up comes through `lookup`.
    fn lookup_now(&self, _: &PrimaryKey, _: &VaryOf<'_>, _: Timestamp) -> Option<Lookup> {
        None
    }

    fn commit(&self, commit: Commit<'_>) -> impl Future<Output = Result<Committed, BackendError>> + Send {
        self.inner().commit(commit)
    }

    fn discard(
        &self,
        key: &PrimaryKey,
        variant: Variant,
        ticket: Ticket,
        lease: Option<&Lease>,
    ) -> impl Future<Output = Result<Discarded, BackendError>> + Send {
        self.inner().discard(key, variant, ticket, lease)
    }

    fn invalidate(&self, scope: Scope<'_>, mode: Mode) -> impl Future<Output = Result<(), InvalidateError>> + Send {
        self.inner().invalidate(scope, mode)
    }

    fn acquire(&self, acquire: Acquire<'_>) -> impl Future<Output = Result<Acquired, BackendError>> + Send {
        self.inner().acquire(acquire)
    }

    fn watch(&self, key: &LeaseKey) -> Waiter {
        self.inner().watch(key)
    }

    fn take(&self, takes: &[Take<'_>]) -> impl Future<Output = Result<Taken, BackendError>> + Send {
        self.inner().take(takes)
    }

    fn settle(&self, settle: Settle<'_>) -> impl Future<Output = Result<(), BackendError>> + Send {
        self.inner().settle(settle)
    }
}

/// The store.
#[derive(Debug)]
pub struct Altered<A>(pub A);

impl<A: Alter> Responses for Altered<A> {
    async fn lookup(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> Result<Lookup, BackendError> {
        self.0.lookup(key, vary).await
    }

    fn lookup_now(&self, key: &PrimaryKey, vary: &VaryOf<'_>, now: Timestamp) -> Option<Lookup> {
        self.0.lookup_now(key, vary, now)
    }

    async fn ticket(&self, key: &PrimaryKey) -> Result<Ticket, BackendError> {
        self.0.inner().ticket(key).await
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<Committed, BackendError> {
        self.0.commit(commit).await
    }

    async fn discard(
        &self,
        key: &PrimaryKey,
        variant: Variant,
        ticket: Ticket,
        lease: Option<&Lease>,
    ) -> Result<Discarded, BackendError> {
        self.0.discard(key, variant, ticket, lease).await
    }

    async fn invalidate(&self, scope: Scope<'_>, mode: Mode) -> Result<(), InvalidateError> {
        self.0.invalidate(scope, mode).await
    }
}

impl<A: Alter> Leases for Altered<A> {
    async fn acquire(&self, acquire: Acquire<'_>) -> Result<Acquired, BackendError> {
        self.0.acquire(acquire).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, BackendError> {
        self.0.inner().renew(lease, ttl).await
    }

    async fn release(&self, lease: &Lease, how: Release) -> Result<bool, BackendError> {
        self.0.inner().release(lease, how).await
    }

    fn watch(&self, key: &LeaseKey) -> Waiter {
        self.0.watch(key)
    }

    async fn collect(&self, key: &LeaseKey, ticket: Ticket) -> Result<Option<Arc<Entry>>, BackendError> {
        self.0.inner().collect(key, ticket).await
    }
}

impl<A: Alter> Records for Altered<A> {
    async fn load(&self, key: &RecordKey) -> Result<Option<Arc<Record>>, BackendError> {
        self.0.inner().load(key).await
    }

    async fn create(&self, create: Create<'_>) -> Result<Saved, BackendError> {
        self.0.inner().create(create).await
    }

    async fn commit(
        &self,
        key: &RecordKey,
        changes: Changes<'_>,
        expected: Option<u64>,
    ) -> Result<Saved, BackendError> {
        self.0.inner().commit_record(key, changes, expected).await
    }

    async fn touch(&self, key: &RecordKey) -> Result<bool, BackendError> {
        self.0.inner().touch(key).await
    }

    async fn destroy(&self, key: &RecordKey) -> Result<bool, BackendError> {
        self.0.inner().destroy(key).await
    }

    async fn cycle(&self, cycle: Cycle<'_>) -> Result<Saved, BackendError> {
        self.0.inner().cycle(cycle).await
    }

    async fn epoch(&self, user: &UserKey) -> Result<Epoch, BackendError> {
        self.0.inner().epoch(user).await
    }

    async fn revoke_all(&self, user: &UserKey) -> Result<u64, BackendError> {
        self.0.inner().revoke_all(user).await
    }

    async fn records_of(&self, user: &UserKey) -> Result<Vec<RecordKey>, BackendError> {
        self.0.inner().records_of(user).await
    }

    async fn map(&self, key: &MapKey) -> Result<MapSnapshot, BackendError> {
        self.0.inner().map(key).await
    }

    async fn change_map(&self, change: MapChange<'_>) -> Result<MapChanged, BackendError> {
        self.0.inner().change_map(change).await
    }

    async fn park_map(&self, key: &MapKey, ttl: Duration) -> Result<Option<MapSnapshot>, BackendError> {
        self.0.inner().park_map(key, ttl).await
    }

    async fn drop_parked(&self, key: &MapKey, version: u64) -> Result<bool, BackendError> {
        self.0.inner().drop_parked(key, version).await
    }
}

impl<A: Alter> Limits for Altered<A> {
    async fn take(&self, takes: &[Take<'_>]) -> Result<Taken, BackendError> {
        self.0.take(takes).await
    }

    async fn settle(&self, settle: Settle<'_>) -> Result<(), BackendError> {
        self.0.settle(settle).await
    }
}

impl<A: Alter> CacheBackend for Altered<A> {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn about_now(&self) -> Timestamp {
        self.0.about_now()
    }

    fn name(&self) -> &'static str {
        self.0.inner().name()
    }

    async fn ping(&self) -> Result<(), BackendError> {
        self.0.inner().ping().await
    }
}
