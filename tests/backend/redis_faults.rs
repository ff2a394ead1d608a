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

use crate::support::RedisServer;

const KEY: PrimaryKey = PrimaryKey::from_bytes([1; 16]);
const TIMEOUT: Duration = Duration::from_millis(200);

async fn connect(server: &RedisServer) -> Backend {
    Backend::redis(server.url()).operation_timeout(TIMEOUT).connect().await.expect("a connection")
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

/// Looks every 20 ms whether the backend answers again.
async fn recovered(backend: &Backend) {
    let start = Instant::now();
    while backend.ping().await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(25), "it does not recover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_frozen_server_costs_one_timeout_a_call_until_the_breaker_opens_and_then_nothing() {
    let server = RedisServer::start();
    let backend = connect(&server).await;
    assert_eq!(store(&backend, "body").await, Ok(Committed::Stored));
    server.pause();
    let mut slow = 0;
    loop {
        let start = Instant::now();
        let error = lookup(&backend).await.expect_err("it is frozen");
        assert!(start.elapsed() < 5 * TIMEOUT, "{:?}", start.elapsed());
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
    assert!(start.elapsed() < Duration::from_millis(500), "next to nothing: {:?}", start.elapsed());
    let error = backend.invalidate(Scope::All, Mode::Hard).await.expect_err("an error, not a silent success");
    assert!(error.unreached().all(|(part, error)| part.contains("{0}") && error.is_outage()), "{error}");
    server.resume();
    recovered(&backend).await;
    assert!(lookup(&backend).await.expect("a look-up").found.is_some());
}

#[tokio::test]
async fn of_many_calls_at_once_on_a_frozen_server_none_waits_longer_than_one_timeout() {
    let server = RedisServer::start();
    let backend = connect(&server).await;
    server.pause();
    let start = Instant::now();
    let calls = (0..500).map(|_| {
        let backend = backend.clone();
        tokio::spawn(async move { lookup(&backend).await.expect_err("it is frozen") })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("no panic");
    }
    assert!(start.elapsed() < 5 * TIMEOUT, "{:?}", start.elapsed());
    server.resume();
    recovered(&backend).await;
}

#[tokio::test]
async fn a_killed_server_is_missed_at_once_and_found_again_when_it_is_back() {
    let mut server = RedisServer::start();
    let backend = connect(&server).await;
    assert_eq!(store(&backend, "body").await, Ok(Committed::Stored));
    server.kill();
    let start = Instant::now();
    for _ in 0..100 {
        let error = lookup(&backend).await.expect_err("it is dead");
        assert!(matches!(error, ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
    }
    assert!(start.elapsed() < 25 * TIMEOUT, "{:?}", start.elapsed());
    server.restart();
    recovered(&backend).await;
    assert!(lookup(&backend).await.expect("a look-up").found.is_none(), "it has saved nothing");
    assert_eq!(store(&backend, "new").await, Ok(Committed::Stored));
}

#[tokio::test]
async fn a_connection_that_is_cut_is_made_again() {
    let server = RedisServer::start();
    let backend = connect(&server).await;
    assert_eq!(store(&backend, "body").await, Ok(Committed::Stored));
    for _ in 0..5 {
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        recovered(&backend).await;
        assert!(lookup(&backend).await.expect("a look-up").found.is_some());
    }
}

#[tokio::test]
async fn a_full_server_serves_hits_and_invalidates_and_stores_nothing() {
    let server = RedisServer::builder().config("maxmemory-policy noeviction").start();
    let backend = connect(&server).await;
    let tag = Tag::new("tag").unwrap().digest();
    assert_eq!(store(&backend, "body").await, Ok(Committed::Stored));
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
    assert_eq!(store(&backend, "body").await, Ok(Committed::Stored));
    // As after a failover: what was the master follows another one. It is asked before it has copied that one's data.
    master.pause();
    server.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    recovered(&backend).await;
    for _ in 0..10 {
        let found = lookup(&backend).await.expect("a look-up").found.expect("hits go on");
        assert_eq!(found.entry.body(), "body");
        assert_eq!(store(&backend, "next").await, Err(ErrorKind::ReadOnly));
        let error = backend.invalidate(Scope::Keys(&[KEY]), Mode::Hard).await.expect_err("not a silent success");
        assert!(error.unreached().all(|(_, error)| error.kind() == ErrorKind::ReadOnly), "{error}");
    }
    server.command(&["REPLICAOF", "NO", "ONE"]);
    master.resume();
    assert_eq!(store(&backend, "next").await, Ok(Committed::Stored));
}

#[tokio::test]
async fn wake_ups_are_heard_again_after_the_connection_was_lost() {
    let server = RedisServer::start();
    let (holder, waiter) = (connect(&server).await, connect(&server).await);
    let key = LeaseKey { key: KEY, variant: Variant(None), kind: LeaseKind::Fill };
    let acquire = Acquire { key, ttl: Duration::from_secs(10), since: 0, tags: &[] };
    for round in 0..3 {
        recovered(&holder).await;
        recovered(&waiter).await;
        let Acquired::Granted(lease) = holder.acquire(acquire).await.expect("an answer") else { panic!("granted") };
        let mut woken = waiter.watch(&key);
        let Acquired::Held { .. } = waiter.acquire(acquire).await.expect("an answer") else { panic!("held") };
        assert!(holder.release(&lease, Release::Free).await.expect("an answer"));
        assert!(woken.woken(Duration::from_secs(5)).await, "round {round}");
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
    assert_eq!(store(&backend, "body").await, Ok(Committed::Stored));
    let ours = || {
        let list = server.command(&["CLIENT", "LIST", "TYPE", "normal"]).text();
        let asks_for_it = |line: &&str| !line.contains("cmd=client");
        let id = |line: &str| line.split([' ', '=']).nth(1).map(str::to_owned);
        list.lines().filter(asks_for_it).filter_map(id).collect::<Vec<_>>()
    };
    master.pause();
    server.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    recovered(&backend).await;
    let (before, start) = (ours(), Instant::now());
    // The name may stand for another server by now: a connection that was made when it did not is of no use.
    loop {
        let refused = store(&backend, "next").await.expect_err("read only");
        assert!(matches!(refused, ErrorKind::ReadOnly | ErrorKind::Unavailable), "{refused:?}");
        let now = ours();
        if !now.is_empty() && now.iter().all(|id| !before.contains(id)) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "still {before:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    recovered(&backend).await;
    assert!(lookup(&backend).await.expect("a look-up").found.is_some());
    master.resume();
}
