//! Where responses, leases, sessions and limits are kept.
//!
//! [`CacheBackend`] is the sum of small contracts, each in the terms of its job and each of its operations atomic.
//! [`Backend`] is the handle that the layers take.

mod blob;
pub mod cas;
#[cfg(feature = "test-util")]
pub mod conformance;
mod denials;
mod entry;
mod error;
mod handle;
mod leases;
mod limits;
#[cfg(feature = "memory")]
mod memory;
mod meter;
pub(crate) mod meters;
mod records;
#[cfg(feature = "redis")]
mod redis;
mod responses;
mod several;
mod shard;
mod term;
mod wait;
mod watched;

pub use cas::{CasBackend, CasBackendBuilder, CasStore, Versioned};
pub use entry::{Entry, EntryBuilder};
pub use error::{BackendError, ErrorKind, InvalidateError};
pub use handle::Backend;
pub use leases::{Acquire, Acquired, Lease, LeaseKey, LeaseKind, Leases, Owner, Release};
pub use limits::{Ask, Change, Level, Levels, Limit, LimitKey, Limits, Settle, Take, Taken, Verdict};
#[cfg(feature = "memory")]
pub use memory::{MemoryBackend, MemoryBackendBuilder};
pub use meter::Meter;
pub use records::{
    Changes, Create, Cycle, Epoch, Fields, Lifetime, Link, MapChange, MapChanged, MapKey, MapOp, MapOwner, MapSnapshot,
    OpId, Receipt, Record, RecordKey, Records, Saved, UserKey,
};
#[cfg(feature = "redis")]
pub use redis::{Credential, RedisBuilder};
pub use responses::{
    Commit, Committed, Discarded, Found, Lookup, Mode, PrimaryKey, Responses, Scope, Tick, Ticket, Variant, VaryOf,
    VarySpec,
};
pub use wait::{WaitMap, Waiter};

#[cfg(all(fuzzing, feature = "redis"))]
pub(crate) use redis::fuzz::reply as fuzz;

use std::{fmt, future::Future};

use crate::Timestamp;

/// A store that the layers can stand on: the sum of the contracts.
///
/// Implement it with `async fn` and hand it to [`Backend::custom`]. None of the operations has a default, because a
/// store that quietly does nothing breaks promises that users rely on. Every operation bounds its own time and fails
/// with [`ErrorKind::Timeout`] rather than hang.
///
/// The types of the contracts are exhaustive on purpose: another field or case is something that a store has to do, and
/// the compiler says so; so they change only with a new major version.
pub trait CacheBackend: Responses + Leases + Records + Limits + fmt::Debug + Send + Sync + 'static {
    /// The time on the clock that all processes which share this store go by. Costs no round trip.
    fn now(&self) -> Timestamp;

    /// The same on the same clock where some milliseconds do not matter, if that is cheaper to read: never later than
    /// [`now`](Self::now), and less than half a second earlier. [`Responses::lookup_now`] may be given it.
    fn about_now(&self) -> Timestamp {
        self.now()
    }

    /// A short name for logs and metrics, such as `memory` or `redis`.
    fn name(&self) -> &'static str;

    /// Whether the store answers.
    fn ping(&self) -> impl Future<Output = Result<(), BackendError>> + Send;
}
