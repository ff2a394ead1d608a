//! The one concrete handle to whatever store is behind it.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use super::{
    Acquire, Acquired, BackendError, CacheBackend, Changes, Commit, Committed, Create, Cycle, Discarded, Entry, Epoch,
    InvalidateError, Lease, LeaseKey, Lookup, MapChange, MapChanged, MapKey, MapSnapshot, Mode, PrimaryKey, Record,
    RecordKey, Release, Saved, Scope, Settle, Take, Taken, Ticket, UserKey, Variant, VaryOf, Waiter,
    watched::{Operation, Watched},
};
use crate::Timestamp;

/// A handle to a store; what the layers take. Clones are cheap and stand for the same store.
#[derive(Clone, Debug)]
pub struct Backend(Arc<Watched<dyn Erased>>);

impl Backend {
    /// A store of one's own.
    pub fn custom(backend: impl CacheBackend) -> Self {
        Self(Arc::new(Watched::new(backend)))
    }

    /// Whether both are handles to the same store.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// See [`CacheBackend::now`].
    pub fn now(&self) -> Timestamp {
        self.0.store().now()
    }

    /// See [`CacheBackend::about_now`].
    pub fn about_now(&self) -> Timestamp {
        self.0.store().about_now()
    }

    /// See [`CacheBackend::name`].
    pub fn name(&self) -> &'static str {
        self.0.store().name()
    }

    /// See [`CacheBackend::ping`].
    pub async fn ping(&self) -> Result<(), BackendError> {
        self.0.call(Operation::Ping, self.0.store().ping()).await
    }

    /// See [`Responses::lookup`](super::Responses::lookup).
    pub async fn lookup(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> Result<Lookup, BackendError> {
        self.0.call(Operation::Lookup, self.0.store().lookup(key, vary)).await
    }

    /// See [`Responses::lookup_now`](super::Responses::lookup_now).
    pub fn lookup_now(&self, key: &PrimaryKey, vary: &VaryOf<'_>, now: Timestamp) -> Option<Lookup> {
        self.0.store().lookup_now(key, vary, now)
    }

    /// See [`Responses::ticket`](super::Responses::ticket).
    pub async fn ticket(&self, key: &PrimaryKey) -> Result<Ticket, BackendError> {
        self.0.call(Operation::Ticket, self.0.store().ticket(key)).await
    }

    /// See [`Responses::commit`](super::Responses::commit).
    pub async fn commit(&self, commit: Commit<'_>) -> Result<Committed, BackendError> {
        self.0.call(Operation::Commit, self.0.store().commit(commit)).await
    }

    /// See [`Responses::discard`](super::Responses::discard).
    pub async fn discard(
        &self,
        key: &PrimaryKey,
        variant: Variant,
        ticket: Ticket,
        lease: Option<&Lease>,
    ) -> Result<Discarded, BackendError> {
        self.0.call(Operation::Discard, self.0.store().discard(key, variant, ticket, lease)).await
    }

    /// See [`Responses::invalidate`](super::Responses::invalidate).
    pub async fn invalidate(&self, scope: Scope<'_>, mode: Mode) -> Result<(), InvalidateError> {
        self.0.call(Operation::Invalidate, self.0.store().invalidate(scope, mode)).await
    }

    /// See [`Leases::acquire`](super::Leases::acquire).
    pub async fn acquire(&self, acquire: Acquire<'_>) -> Result<Acquired, BackendError> {
        self.0.call(Operation::Acquire, self.0.store().acquire(acquire)).await
    }

    /// See [`Leases::renew`](super::Leases::renew).
    pub async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, BackendError> {
        self.0.call(Operation::Renew, self.0.store().renew(lease, ttl)).await
    }

    /// See [`Leases::release`](super::Leases::release).
    pub async fn release(&self, lease: &Lease, how: Release) -> Result<bool, BackendError> {
        self.0.call(Operation::Release, self.0.store().release(lease, how)).await
    }

    /// See [`Leases::watch`](super::Leases::watch).
    pub fn watch(&self, key: &LeaseKey) -> Waiter {
        self.0.store().watch(key)
    }

    /// See [`Leases::collect`](super::Leases::collect).
    pub async fn collect(&self, key: &LeaseKey, ticket: Ticket) -> Result<Option<Arc<Entry>>, BackendError> {
        self.0.call(Operation::Collect, self.0.store().collect(key, ticket)).await
    }

    /// See [`Records::load`](super::Records::load).
    pub async fn load(&self, key: &RecordKey) -> Result<Option<Arc<Record>>, BackendError> {
        self.0.call(Operation::Load, self.0.store().load(key)).await
    }

    /// See [`Records::load_now`](super::Records::load_now).
    pub fn load_now(&self, key: &RecordKey) -> Option<Result<Option<Arc<Record>>, BackendError>> {
        self.0.store().load_now(key)
    }

    /// See [`Records::create`](super::Records::create).
    pub async fn create(&self, create: Create<'_>) -> Result<Saved, BackendError> {
        self.0.call(Operation::Create, self.0.store().create(create)).await
    }

    /// See [`Records::commit`](super::Records::commit).
    pub async fn commit_record(
        &self,
        key: &RecordKey,
        changes: Changes<'_>,
        expected: Option<u64>,
    ) -> Result<Saved, BackendError> {
        self.0.call(Operation::CommitRecord, self.0.store().commit_record(key, changes, expected)).await
    }

    /// See [`Records::touch`](super::Records::touch).
    pub async fn touch(&self, key: &RecordKey) -> Result<bool, BackendError> {
        self.0.call(Operation::Touch, self.0.store().touch(key)).await
    }

    /// See [`Records::destroy`](super::Records::destroy).
    pub async fn destroy(&self, key: &RecordKey) -> Result<bool, BackendError> {
        self.0.call(Operation::Destroy, self.0.store().destroy(key)).await
    }

    /// See [`Records::cycle`](super::Records::cycle).
    pub async fn cycle(&self, cycle: Cycle<'_>) -> Result<Saved, BackendError> {
        self.0.call(Operation::Cycle, self.0.store().cycle(cycle)).await
    }

    /// See [`Records::epoch`](super::Records::epoch).
    pub async fn epoch(&self, user: &UserKey) -> Result<Epoch, BackendError> {
        self.0.call(Operation::Epoch, self.0.store().epoch(user)).await
    }

    /// See [`Records::revoke_all`](super::Records::revoke_all).
    pub async fn revoke_all(&self, user: &UserKey) -> Result<u64, BackendError> {
        self.0.call(Operation::RevokeAll, self.0.store().revoke_all(user)).await
    }

    /// See [`Records::records_of`](super::Records::records_of).
    pub async fn records_of(&self, user: &UserKey) -> Result<Vec<RecordKey>, BackendError> {
        self.0.call(Operation::RecordsOf, self.0.store().records_of(user)).await
    }

    /// See [`Records::map`](super::Records::map).
    pub async fn map(&self, key: &MapKey) -> Result<MapSnapshot, BackendError> {
        self.0.call(Operation::Map, self.0.store().map(key)).await
    }

    /// See [`Records::change_map`](super::Records::change_map).
    pub async fn change_map(&self, change: MapChange<'_>) -> Result<MapChanged, BackendError> {
        self.0.call(Operation::ChangeMap, self.0.store().change_map(change)).await
    }

    /// See [`Records::park_map`](super::Records::park_map).
    pub async fn park_map(&self, key: &MapKey, ttl: Duration) -> Result<Option<MapSnapshot>, BackendError> {
        self.0.call(Operation::ParkMap, self.0.store().park_map(key, ttl)).await
    }

    /// See [`Records::drop_parked`](super::Records::drop_parked).
    pub async fn drop_parked(&self, key: &MapKey, version: u64) -> Result<bool, BackendError> {
        self.0.call(Operation::DropParked, self.0.store().drop_parked(key, version)).await
    }

    /// See [`Limits::take`](super::Limits::take).
    pub async fn take(&self, takes: &[Take<'_>]) -> Result<Taken, BackendError> {
        self.0.call(Operation::Take, self.0.store().take(takes)).await
    }

    /// See [`Limits::take_now`](super::Limits::take_now).
    pub fn take_now(&self, takes: &[Take<'_>]) -> Option<Taken> {
        self.0.store().take_now(takes)
    }

    /// See [`Limits::takes_plain_keys`](super::Limits::takes_plain_keys).
    pub fn takes_plain_keys(&self) -> bool {
        self.0.store().takes_plain_keys()
    }

    /// See [`Limits::settle`](super::Limits::settle).
    pub async fn settle(&self, settle: Settle<'_>) -> Result<(), BackendError> {
        self.0.call(Operation::Settle, self.0.store().settle(settle)).await
    }
}

type Boxed<'a, T, E = BackendError> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// The twin of [`CacheBackend`] that can be a trait object.
trait Erased: std::fmt::Debug + Send + Sync {
    fn now(&self) -> Timestamp;
    fn about_now(&self) -> Timestamp;
    fn name(&self) -> &'static str;
    fn ping(&self) -> Boxed<'_, ()>;
    fn lookup<'a>(&'a self, key: &'a PrimaryKey, vary: &'a VaryOf<'a>) -> Boxed<'a, Lookup>;
    fn lookup_now(&self, key: &PrimaryKey, vary: &VaryOf<'_>, now: Timestamp) -> Option<Lookup>;
    fn ticket<'a>(&'a self, key: &'a PrimaryKey) -> Boxed<'a, Ticket>;
    fn commit<'a>(&'a self, commit: Commit<'a>) -> Boxed<'a, Committed>;
    fn discard<'a>(
        &'a self,
        key: &'a PrimaryKey,
        variant: Variant,
        ticket: Ticket,
        lease: Option<&'a Lease>,
    ) -> Boxed<'a, Discarded>;
    fn invalidate<'a>(&'a self, scope: Scope<'a>, mode: Mode) -> Boxed<'a, (), InvalidateError>;
    fn acquire<'a>(&'a self, acquire: Acquire<'a>) -> Boxed<'a, Acquired>;
    fn renew<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> Boxed<'a, bool>;
    fn release<'a>(&'a self, lease: &'a Lease, how: Release) -> Boxed<'a, bool>;
    fn watch(&self, key: &LeaseKey) -> Waiter;
    fn collect<'a>(&'a self, key: &'a LeaseKey, ticket: Ticket) -> Boxed<'a, Option<Arc<Entry>>>;
    fn load<'a>(&'a self, key: &'a RecordKey) -> Boxed<'a, Option<Arc<Record>>>;
    fn load_now(&self, key: &RecordKey) -> Option<Result<Option<Arc<Record>>, BackendError>>;
    fn create<'a>(&'a self, create: Create<'a>) -> Boxed<'a, Saved>;
    fn commit_record<'a>(&'a self, key: &'a RecordKey, changes: Changes<'a>, expected: Option<u64>)
    -> Boxed<'a, Saved>;
    fn touch<'a>(&'a self, key: &'a RecordKey) -> Boxed<'a, bool>;
    fn destroy<'a>(&'a self, key: &'a RecordKey) -> Boxed<'a, bool>;
    fn cycle<'a>(&'a self, cycle: Cycle<'a>) -> Boxed<'a, Saved>;
    fn epoch<'a>(&'a self, user: &'a UserKey) -> Boxed<'a, Epoch>;
    fn revoke_all<'a>(&'a self, user: &'a UserKey) -> Boxed<'a, u64>;
    fn records_of<'a>(&'a self, user: &'a UserKey) -> Boxed<'a, Vec<RecordKey>>;
    fn map<'a>(&'a self, key: &'a MapKey) -> Boxed<'a, MapSnapshot>;
    fn change_map<'a>(&'a self, change: MapChange<'a>) -> Boxed<'a, MapChanged>;
    fn park_map<'a>(&'a self, key: &'a MapKey, ttl: Duration) -> Boxed<'a, Option<MapSnapshot>>;
    fn drop_parked<'a>(&'a self, key: &'a MapKey, version: u64) -> Boxed<'a, bool>;
    fn take<'a>(&'a self, takes: &'a [Take<'a>]) -> Boxed<'a, Taken>;
    fn take_now(&self, takes: &[Take<'_>]) -> Option<Taken>;
    fn takes_plain_keys(&self) -> bool;
    fn settle<'a>(&'a self, settle: Settle<'a>) -> Boxed<'a, ()>;
}

impl<B: CacheBackend> Erased for B {
    fn now(&self) -> Timestamp {
        CacheBackend::now(self)
    }

    fn about_now(&self) -> Timestamp {
        CacheBackend::about_now(self)
    }

    fn name(&self) -> &'static str {
        CacheBackend::name(self)
    }

    fn ping(&self) -> Boxed<'_, ()> {
        Box::pin(CacheBackend::ping(self))
    }

    fn lookup<'a>(&'a self, key: &'a PrimaryKey, vary: &'a VaryOf<'a>) -> Boxed<'a, Lookup> {
        Box::pin(super::Responses::lookup(self, key, vary))
    }

    fn lookup_now(&self, key: &PrimaryKey, vary: &VaryOf<'_>, now: Timestamp) -> Option<Lookup> {
        super::Responses::lookup_now(self, key, vary, now)
    }

    fn ticket<'a>(&'a self, key: &'a PrimaryKey) -> Boxed<'a, Ticket> {
        Box::pin(super::Responses::ticket(self, key))
    }

    fn commit<'a>(&'a self, commit: Commit<'a>) -> Boxed<'a, Committed> {
        Box::pin(super::Responses::commit(self, commit))
    }

    fn discard<'a>(
        &'a self,
        key: &'a PrimaryKey,
        variant: Variant,
        ticket: Ticket,
        lease: Option<&'a Lease>,
    ) -> Boxed<'a, Discarded> {
        Box::pin(super::Responses::discard(self, key, variant, ticket, lease))
    }

    fn invalidate<'a>(&'a self, scope: Scope<'a>, mode: Mode) -> Boxed<'a, (), InvalidateError> {
        Box::pin(super::Responses::invalidate(self, scope, mode))
    }

    fn acquire<'a>(&'a self, acquire: Acquire<'a>) -> Boxed<'a, Acquired> {
        Box::pin(super::Leases::acquire(self, acquire))
    }

    fn renew<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> Boxed<'a, bool> {
        Box::pin(super::Leases::renew(self, lease, ttl))
    }

    fn release<'a>(&'a self, lease: &'a Lease, how: Release) -> Boxed<'a, bool> {
        Box::pin(super::Leases::release(self, lease, how))
    }

    fn watch(&self, key: &LeaseKey) -> Waiter {
        super::Leases::watch(self, key)
    }

    fn collect<'a>(&'a self, key: &'a LeaseKey, ticket: Ticket) -> Boxed<'a, Option<Arc<Entry>>> {
        Box::pin(super::Leases::collect(self, key, ticket))
    }

    fn load<'a>(&'a self, key: &'a RecordKey) -> Boxed<'a, Option<Arc<Record>>> {
        Box::pin(super::Records::load(self, key))
    }

    fn load_now(&self, key: &RecordKey) -> Option<Result<Option<Arc<Record>>, BackendError>> {
        super::Records::load_now(self, key)
    }

    fn create<'a>(&'a self, create: Create<'a>) -> Boxed<'a, Saved> {
        Box::pin(super::Records::create(self, create))
    }

    fn commit_record<'a>(
        &'a self,
        key: &'a RecordKey,
        changes: Changes<'a>,
        expected: Option<u64>,
    ) -> Boxed<'a, Saved> {
        Box::pin(super::Records::commit(self, key, changes, expected))
    }

    fn touch<'a>(&'a self, key: &'a RecordKey) -> Boxed<'a, bool> {
        Box::pin(super::Records::touch(self, key))
    }

    fn destroy<'a>(&'a self, key: &'a RecordKey) -> Boxed<'a, bool> {
        Box::pin(super::Records::destroy(self, key))
    }

    fn cycle<'a>(&'a self, cycle: Cycle<'a>) -> Boxed<'a, Saved> {
        Box::pin(super::Records::cycle(self, cycle))
    }

    fn epoch<'a>(&'a self, user: &'a UserKey) -> Boxed<'a, Epoch> {
        Box::pin(super::Records::epoch(self, user))
    }

    fn revoke_all<'a>(&'a self, user: &'a UserKey) -> Boxed<'a, u64> {
        Box::pin(super::Records::revoke_all(self, user))
    }

    fn records_of<'a>(&'a self, user: &'a UserKey) -> Boxed<'a, Vec<RecordKey>> {
        Box::pin(super::Records::records_of(self, user))
    }

    fn map<'a>(&'a self, key: &'a MapKey) -> Boxed<'a, MapSnapshot> {
        Box::pin(super::Records::map(self, key))
    }

    fn change_map<'a>(&'a self, change: MapChange<'a>) -> Boxed<'a, MapChanged> {
        Box::pin(super::Records::change_map(self, change))
    }

    fn park_map<'a>(&'a self, key: &'a MapKey, ttl: Duration) -> Boxed<'a, Option<MapSnapshot>> {
        Box::pin(super::Records::park_map(self, key, ttl))
    }

    fn drop_parked<'a>(&'a self, key: &'a MapKey, version: u64) -> Boxed<'a, bool> {
        Box::pin(super::Records::drop_parked(self, key, version))
    }

    fn take<'a>(&'a self, takes: &'a [Take<'a>]) -> Boxed<'a, Taken> {
        Box::pin(super::Limits::take(self, takes))
    }

    fn take_now(&self, takes: &[Take<'_>]) -> Option<Taken> {
        super::Limits::take_now(self, takes)
    }

    fn takes_plain_keys(&self) -> bool {
        super::Limits::takes_plain_keys(self)
    }

    fn settle<'a>(&'a self, settle: Settle<'a>) -> Boxed<'a, ()> {
        Box::pin(super::Limits::settle(self, settle))
    }
}
