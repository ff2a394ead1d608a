//! The embedded backend: all in this process, bounded by bytes.
//!
//! A look-up is one search in a sharded cache and takes no lock that a commit holds for long; an invalidation raises
//! one number for each tag or key, however many entries there are. Whatever is evicted or forgotten costs misses,
//! never a stale answer.

mod cells;
mod clock;
mod hand_over;
mod lease_table;
mod leases;
mod limits;
mod records;
mod responses;
mod store;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::{
    cells::Cells, clock::LogicalClock, hand_over::HandOvers, lease_table::LeaseTable, records::AllRecords, store::Store,
};
use super::{Backend, BackendError, CacheBackend, PrimaryKey, Responses, WaitMap, meters::Meters};
use crate::{TagDigest, TestClock, Timestamp, clock::Clock};

/// Keeps everything in this process. Clones share it.
///
/// Bounded: stored responses take at most [`max_bytes`](MemoryBackendBuilder::max_bytes), what is handed to waiting
/// requests an eighth of that in addition, sessions and shared maps at most
/// [`max_record_bytes`](MemoryBackendBuilder::max_record_bytes), and the bookkeeping of leases and invalidations a few
/// megabytes. Of the responses, what was used least goes first, and the variants of one key share a sixteenth of the
/// bytes. Live sessions and shared maps are never displaced: what has no room is refused, as
/// [`ErrorKind::Full`](super::ErrorKind::Full). Limits are counted for at most
/// [`max_limit_keys`](MemoryBackendBuilder::max_limit_keys); what was refilled goes first, then what was used least.
///
/// ```
/// use tower_gatehouse::{Backend, backend::MemoryBackend};
///
/// let backend = Backend::from(MemoryBackend::builder().max_bytes(256 << 20).build());
/// assert_eq!(backend.name(), "memory");
/// ```
#[derive(Clone)]
pub struct MemoryBackend(Arc<Inner>);

struct Inner {
    clock: Clock,
    pages: Pages,
    meters: Meters,
    records: AllRecords,
}

/// Stored responses and leases, which commit in one step.
struct Pages {
    clock: LogicalClock,
    store: Store,
    tags: Cells<TagDigest>,
    keys: Cells<PrimaryKey>,
    /// By key. Its lock is held by whoever writes one of its keys.
    leases: Box<[Mutex<LeaseTable>]>,
    handed: HandOvers,
    waits: WaitMap,
    max_entry_bytes: u64,
    max_record_bytes: u64,
}

const LEASE_SHARDS: usize = 64;

impl MemoryBackend {
    /// With the defaults: 64 MiB.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// To set limits.
    pub fn builder() -> MemoryBackendBuilder {
        MemoryBackendBuilder {
            max_bytes: 64 << 20,
            max_entry_bytes: None,
            max_record_bytes: 64 << 20,
            max_limit_keys: 1 << 18,
            clock: Clock::System,
        }
    }

    /// About how many bytes the stored responses take at present.
    pub fn bytes(&self) -> u64 {
        self.0.pages.store.weight()
    }

    /// About how many bytes sessions and shared maps take at present.
    pub fn record_bytes(&self) -> u64 {
        self.0.records.bytes()
    }

    /// For how many keys limits are counted at present.
    pub fn limit_keys(&self) -> usize {
        self.0.meters.len()
    }

    /// Forgets bookkeeping, as a store that loses keys would; for the conformance kit.
    #[cfg(feature = "test-util")]
    pub fn lose(&self, what: super::conformance::Loss) {
        use super::conformance::Loss;

        let pages = &self.0.pages;
        let is = |loss| what == loss || what == Loss::Everything;
        if is(Loss::Clock) {
            pages.clock.born_again(pages.clock.advance(self.0.clock.now()));
        }
        if is(Loss::KeyCells) {
            pages.keys.forget();
        }
        if is(Loss::TagCells) {
            pages.tags.forget();
        }
        if is(Loss::Entries) {
            pages.store.clear();
        }
        if is(Loss::Leases) {
            pages.leases.iter().for_each(|shard| lock(shard).forget());
        }
        if is(Loss::HandOvers) {
            pages.handed.forget();
        }
        if what == Loss::Everything {
            self.0.meters.forget();
        }
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl CacheBackend for MemoryBackend {
    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    fn about_now(&self) -> Timestamp {
        self.0.clock.about_now()
    }

    fn name(&self) -> &'static str {
        "memory"
    }

    async fn ping(&self) -> Result<(), BackendError> {
        Ok(())
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("bytes", &self.bytes())
            .field("max_bytes", &self.0.pages.store.capacity())
            .finish_non_exhaustive()
    }
}

impl Backend {
    /// Everything in this process, at most 64 MiB of responses; see [`MemoryBackend`].
    pub fn memory() -> Self {
        MemoryBackend::new().into()
    }

    /// The same on a clock that a test turns.
    pub fn memory_with(clock: &TestClock) -> Self {
        MemoryBackend::builder().clock(clock).build().into()
    }
}

impl From<MemoryBackend> for Backend {
    fn from(backend: MemoryBackend) -> Self {
        Self::custom(backend)
    }
}

/// Settings of a [`MemoryBackend`].
#[derive(Clone, Debug)]
#[must_use]
pub struct MemoryBackendBuilder {
    max_bytes: u64,
    max_entry_bytes: Option<u64>,
    max_record_bytes: u64,
    max_limit_keys: usize,
    clock: Clock,
}

impl MemoryBackendBuilder {
    /// The most bytes that stored responses take, with their bookkeeping; 64 MiB by default, 64 KiB at least.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// The most bytes that one response takes, with its head counted twice and its bookkeeping; a 32nd of
    /// [`max_bytes`](Self::max_bytes) by default (2 MiB), a 16th at most.
    ///
    /// Larger ones are refused with [`ErrorKind::TooLarge`](super::ErrorKind::TooLarge), so that they do not displace
    /// everything else.
    pub fn max_entry_bytes(mut self, bytes: u64) -> Self {
        self.max_entry_bytes = Some(bytes);
        self
    }

    /// The most bytes that sessions and shared maps take, with their bookkeeping; 64 MiB by default. When they are
    /// full of live ones, new ones are refused with [`ErrorKind::Full`](super::ErrorKind::Full); none is displaced.
    pub fn max_record_bytes(mut self, bytes: u64) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    /// The most keys whose limits are counted; 262,144 by default, which take at most 25 MiB.
    pub fn max_limit_keys(mut self, keys: usize) -> Self {
        self.max_limit_keys = keys;
        self
    }

    /// A clock that a test turns.
    pub fn clock(mut self, clock: &TestClock) -> Self {
        self.clock = Clock::Test(clock.clone());
        self
    }

    /// Done.
    pub fn build(self) -> MemoryBackend {
        let max_bytes = self.max_bytes.max(64 << 10);
        let max_record_bytes = store::max_record(max_bytes);
        let most = max_record_bytes - store::Record::OVERHEAD;
        MemoryBackend(Arc::new(Inner {
            pages: Pages {
                clock: LogicalClock::new(self.clock.now()),
                store: store::new(max_bytes),
                tags: Cells::new(),
                keys: Cells::new(),
                leases: (0..LEASE_SHARDS).map(|_| Mutex::default()).collect(),
                handed: HandOvers::new(max_bytes / 8),
                waits: WaitMap::default(),
                max_entry_bytes: self.max_entry_bytes.unwrap_or(max_bytes / 32).min(most),
                max_record_bytes,
            },
            records: AllRecords::new(self.max_record_bytes),
            meters: Meters::new(self.max_limit_keys, self.clock.clone()),
            clock: self.clock,
        }))
    }
}

impl Pages {
    const MAX_VARIANTS: usize = MemoryBackend::MAX_VARIANTS;

    fn shard(&self, key: &PrimaryKey) -> &Mutex<LeaseTable> {
        &self.leases[usize::from(key.as_bytes()[0]) % LEASE_SHARDS]
    }
}

/// Every critical section leaves its data whole, so what a panic left behind can be used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
