//! The contract for leases: who of the fleet asks the origin, and how the others wait.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use super::{BackendError, Entry, PrimaryKey, Tick, Ticket, Variant, Waiter};
use crate::TagDigest;

/// What a lease is for. Leases of different kinds do not know of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LeaseKind {
    /// To fetch what is not there; the others wait.
    Fill,
    /// To revalidate in the background what is there; nobody waits.
    Revalidate,
}

/// What is leased: the fetching of one variant of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    /// The primary key.
    pub key: PrimaryKey,
    /// The variant as far as it is known.
    pub variant: Variant,
    /// What for.
    pub kind: LeaseKind,
}

/// Who holds a lease: 16 random bytes for each attempt.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner([u8; 16]);

impl Owner {
    /// A new owner.
    ///
    /// # Panics
    /// If the operating system has no random bytes.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        Self(bytes)
    }

    /// The owner that consists of these bytes, which a store has kept.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({:032x})", u128::from_be_bytes(self.0))
    }
}

/// A lease that was granted.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// What is leased.
    pub key: LeaseKey,
    /// To whom.
    pub owner: Owner,
    /// The ticket that came with it: younger than every ticket before it.
    pub ticket: Ticket,
}

/// Asks for a lease.
#[derive(Clone, Copy, Debug)]
pub struct Acquire<'a> {
    /// What to lease.
    pub key: LeaseKey,
    /// For how long, unless it is renewed.
    pub ttl: Duration,
    /// The tick of the entry that the caller saw and cannot use ([`Lookup::since`](super::Lookup::since)); a younger
    /// one answers [`Acquired::Filled`].
    pub since: Tick,
    /// Tags that the response is known to carry: remembered from now on, so that the commit can be decided exactly.
    pub tags: &'a [TagDigest],
}

/// The answer to [`Leases::acquire`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Acquired {
    /// The lease is the caller's.
    Granted(Lease),
    /// No lease is needed: the answer cannot be shared, everybody may fetch on this ticket.
    Uncacheable {
        /// The right to commit, should the answer have become cacheable.
        ticket: Ticket,
        /// For how long this is remembered.
        left: Duration,
    },
    /// A younger entry than [`Acquire::since`] is there: look up again.
    Filled,
    /// Somebody else is fetching. Wait, then look up or acquire again.
    Held {
        /// When the lease ends unless it is renewed.
        left: Duration,
        /// The holder's ticket, if nothing was invalidated since: what it hands over under this ticket
        /// ([`Leases::collect`]) is for the caller too.
        ticket: Option<Ticket>,
    },
    /// The origin failed a moment ago: serve stale or fail, do not fetch.
    Failed {
        /// For how long this is remembered.
        left: Duration,
    },
}

/// How a lease is given up without a commit.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Release {
    /// Cancelled, or nothing worth storing: the next one may fetch.
    Free,
    /// The answer cannot be shared: for this long, everybody fetches without waiting.
    Uncacheable(Duration),
    /// The origin failed: for this long, nobody fetches.
    Failed(Duration),
    /// The answer is not stored, but handed to those who wait and collect it within a few seconds.
    HandOver(Arc<Entry>),
}

/// Leases, at most one holder each at any time unless the store forgets them.
///
/// A lease only saves work; correctness rests on tickets. All operations are cancel safe in the sense that a dropped
/// future has happened wholly or not at all; a lease that was granted to a dropped future ends by itself.
pub trait Leases {
    /// Asks for a lease.
    fn acquire(&self, acquire: Acquire<'_>) -> impl Future<Output = Result<Acquired, BackendError>> + Send;

    /// Holds a lease for another `ttl` from now; `false` if it is not the caller's any more.
    fn renew(&self, lease: &Lease, ttl: Duration) -> impl Future<Output = Result<bool, BackendError>> + Send;

    /// Gives up a lease and wakes those who wait; `false` if it was not the caller's any more (then nothing changed).
    fn release(&self, lease: &Lease, how: Release) -> impl Future<Output = Result<bool, BackendError>> + Send;

    /// Listens for the end of a lease. Call it before [`acquire`](Self::acquire), so that nothing is missed between.
    ///
    /// Waking is a hint: it may come early, twice or (when a message was lost) not at all. Who waits bounds the wait
    /// and looks again.
    fn watch(&self, key: &LeaseKey) -> Waiter;

    /// What the holder handed over under this ticket, which must come from the caller's own [`Acquired::Held`].
    fn collect(
        &self,
        key: &LeaseKey,
        ticket: Ticket,
    ) -> impl Future<Output = Result<Option<Arc<Entry>>, BackendError>> + Send;
}
