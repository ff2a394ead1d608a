//! The contract for stored responses: look up, commit, discard, invalidate.

use std::{fmt, future::Future, sync::Arc};

use bytes::Bytes;

use super::{BackendError, Entry, InvalidateError, Lease};
use crate::{TagDigest, Timestamp};

/// 16 bytes that name what was asked for: a hash of all that is keyed, made by the caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrimaryKey([u8; 16]);

impl PrimaryKey {
    /// The key that consists of these bytes. They must be spread evenly (a hash): stores shard by them.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for PrimaryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for PrimaryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrimaryKey({self})")
    }
}

/// Which of the responses of one primary key: 8 bytes derived from the request as the [`VarySpec`] says, or none
/// where the response does not vary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Variant(pub Option<[u8; 8]>);

/// How the variant follows from a request, in the caller's own encoding. "Does not vary" is a specification like any
/// other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VarySpec(Bytes);

impl VarySpec {
    /// The longest specification, in bytes.
    pub const MAX_LEN: usize = 1024;

    /// The response does not vary.
    pub const fn none() -> Self {
        Self(Bytes::from_static(b"-"))
    }

    /// A specification; neither empty nor longer than [`VarySpec::MAX_LEN`], else `None`.
    pub fn new(bytes: Bytes) -> Option<Self> {
        (1..=Self::MAX_LEN).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// Whether it says that the response does not vary.
    pub fn is_none(&self) -> bool {
        *self.0 == *b"-"
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The same in a buffer of its own: what was read from a socket is a part of a buffer that may be much longer.
    #[cfg(feature = "redis")]
    pub(in crate::backend) fn unshared(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

/// Tells the variant of the request at hand under a specification. Called once or twice in a look-up.
pub type VaryOf<'a> = dyn Fn(&VarySpec) -> Variant + Send + Sync + 'a;

/// A reading of a store's logical clock, below 2⁵³.
pub type Tick = u64;

/// The right to commit what the origin is asked for from now on: the store's clock, read **before** the origin is
/// asked.
///
/// An entry that was committed on a ticket is not handed out once something that it carries was invalidated after the
/// ticket was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The logical clock as it was read (F in the protocol).
    pub tick: Tick,
    /// The identity of that clock; compared for equality only.
    pub born: u64,
}

/// What a look-up found.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The right to commit an answer that is asked for after this look-up; `None` where the store has no clock for
    /// this key yet (get one with [`Responses::ticket`] or [`Leases::acquire`](super::Leases::acquire)).
    pub ticket: Option<Ticket>,
    /// The variant that the request selects as far as is known.
    pub variant: Variant,
    /// The entry, if there is a valid one.
    pub found: Option<Found>,
    /// The tick of the entry that was there, valid or not; 0 where there was none. For
    /// [`Acquire::since`](super::Acquire::since).
    pub since: Tick,
    /// The last invalidation, hard or soft, of anything that shares this key's clock, as it was read: a fill that is
    /// under way on a ticket of the same clock may be joined if its tick is at least this.
    pub floor: Tick,
}

/// An entry that may be handed out: not invalidated, not past [`Entry::keep_until`], of the right variant.
#[derive(Clone, Debug)]
pub struct Found {
    /// The entry.
    pub entry: Arc<Entry>,
    /// If it was softly invalidated: since when it counts as stale.
    pub stale_since: Option<Timestamp>,
}

/// A response to store.
#[derive(Clone, Debug)]
pub struct Commit<'a> {
    /// Its primary key.
    pub key: PrimaryKey,
    /// Which variant it is: that of its request under [`Entry::vary`].
    pub variant: Variant,
    /// The response.
    pub entry: Arc<Entry>,
    /// After a 304: the entry whose body goes on, under the new entry's head. The new entry carries the same body, has
    /// the ticket of the look-up that found the base, not a younger one, and the base's tags among its own: so what was
    /// invalidated since is told by them. Stored only while the base is what is stored, else [`Committed::Gone`].
    pub refresh: Option<&'a Entry>,
    /// The lease under which it was fetched; ended in the same step, whatever the outcome.
    pub lease: Option<&'a Lease>,
}

/// How a commit ended. Everything but `Stored` and `Refreshed` means that nothing was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Committed {
    /// It is stored, and visible to every look-up that begins from now on.
    Stored,
    /// The stored entry has the new head.
    Refreshed,
    /// An entry of the same ticket or a younger one is there.
    Superseded,
    /// The entry that was to be refreshed is not there any more.
    Gone,
    /// Something that it carries was invalidated after its ticket was read.
    Invalidated,
    /// It cannot be known whether it was invalidated; the next commit will be decided exactly.
    Unsure,
    /// The clock of the ticket is gone, or everything was invalidated.
    ClockLost,
}

impl Committed {
    /// A short name, for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Refreshed => "refreshed",
            Self::Superseded => "superseded",
            Self::Gone => "gone",
            Self::Invalidated => "invalidated",
            Self::Unsure => "unsure",
            Self::ClockLost => "clock-lost",
        }
    }
}

/// How a discard ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Discarded {
    /// Nothing as old as the ticket is stored now.
    Dropped,
    /// A younger entry is there and stays.
    Superseded,
    /// The clock of the ticket is gone: what it saw is unusable anyway.
    ClockLost,
}

/// What to invalidate.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Scope<'a> {
    /// All variants of these primary keys.
    Keys(&'a [PrimaryKey]),
    /// All entries that carry at least one of these tags.
    Tags(&'a [TagDigest]),
    /// Everything in the namespace.
    All,
}

/// How to invalidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Entries are gone.
    #[default]
    Hard,
    /// Entries become stale; they may be served while they are revalidated, where stale answers are allowed.
    Soft,
}

impl Mode {
    /// A short name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
        }
    }
}

/// Stored responses.
///
/// The promise: **a look-up never hands out a response whose origin request began before an invalidation that had
/// returned before the look-up began**, whatever the store forgets. A store may forget anything at any time; all that
/// may follow from it is misses.
///
/// All operations are cancel safe: a dropped future has happened wholly or not at all.
pub trait Responses {
    /// Finds the entry for a request, and is the ticket for fetching it.
    ///
    /// One round trip once the process has seen the key's specification and tags, at most three otherwise.
    fn lookup(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> impl Future<Output = Result<Lookup, BackendError>> + Send;

    /// The same as [`lookup`](Self::lookup), for stores that live in this process and need not wait for an answer:
    /// then a hit takes neither a future nor an allocation of its own. `now` is what the store's clock has just shown, or
    /// [about](super::CacheBackend::about_now) so.
    ///
    /// `None` where the store has to be asked; always, unless implemented.
    fn lookup_now(&self, key: &PrimaryKey, vary: &VaryOf<'_>, now: Timestamp) -> Option<Lookup> {
        let _ = (key, vary, now);
        None
    }

    /// A ticket without a look-up; creates the clock where there is none.
    fn ticket(&self, key: &PrimaryKey) -> impl Future<Output = Result<Ticket, BackendError>> + Send;

    /// Stores a response if its ticket is good: nothing that it carries was invalidated since, and no younger entry
    /// is there.
    ///
    /// Keeps at most [`MAX_VARIANTS`](Self::MAX_VARIANTS) variants of a primary key; one more displaces the one that
    /// was committed longest ago.
    fn commit(&self, commit: Commit<'_>) -> impl Future<Output = Result<Committed, BackendError>> + Send;

    /// Removes an entry unless it is younger than the ticket; the origin's newer answer must not be reused.
    fn discard(
        &self,
        key: &PrimaryKey,
        variant: Variant,
        ticket: Ticket,
        lease: Option<&Lease>,
    ) -> impl Future<Output = Result<Discarded, BackendError>> + Send;

    /// Invalidates. When it has returned `Ok`, no look-up that begins afterwards finds what was stored or asked for
    /// before. The number of steps does not depend on the number of entries.
    fn invalidate(&self, scope: Scope<'_>, mode: Mode) -> impl Future<Output = Result<(), InvalidateError>> + Send;

    /// The most variants of a primary key.
    const MAX_VARIANTS: usize = 16;
}
