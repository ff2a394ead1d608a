//! What a store must be able to do.

use std::{fmt, future::Future, time::Duration};

use bytes::Bytes;

use crate::{Timestamp, backend::BackendError};

/// A value with the version under which the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<V> {
    /// The value, as it was set.
    pub value: Bytes,
    /// Names this state of the key: what etcd calls `mod_revision`, Consul `ModifyIndex`, an object store `ETag`.
    pub version: V,
}

/// A store of small values with linearizable reads and compare-and-set; [`CasBackend`](super::CasBackend) makes a whole
/// backend of it.
///
/// Every operation bounds its own time and fails with [`ErrorKind::Timeout`](crate::backend::ErrorKind::Timeout) rather
/// than hang. Keys are at most 200 bytes of visible ASCII; values are at most what
/// [`max_value_bytes`](super::CasBackendBuilder::max_value_bytes) says. A dropped future has happened wholly or not
/// at all.
///
/// An error of `compare_and_set` or `delete` may mean that it happened (the reply was lost). The backend never repeats
/// one; it reads again.
pub trait CasStore: fmt::Debug + Send + Sync + 'static {
    /// Names a state of a key. A version never comes back: not after other changes, not after deletion or expiry.
    type Version: Clone + fmt::Debug + Send + Sync;

    /// The value. **Linearizable**: what was set, by whatever process, before this call began is seen, or something
    /// later. A read from a follower or a cache breaks every promise of the backend.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Versioned<Self::Version>>, BackendError>> + Send;

    /// Sets the value if the key is in the state `expected` (`None`: it is not there), in one step; `false`, and nothing
    /// done, if it is not. With `ttl` the value goes by itself, not before; a store with whole seconds rounds up. It may
    /// be lost earlier, too: what follows from it is what the contracts say of a store that forgets.
    fn compare_and_set(
        &self,
        key: &str,
        expected: Option<&Self::Version>,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<bool, BackendError>> + Send;

    /// Removes the value, whatever it is.
    fn delete(&self, key: &str) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// The time by which freshness, leases, sessions and limits are measured. All processes must come to about the same:
    /// the store's own clock if it tells one, else [`Timestamp::system`] on machines whose clocks are kept in step.
    /// Limits bear a second between any two. Invalidation does not depend on it.
    fn now(&self) -> Timestamp;

    /// A short name for logs and metrics.
    fn name(&self) -> &'static str;
}
