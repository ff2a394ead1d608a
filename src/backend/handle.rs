//! The one concrete handle to whatever store is behind it.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use super::{
    Acquire, Acquired, BackendError, CacheBackend, Commit, Committed, Discarded, Entry, InvalidateError, Lease,
    LeaseKey, Lookup, Mode, PrimaryKey, Release, Scope, Ticket, Variant, VaryOf, Waiter,
};
use crate::Timestamp;

/// A handle to a store; what the layers take. Clones are cheap and stand for the same store.
#[derive(Clone, Debug)]
pub struct Backend(Arc<dyn Erased>);

impl Backend {
    /// A store of one's own.
    pub fn custom(backend: impl CacheBackend) -> Self {
        Self(Arc::new(backend))
    }

    /// Whether both are handles to the same store.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// See [`CacheBackend::now`].
    pub fn now(&self) -> Timestamp {
        self.0.now()
    }

    /// See [`CacheBackend::name`].
    pub fn name(&self) -> &'static str {
        self.0.name()
    }

    /// See [`CacheBackend::ping`].
    pub async fn ping(&self) -> Result<(), BackendError> {
        self.0.ping().await
    }

    /// See [`Responses::lookup`](super::Responses::lookup).
    pub async fn lookup(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> Result<Lookup, BackendError> {
        self.0.lookup(key, vary).await
    }

    /// See [`Responses::ticket`](super::Responses::ticket).
    pub async fn ticket(&self, key: &PrimaryKey) -> Result<Ticket, BackendError> {
        self.0.ticket(key).await
    }

    /// See [`Responses::commit`](super::Responses::commit).
    pub async fn commit(&self, commit: Commit<'_>) -> Result<Committed, BackendError> {
        self.0.commit(commit).await
    }

    /// See [`Responses::discard`](super::Responses::discard).
    pub async fn discard(
        &self,
        key: &PrimaryKey,
        variant: Variant,
        ticket: Ticket,
        lease: Option<&Lease>,
    ) -> Result<Discarded, BackendError> {
        self.0.discard(key, variant, ticket, lease).await
    }

    /// See [`Responses::invalidate`](super::Responses::invalidate).
    pub async fn invalidate(&self, scope: Scope<'_>, mode: Mode) -> Result<(), InvalidateError> {
        self.0.invalidate(scope, mode).await
    }

    /// See [`Leases::acquire`](super::Leases::acquire).
    pub async fn acquire(&self, acquire: Acquire<'_>) -> Result<Acquired, BackendError> {
        self.0.acquire(acquire).await
    }

    /// See [`Leases::renew`](super::Leases::renew).
    pub async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, BackendError> {
        self.0.renew(lease, ttl).await
    }

    /// See [`Leases::release`](super::Leases::release).
    pub async fn release(&self, lease: &Lease, how: Release) -> Result<bool, BackendError> {
        self.0.release(lease, how).await
    }

    /// See [`Leases::watch`](super::Leases::watch).
    pub fn watch(&self, key: &LeaseKey) -> Waiter {
        self.0.watch(key)
    }

    /// See [`Leases::collect`](super::Leases::collect).
    pub async fn collect(&self, key: &LeaseKey, ticket: Ticket) -> Result<Option<Arc<Entry>>, BackendError> {
        self.0.collect(key, ticket).await
    }
}

type Boxed<'a, T, E = BackendError> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// The twin of [`CacheBackend`] that can be a trait object.
trait Erased: std::fmt::Debug + Send + Sync {
    fn now(&self) -> Timestamp;
    fn name(&self) -> &'static str;
    fn ping(&self) -> Boxed<'_, ()>;
    fn lookup<'a>(&'a self, key: &'a PrimaryKey, vary: &'a VaryOf<'a>) -> Boxed<'a, Lookup>;
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
}

impl<B: CacheBackend> Erased for B {
    fn now(&self) -> Timestamp {
        CacheBackend::now(self)
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
}
