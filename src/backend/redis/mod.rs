//! The Redis backend: one server, a master under Sentinel, or a Cluster.
//!
//! # Protocol
//! A hit is one `MGET` that reads the entry together with all that may have invalidated it; scripts run only when
//! something is written. The promise is that of [`Responses`]: a look-up never hands out a response whose origin
//! request began before an invalidation that had returned before the look-up began, whatever keys Redis loses and
//! whatever its clock shows. Look-ups of one bucket that begin while another one is under way are one `MGET`, too; each
//! has part only in what was sent after it began. Where this process has a long response already, a script that writes
//! nothing takes the place of the `MGET`: it says whether Redis still has the same
//! ([`RedisBuilder::near_cache`]).
//!
//! All keys of one bucket share a hash tag `{b}`; the bucket follows from the primary key. All numbers are
//! little-endian doubles, exact below 2⁵³; times are in microseconds, those of sessions in milliseconds.
//!
//! | key | content |
//! |---|---|
//! | `gh:{b}:c` | clock, 40 bytes: `tick, born, hard_inv, soft_inv, all_soft`; never expires |
//! | `gh:{b}:p:<primary>` | primary cell: `hard, soft`, how it varies, the variants committed last |
//! | `gh:{b}:t:<digest>` | tag cell: `hard, soft` |
//! | `gh:{b}:e:<primary>[:<variant>]` | entry |
//! | `gh:{b}:l:<primary>[:<variant>]` | lease (`lr` for revalidations) |
//! | `gh:{b}:h:<primary>[:<variant>]:<tick>` | handed over to those who wait, 5 s (`hr` for revalidations) |
//! | `gh:{b}:s:<random>` | a value on its way, until the commit renames it |
//! | `gh:{b}:n:<key>` | counters of a limit; expire when all is refilled |
//! | `gh:{b}:a` | written when it is waited for replicas, 60 s |
//! | `gh:{b}:w` | sharded channel; the message is the key of a lease that has ended |
//! | `gh:{0}:buckets` | the number of buckets, so that no process uses another one |
//!
//! `born` names a clock; it is compared for equality only. A look-up is a ticket: the tick and the birth of the clock,
//! read before the origin is asked. An entry counts only while the clock that issued its ticket is there, and while its
//! tick is not below any of its cells; an absent cell stands for the last invalidation of anything in the bucket. So
//! deleting any key at any time leads to misses only. The scripts in `lua/` say the rest.
//!
//! # Limits
//! Redis' clock stepping back can prolong freshness; it never breaks invalidation. A failover loses writes that were
//! acknowledged but not replicated, invalidations too; [`RedisBuilder::wait_for_replicas`] narrows that. Replicas are
//! not read, unless [`RedisBuilder::read_from_replicas`] says so. With `maxmemory` use `volatile-lru` or
//! `volatile-lfu`: all keys but the clocks and the number of buckets expire, so all may go that cost misses only (and
//! limits that begin anew). Under `allkeys-*` a clock may be evicted, and its whole bucket with it. Sessions and shared
//! maps need `noeviction`.

mod acks;
mod address;
mod breaker;
mod builder;
mod cells;
mod client;
mod connect;
mod credentials;
mod error;
mod fleet;
mod fullness;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod gate;
mod hints;
mod invalidate;
mod keys;
mod leases;
mod limits;
mod looks;
mod lookup;
mod malformed;
mod names;
mod near;
mod node;
mod probe;
mod rates;
mod records;
mod replicas;
mod reply;
mod responses;
mod script;
mod sentinel;
mod server_clock;
mod slots;
mod tls;
mod together;
mod wakeups;

pub use builder::RedisBuilder;
pub use credentials::Credential;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use futures_util::future;

use self::{
    builder::MakeSubscriber, client::Client, hints::Hints, looks::Looks, malformed::Malformed, near::NearCache,
    rates::Rates, records::Loads, wakeups::Wakeups,
};
use crate::{
    Timestamp,
    backend::{
        Acquire, Acquired, BackendError, CacheBackend, Commit, Committed, Discarded, Entry, InvalidateError, Lease,
        LeaseKey, Leases, Lookup, Mode, PrimaryKey, Release, Responses, Scope, Ticket, Variant, VaryOf, Waiter,
        denials::Denials,
    },
};

/// A [`CacheBackend`] on Redis; made by [`Backend::redis`](crate::Backend::redis).
pub(crate) struct RedisBackend {
    client: Client,
    looks: Looks,
    rates: Rates,
    loads: Loads,
    hints: Hints,
    wakeups: Wakeups,
    denials: Arc<Denials>,
    /// The newest tick of each bucket that an invalidation of this process has made.
    invalidated: Box<[AtomicU64]>,
    malformed: Malformed,
}

impl RedisBackend {
    fn new(client: Client, subscriber: MakeSubscriber, near: NearCache) -> Self {
        let wakeups = Wakeups::new(client.clone(), subscriber);
        if client.replicas().is_some() {
            tokio::spawn(replicas::keep_up(client.downgrade()));
        }
        let invalidated = client.keys().buckets().map(|_| AtomicU64::new(0)).collect();
        let malformed = Malformed::default();
        let (looks, rates) = (Looks::new(client.clone(), malformed.clone(), near), Rates::new(client.clone()));
        let loads = Loads::new(client.clone());
        Self {
            client,
            looks,
            rates,
            loads,
            hints: Hints::new(),
            wakeups,
            denials: Arc::new(Denials::new()),
            invalidated,
            malformed,
        }
    }
}

impl CacheBackend for RedisBackend {
    fn now(&self) -> Timestamp {
        self.client.now()
    }

    fn name(&self) -> &'static str {
        "redis"
    }

    async fn ping(&self) -> Result<(), BackendError> {
        let buckets = self.client.keys().buckets();
        let pings = buckets.map(|bucket| self.client.command(bucket, "PING", Vec::new(), self.client.timeout()));
        future::try_join_all(pings).await.map(drop)
    }
}

impl Responses for RedisBackend {
    async fn lookup(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> Result<Lookup, BackendError> {
        self.find(key, vary).await
    }

    async fn ticket(&self, key: &PrimaryKey) -> Result<Ticket, BackendError> {
        self.ask_ticket(key).await
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<Committed, BackendError> {
        self.store(commit).await
    }

    async fn discard(
        &self,
        key: &PrimaryKey,
        variant: Variant,
        ticket: Ticket,
        lease: Option<&Lease>,
    ) -> Result<Discarded, BackendError> {
        self.drop_entry(key, variant, ticket, lease).await
    }

    async fn invalidate(&self, scope: Scope<'_>, mode: Mode) -> Result<(), InvalidateError> {
        self.invalidate_all_of(scope, mode).await
    }
}

impl Leases for RedisBackend {
    async fn acquire(&self, acquire: Acquire<'_>) -> Result<Acquired, BackendError> {
        self.ask_lease(acquire).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, BackendError> {
        self.renew_lease(lease, ttl).await
    }

    async fn release(&self, lease: &Lease, how: Release) -> Result<bool, BackendError> {
        self.end_lease(lease, how).await
    }

    fn watch(&self, key: &LeaseKey) -> Waiter {
        self.wakeups.watch(key)
    }

    async fn collect(&self, key: &LeaseKey, ticket: Ticket) -> Result<Option<Arc<Entry>>, BackendError> {
        self.collect_handed_over(key, ticket).await
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("namespace", &self.client.keys().namespace())
            .field("buckets", &self.client.keys().buckets().len())
            .field("client", &self.client)
            .field("malformed", &self.malformed)
            .field("hints", &self.hints)
            .field("wakeups", &self.wakeups)
            .finish_non_exhaustive()
    }
}
