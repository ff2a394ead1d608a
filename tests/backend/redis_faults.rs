//! Redis killed, frozen, full, read-only: what it costs, and that it passes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tower_gatehouse::{
    Backend, Tag,
    backend::{
        Acquire, Acquired, Commit, Committed, Entry, ErrorKind, LeaseKey, LeaseKind, Lookup, Mode, PrimaryKey, Release,
        Scope, Ticket, Variant, VarySpec,
    },
};

use crate::{
    redis::PATIENT,
    support::{RedisServer, until},
};

const KEY: PrimaryKey = PrimaryKey::from_bytes([1; 16]);
/// Where time-outs are what a test is about.
const TIMEOUT: Duration = Duration::from_millis(200);

async fn connect(server: &RedisServer) -> Backend {
    connect_with(server, PATIENT).await
}

async fn connect_with(server: &RedisServer, timeout: Duration) -> Backend {
    let backend = Backend::redis(server.url()).operation_timeout(timeout).connect().await.expect("a connection");
    until("it stores", || async { store(&backend, "body").await == Ok(Committed::Stored) }).await;
    backend
}

fn plain(_: &VarySpec) -> Variant {
    Variant(None)
}

async fn lookup(backend: &Backend) -> Result<Lookup, ErrorKind> {
    backend.lookup(&KEY, &plain).await.map_err(|error| error.kind())
}

fn entry(backend: &Backend, ticket: Ticket, body: &str) -> Arc<Entry> {
    let keep = backend.now().plus(Duration::from_mins(1));
    let body = Bytes::copy_from_slice(body.as_bytes());
    Entry::builder(ticket).fresh_until(keep).keep_until(keep).head(Bytes::from_static(b"head")).body(body).build()
}

async fn store(backend: &Backend, body: &str) -> Result<Committed, ErrorKind> {
    let ticket = backend.ticket(&KEY).await.map_err(|error| error.kind())?;
    let entry = entry(backend, ticket, body);
    let commit = Commit { key: KEY, variant: Variant(None), entry, refresh: None, lease: None };
    backend.commit(commit).await.map_err(|error| error.kind())
}

async fn recovered(backend: &Backend) {
    until("it recovers", || async { backend.ping().await.is_ok() }).await;
}

/// What the look-up finds, once it is answered.
async fn found(backend: &Backend) -> Option<Bytes> {
    let start = Instant::now();
    loop {
        match lookup(backend).await {
            Ok(lookup) => return lookup.found.map(|found| found.entry.body().clone()),
            Err(error) => assert!(is_outage(error) && start.elapsed() < Duration::from_mins(1), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_outage(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::Unavailable | ErrorKind::Timeout)
}

#[tokio::test]
async fn a_frozen_server_costs_one_timeout_a_call_until_the_breaker_opens_and_then_nothing() {
    let server = RedisServer::start();
    let backend = connect_with(&server, TIMEOUT).await;
    server.pause();
    let mut slow = 0;
    loop {
        let start = Instant::now();
        let error = lookup(&backend).await.expect_err("it is frozen");
        assert!(start.elapsed() < 25 * TIMEOUT, "{:?}", start.elapsed());
        if error == ErrorKind::Unavailable {
            break;
        }
        assert_eq!(error, ErrorKind::Timeout);
        slow += 1;
        assert!(slow <= 10, "the breaker does not open");
    }
    let start = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(lookup(&backend).await.expect_err("still frozen"), ErrorKind::Unavailable);
    }
    assert!(start.elapsed() < 25 * TIMEOUT, "next to nothing: {:?}", start.elapsed());
    let error = backend.invalidate(Scope::All, Mode::Hard).await.expect_err("an error, not a silent success");
    assert!(error.unreached().all(|(part, error)| part.contains("{0}") && error.is_outage()), "{error}");
    server.resume();
    recovered(&backend).await;
    assert!(found(&backend).await.is_some());
}

#[tokio::test]
async fn of_many_calls_at_once_on_a_frozen_server_none_waits_longer_than_one_timeout() {
    let server = RedisServer::start();
    let backend = connect_with(&server, TIMEOUT).await;
    server.pause();
    let start = Instant::now();
    let calls = (0..500).map(|_| {
        let backend = backend.clone();
        tokio::spawn(async move { lookup(&backend).await.expect_err("it is frozen") })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("no panic");
    }
    // One after the other they would take a hundred seconds.
    assert!(start.elapsed() < 50 * TIMEOUT, "{:?}", start.elapsed());
    server.resume();
    recovered(&backend).await;
}

#[tokio::test]
async fn a_killed_server_is_missed_at_once_and_found_again_when_it_is_back() {
    let mut server = RedisServer::start();
    let backend = connect_with(&server, TIMEOUT).await;
    server.kill();
    let start = Instant::now();
    for _ in 0..100 {
        let error = lookup(&backend).await.expect_err("it is dead");
        assert!(is_outage(error), "{error:?}");
    }
    assert!(start.elapsed() < 50 * TIMEOUT, "{:?}", start.elapsed());
    server.restart();
    recovered(&backend).await;
    assert_eq!(found(&backend).await, None, "it has saved nothing");
    until("it stores", || async { store(&backend, "new").await == Ok(Committed::Stored) }).await;
}

#[tokio::test]
async fn a_connection_that_is_cut_is_made_again() {
    let server = RedisServer::start();
    let backend = connect(&server).await;
    for _ in 0..5 {
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        recovered(&backend).await;
        assert!(found(&backend).await.is_some());
    }
}

#[tokio::test]
async fn a_full_server_serves_hits_and_invalidates_and_stores_nothing() {
    let server = RedisServer::builder().config("maxmemory-policy noeviction").start();
    let backend = connect(&server).await;
    let tag = Tag::new("tag").unwrap().digest();
    let ticket = lookup(&backend).await.expect("a look-up").ticket.expect("a ticket");
    let key = LeaseKey { key: KEY, variant: Variant(None), kind: LeaseKind::Fill };
    let acquire = Acquire { key, ttl: Duration::from_secs(10), since: ticket.tick, tags: &[] };
    let Acquired::Granted(lease) = backend.acquire(acquire).await.expect("a lease") else { panic!("not granted") };

    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let found = lookup(&backend).await.expect("a look-up").found.expect("hits go on");
    assert_eq!(found.entry.body(), "body");
    let entry = entry(&backend, lease.ticket, "next");
    let commit = Commit { key: KEY, variant: Variant(None), entry, refresh: None, lease: Some(&lease) };
    assert_eq!(backend.commit(commit).await.expect_err("no room").kind(), ErrorKind::Full);
    assert!(!backend.release(&lease, Release::Free).await.expect("works"), "the commit has ended the lease");
    assert_eq!(backend.acquire(acquire).await.expect_err("no room").kind(), ErrorKind::Full);
    assert_eq!(backend.ticket(&KEY).await.map_err(|error| error.kind()), Err(ErrorKind::Full));
    backend.invalidate(Scope::Tags(&[tag]), Mode::Hard).await.expect("invalidation works");
    backend.invalidate(Scope::Keys(&[KEY]), Mode::Hard).await.expect("invalidation works");
    assert!(lookup(&backend).await.expect("a look-up").found.is_none());

    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(store(&backend, "later").await, Ok(Committed::Stored));
}

#[tokio::test]
async fn a_read_only_server_serves_hits_and_refuses_to_invalidate() {
    let master = RedisServer::start();
    let server = RedisServer::start();
    let backend = connect(&server).await;
    // As after a failover: what was the master follows another one. It is asked before it has copied that one's data.
    master.pause();
    server.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    recovered(&backend).await;
    let mut refused = 0;
    for _ in 0..10 {
        assert_eq!(found(&backend).await.expect("hits go on"), "body");
        // On a slow machine it connects anew meanwhile, see below.
        let error = store(&backend, "next").await.expect_err("not stored");
        assert!(error == ErrorKind::ReadOnly || is_outage(error), "{error:?}");
        refused += u32::from(error == ErrorKind::ReadOnly);
        let error = backend.invalidate(Scope::Keys(&[KEY]), Mode::Hard).await.expect_err("not a silent success");
        let mut unreached = error.unreached();
        assert!(unreached.all(|(_, error)| error.kind() == ErrorKind::ReadOnly || error.is_outage()), "{error}");
    }
    assert!(refused > 0);
    server.command(&["REPLICAOF", "NO", "ONE"]);
    master.resume();
    until("it stores again", || async { store(&backend, "next").await == Ok(Committed::Stored) }).await;
}

/// Whether one who waits hears that the lease is given up. Not, where anything fails on the way.
pub(crate) async fn is_woken(holder: &Backend, waiter: &Backend, key: LeaseKey) -> bool {
    let acquire = Acquire { key, ttl: Duration::from_secs(10), since: 0, tags: &[] };
    let Ok(Acquired::Granted(lease)) = holder.acquire(acquire).await else { return false };
    // The first watch makes the connection.
    let mut woken = waiter.watch(&key);
    let held = matches!(waiter.acquire(acquire).await, Ok(Acquired::Held { .. }));
    holder.release(&lease, Release::Free).await.is_ok_and(|released| released)
        && held
        && woken.woken(Duration::from_secs(5)).await
}

#[tokio::test]
async fn wake_ups_are_heard_again_after_the_connection_was_lost() {
    let server = RedisServer::start();
    let (holder, waiter) = (connect(&server).await, connect(&server).await);
    let key = PrimaryKey::from_bytes([2; 16]);
    let key = LeaseKey { key, variant: Variant(None), kind: LeaseKind::Fill };
    for round in 0..3 {
        until(&format!("a wake-up is heard in round {round}"), || is_woken(&holder, &waiter, key)).await;
        server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn a_server_that_stays_read_only_is_connected_to_anew() {
    let master = RedisServer::start();
    let server = RedisServer::start();
    let backend = connect(&server).await;
    master.pause();
    server.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    recovered(&backend).await;
    let (before, start) = (server.clients(), Instant::now());
    // The name may stand for another server by now: a connection that was made when it did not is of no use.
    loop {
        let refused = store(&backend, "next").await.expect_err("read only");
        assert!(refused == ErrorKind::ReadOnly || is_outage(refused), "{refused:?}");
        let now = server.clients();
        if !now.is_empty() && now.iter().all(|id| !before.contains(id)) {
            break;
        }
        assert!(start.elapsed() < Duration::from_mins(1), "still {before:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(found(&backend).await.is_some());
    master.resume();
}
