//! Any store with linearizable reads and compare-and-set becomes a backend: etcd, Consul, `DynamoDB`, a table with a
//! version column.
//!
//! Implement [`CasStore`], three operations on small values, and wrap it in [`CasBackend`]: responses, leases, sessions,
//! shared maps and limits then keep the same contracts as the built-in backends, and the
//! [conformance kit](crate::backend::conformance) shows it.
//!
//! ```
//! use std::{collections::HashMap, sync::{Mutex, atomic::{AtomicU64, Ordering}}, time::{Duration, Instant}};
//! use bytes::Bytes;
//! use tower_gatehouse::{
//!     Backend, Timestamp,
//!     backend::{BackendError, CasBackend, CasStore, PrimaryKey, Variant, VarySpec, Versioned},
//! };
//!
//! /// In place of a client for a real store.
//! #[derive(Debug, Default)]
//! struct Table {
//!     rows: Mutex<HashMap<String, (Versioned<u64>, Option<Instant>)>>,
//!     versions: AtomicU64,
//! }
//!
//! impl CasStore for Table {
//!     type Version = u64;
//!
//!     async fn get(&self, key: &str) -> Result<Option<Versioned<u64>>, BackendError> {
//!         let rows = self.rows.lock().unwrap();
//!         let live = rows.get(key).filter(|(_, ends)| ends.is_none_or(|ends| ends > Instant::now()));
//!         Ok(live.map(|(row, _)| row.clone()))
//!     }
//!
//!     async fn compare_and_set(
//!         &self,
//!         key: &str,
//!         expected: Option<&u64>,
//!         value: Bytes,
//!         ttl: Option<Duration>,
//!     ) -> Result<bool, BackendError> {
//!         let mut rows = self.rows.lock().unwrap();
//!         let live = rows.get(key).filter(|(_, ends)| ends.is_none_or(|ends| ends > Instant::now()));
//!         if live.map(|(row, _)| &row.version) != expected {
//!             return Ok(false);
//!         }
//!         // Never the same version twice, also after a delete.
//!         let version = self.versions.fetch_add(1, Ordering::Relaxed);
//!         rows.insert(key.to_owned(), (Versioned { value, version }, ttl.map(|ttl| Instant::now() + ttl)));
//!         Ok(true)
//!     }
//!
//!     async fn delete(&self, key: &str) -> Result<(), BackendError> {
//!         self.rows.lock().unwrap().remove(key);
//!         Ok(())
//!     }
//!
//!     fn now(&self) -> Timestamp {
//!         Timestamp::system()
//!     }
//!
//!     fn name(&self) -> &'static str {
//!         "table"
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BackendError> {
//! let backend = Backend::from(CasBackend::builder(Table::default()).namespace("shop").build());
//! let key = PrimaryKey::from_bytes([7; 16]);
//! let ticket = backend.ticket(&key).await?;
//! let lookup = backend.lookup(&key, &|_: &VarySpec| Variant::default()).await?;
//! assert_eq!((lookup.ticket, lookup.found.is_none()), (Some(ticket), true));
//! # Ok(()) }
//! ```
//!
//! # What it costs
//! A hit is two reads at the same time (the entry, the bucket), or three where the response varies. A commit is two or
//! three compare-and-sets and a last read, a lease two (four where the clock of its bucket was moved on meanwhile), an
//! invalidation one for each bucket that is concerned and a read, a limit and a change of a session one. Every ten seconds
//! a process reads whether it is set up as the others. Of those who change one value at the same time one succeeds; the
//! others read again. Who waits for another process polls.
//!
//! # How it keeps the promise
//! One value for each bucket holds its clock and what was invalidated last, so that an invalidation is one step and a
//! look-up that reads the bucket sees all that was invalidated before. The ticket of a fill is the clock as it was read.
//! A commit judges its ticket, writes the entry, and judges once more before it says
//! [`Stored`](crate::backend::Committed::Stored); an entry counts only while the bucket in which it was asked for lives,
//! whose birth is random. What the bucket forgets because it is full counts as invalidated. So whatever the store loses,
//! and whatever the clocks show, leads to misses only. What has to be alike in all processes, the number of buckets, is
//! written down, too; where that is lost and processes with another number come first, those that were there find out
//! within ten seconds.

mod agreement;
mod bucket;
mod codec;
mod leases;
mod limits;
mod names;
mod records;
mod responses;
mod store;

pub use store::{CasStore, Versioned};

use std::{fmt, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::Mutex;

use self::names::Names;
use super::{Backend, BackendError, CacheBackend, ErrorKind, WaitMap, denials::Denials};
use crate::{Timestamp, bounds::within};

/// Makes a backend of a [`CasStore`]; clones share it.
///
/// [`Backend`] is made from it. All processes that share a namespace of the store should be set up alike.
pub struct CasBackend<S>(Arc<Inner<S>>);

struct Inner<S> {
    store: S,
    names: Names,
    agreed: agreement::Agreed,
    timeout: Duration,
    max_value_bytes: usize,
    hints: responses::Hints,
    waits: WaitMap,
    polled: leases::Polled,
    denials: Arc<Denials>,
    /// Callers of this process change one value one after the other, and do not race each other at the store.
    turns: [Mutex<()>; TURNS],
}

const TURNS: usize = 64;
const BUCKETS: u16 = 16;
const TIMEOUT: Duration = Duration::from_secs(1);
const MAX_VALUE_BYTES: usize = 512 << 10;
/// What was removed in one step is an empty value for so long.
const REMOVED: Duration = Duration::from_secs(1);
/// The longest pause before a value is read again that somebody else has changed meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

impl<S: CasStore> CasBackend<S> {
    /// A backend on this store, with the defaults.
    pub fn new(store: S) -> Self {
        Self::builder(store).build()
    }

    /// To set it up.
    pub fn builder(store: S) -> CasBackendBuilder<S> {
        CasBackendBuilder {
            store,
            namespace: "gh".into(),
            buckets: BUCKETS,
            timeout: TIMEOUT,
            max_value_bytes: MAX_VALUE_BYTES,
        }
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.0.store
    }
}

/// Settings of a [`CasBackend`].
#[derive(Clone, Debug)]
#[must_use]
pub struct CasBackendBuilder<S> {
    store: S,
    namespace: String,
    buckets: u16,
    timeout: Duration,
    max_value_bytes: usize,
}

impl<S: CasStore> CasBackendBuilder<S> {
    /// What all keys begin with; default `gh`. In place of one that is not of 1 to 64 ASCII letters, digits, `-`, `_` and
    /// `.`, its hash is used.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Over how many values the bookkeeping is spread, 1 to 1024; default 16. With more of them, fills of different keys
    /// get less into each other's way; an invalidation of tags changes all of them. A process with another number than
    /// the rest of its namespace does nothing with responses ([`ErrorKind::Config`]); a new number needs a new namespace.
    /// It is looked at every 10 seconds and with each invalidation.
    pub fn buckets(mut self, buckets: u16) -> Self {
        self.buckets = within("buckets", buckets, 1..=1024);
        self
    }

    /// The longest that an operation may take; default 1 s.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The longest value that the store takes, in bytes; default 512 KiB, 64 KiB at least. Longer responses are not
    /// stored ([`ErrorKind::TooLarge`]); sessions and shared maps that do not fit are refused ([`ErrorKind::Full`]). All
    /// sessions of a user are in one value, with those of the few others who have the same home (one of 65,536): forty
    /// full ones fill it, and the next login is refused, so set fewer as
    /// [`max_sessions_per_user`](crate::session::SessionLayer::max_sessions_per_user) where sessions are large.
    pub fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.max_value_bytes = bytes.max(64 << 10);
        self
    }

    /// Done.
    pub fn build(self) -> CasBackend<S> {
        CasBackend(Arc::new(Inner {
            store: self.store,
            names: Names::new(&self.namespace, self.buckets),
            agreed: agreement::Agreed::default(),
            timeout: self.timeout,
            max_value_bytes: self.max_value_bytes,
            hints: responses::Hints::default(),
            waits: WaitMap::default(),
            polled: leases::Polled::default(),
            denials: Arc::new(Denials::new()),
            turns: std::array::from_fn(|_| Mutex::default()),
        }))
    }
}

impl<S: CasStore> From<CasBackend<S>> for Backend {
    fn from(backend: CasBackend<S>) -> Self {
        Self::custom(backend)
    }
}

/// What to do with a value that was read.
enum Step<T> {
    /// Leave it.
    Keep(T),
    /// Set it.
    Set(Bytes, Option<Duration>, T),
    /// Remove it.
    Remove(T),
}

impl<S: CasStore> Inner<S> {
    /// Reads a value; one that was removed is not there.
    async fn read(&self, key: &str) -> Result<Option<Bytes>, BackendError> {
        Ok(self.store.get(key).await?.map(|there| there.value).filter(|value| !value.is_empty()))
    }

    /// Changes a value in one step; `step` is called once for each attempt.
    async fn change<T>(
        &self,
        key: &str,
        mut step: impl FnMut(Option<&Bytes>) -> Result<Step<T>, BackendError>,
    ) -> Result<T, BackendError> {
        let _turn = self.turns[turn(key)].lock().await;
        let mut pause = Duration::from_micros(500);
        loop {
            let there = self.store.get(key).await?;
            let value = there.as_ref().map(|there| &there.value).filter(|value| !value.is_empty());
            let (value, ttl, then) = match step(value)? {
                Step::Keep(then) => return Ok(then),
                Step::Set(value, ttl, then) => (value, ttl, then),
                Step::Remove(then) if there.is_none() => return Ok(then),
                Step::Remove(then) => (Bytes::new(), Some(REMOVED), then),
            };
            if self.store.compare_and_set(key, there.as_ref().map(|there| &there.version), value, ttl).await? {
                return Ok(then);
            }
            // Another process was first. The caller's timeout bounds the loop.
            tokio::time::sleep(pause.mul_f64(jitter())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The same for what has to do with buckets.
    async fn agreed<T>(&self, operation: impl Future<Output = Result<T, BackendError>>) -> Result<T, BackendError> {
        let agreed = async {
            self.agree().await?;
            operation.await
        };
        self.timed(agreed).await
    }

    /// Within the time that an operation may take.
    async fn timed<T>(&self, operation: impl Future<Output = Result<T, BackendError>>) -> Result<T, BackendError> {
        let late = |_| Err(BackendError::new(ErrorKind::Timeout, "the store did not answer in time"));
        tokio::time::timeout(self.timeout, operation).await.unwrap_or_else(late)
    }

    fn now(&self) -> Timestamp {
        self.store.now()
    }
}

fn turn(key: &str) -> usize {
    let hash = key.bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    hash % TURNS
}

/// Between a half and one and a half.
fn jitter() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX) + 0.5
}

impl<S: CasStore> CacheBackend for CasBackend<S> {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn name(&self) -> &'static str {
        self.0.store.name()
    }

    async fn ping(&self) -> Result<(), BackendError> {
        self.0.timed(self.0.agree_now()).await
    }
}

impl<S> Clone for CasBackend<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: CasStore> fmt::Debug for CasBackend<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CasBackend")
            .field("store", &self.0.store)
            .field("namespace", &self.0.names.namespace())
            .field("buckets", &self.0.names.buckets())
            .finish_non_exhaustive()
    }
}
