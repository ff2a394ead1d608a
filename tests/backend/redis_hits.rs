//! Redis: what a look-up costs, and what values that are none of ours do.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tower_gatehouse::{
    Backend, Tag, Timestamp,
    backend::{Commit, Committed, Entry, Lookup, Mode, PrimaryKey, Scope, Ticket, Variant, VarySpec},
};

use crate::{redis::PATIENT, support::RedisServer};

const KEY: PrimaryKey = PrimaryKey::from_bytes([0xab; 16]);

async fn connect(server: &RedisServer) -> Backend {
    Backend::redis(server.url())
        .operation_timeout(PATIENT)
        .limit_timeout(PATIENT)
        .connect()
        .await
        .expect("a connection")
}

/// Varies by one byte of the request, or not at all.
fn vary(request: u8) -> impl Fn(&VarySpec) -> Variant + Send + Sync {
    move |spec| Variant((!spec.is_none()).then_some([request; 8]))
}

async fn lookup(backend: &Backend, request: u8) -> Lookup {
    backend.lookup(&KEY, &vary(request)).await.expect("a look-up")
}

fn entry(backend: &Backend, ticket: Ticket, spec: &VarySpec, tags: &[&str], body: &str) -> Arc<Entry> {
    let now = backend.now();
    Entry::builder(ticket)
        .fresh_until(now.plus(Duration::from_mins(1)))
        .keep_until(now.plus(Duration::from_mins(2)))
        .vary(spec.clone())
        .tags(tags.iter().map(|tag| Tag::new(tag).unwrap().digest()))
        .head(Bytes::from_static(b"head"))
        .body(Bytes::copy_from_slice(body.as_bytes()))
        .build()
}

async fn fill(backend: &Backend, request: u8, spec: &VarySpec, tags: &[&str], body: &str) {
    let ticket = backend.ticket(&KEY).await.expect("a ticket");
    let entry = entry(backend, ticket, spec, tags, body);
    let variant = vary(request)(spec);
    let commit = Commit { key: KEY, variant, entry, refresh: None, lease: None };
    assert_eq!(backend.commit(commit).await.expect("a commit"), Committed::Stored);
}

fn varying() -> VarySpec {
    VarySpec::new(Bytes::from_static(b"accept-encoding")).unwrap()
}

/// The commands that the server counted for one look-up, which must hit.
async fn cost_of_a_hit(server: &RedisServer, backend: &Backend, request: u8) -> Vec<(String, u64)> {
    server.reset_stats();
    assert!(lookup(backend, request).await.found.is_some(), "a hit");
    let stats = server.commandstats();
    // TIME is asked in the background, every ten seconds.
    stats.data().into_iter().filter(|(name, _)| *name != "time").map(|(name, n)| (name.to_owned(), n)).collect()
}

#[tokio::test]
async fn a_hit_is_exactly_one_mget() {
    let server = RedisServer::start();
    let filler = connect(&server).await;
    fill(&filler, 1, &varying(), &["product:1", "catalogue", "prices"], "body").await;
    let one = [("mget".to_owned(), 1)];
    assert_eq!(cost_of_a_hit(&server, &filler, 1).await, one, "who has stored it");

    let reader = connect(&server).await;
    let first = cost_of_a_hit(&server, &reader, 1).await;
    assert_eq!(first, [("mget".to_owned(), 3)], "the first time, how it varies and its tags are not known");
    for _ in 0..3 {
        assert_eq!(cost_of_a_hit(&server, &reader, 1).await, one, "from then on");
    }
    fill(&filler, 2, &varying(), &["product:1"], "other").await;
    assert_eq!(cost_of_a_hit(&server, &reader, 2).await, [("mget".to_owned(), 2)], "the tags of another variant");
    assert_eq!(cost_of_a_hit(&server, &reader, 2).await, one);
}

#[tokio::test]
async fn what_neither_varies_nor_has_tags_is_one_mget_at_once() {
    let server = RedisServer::start();
    fill(&connect(&server).await, 1, &VarySpec::none(), &[], "body").await;
    let reader = connect(&server).await;
    assert_eq!(cost_of_a_hit(&server, &reader, 1).await, [("mget".to_owned(), 1)]);
}

#[tokio::test]
async fn misses_and_writes_cost_what_is_promised() {
    let server = RedisServer::start();
    let backend = connect(&server).await;
    fill(&backend, 1, &VarySpec::none(), &["a", "b"], "body").await;
    server.reset_stats();
    let ticket = lookup(&backend, 1).await.ticket.expect("a clock");
    let entry = entry(&backend, ticket, &VarySpec::none(), &["a", "b"], "next");
    let commit = Commit { key: KEY, variant: Variant(None), entry, refresh: None, lease: None };
    assert_eq!(backend.commit(commit).await.unwrap(), Committed::Stored);
    let stats = server.commandstats();
    assert_eq!((stats.calls("evalsha"), stats.calls("eval")), (1, 0));
    assert_eq!(stats.calls("mget"), 2, "the look-up, and the script reads its cells");

    server.reset_stats();
    let tags: Vec<_> = (0..1_000).map(|n| Tag::new(format!("t{n}")).unwrap().digest()).collect();
    backend.invalidate(Scope::Tags(&tags), Mode::Hard).await.expect("an invalidation");
    assert_eq!(server.commandstats().calls("evalsha"), 1, "one call for up to a thousand tags");
}

#[tokio::test]
async fn all_keys_are_readable_in_the_namespace_and_all_but_the_clock_expire() {
    let server = RedisServer::start();
    let backend = Backend::redis(server.url())
        .namespace("shop")
        .operation_timeout(PATIENT)
        .connect()
        .await
        .expect("a connection");
    fill(&backend, 7, &varying(), &["a"], "body").await;
    for key in server.keys() {
        assert!(key.starts_with("shop:{0}:"), "{key}");
        let kept = server.command(&["PTTL", &key]).integer() == -1;
        assert_eq!(kept, key.ends_with("}:c") || key.ends_with(":buckets"), "{key}");
    }
    let hex = "ab".repeat(16);
    assert!(server.keys().contains(&format!("shop:{{0}}:p:{hex}")), "{:?}", server.keys());
}

/// Every key of the entry, as bytes.
fn keys(server: &RedisServer) -> Vec<Vec<u8>> {
    let reply = server.command(&["KEYS", "gh:{0}:*"]);
    let keys = reply.array().iter().map(|key| key.bytes().unwrap().to_vec());
    keys.filter(|key| !key.ends_with(b":buckets")).collect()
}

#[tokio::test]
async fn wrong_types_at_any_key_are_misses_and_overwritten() {
    let server = RedisServer::start();
    let backend = connect(&server).await;
    fill(&backend, 1, &varying(), &["tag"], "body").await;
    for key in keys(&server) {
        for wrong in [&["HSET", "f", "v"][..], &["RPUSH", "v"], &["SADD", "v"]] {
            server.command(&[b"DEL", &key[..]]);
            let mut command: Vec<&[u8]> = wrong.iter().map(|word| word.as_bytes()).collect();
            command.insert(1, &key);
            server.command(&command);
            // No error; and after one fill more that may be unsure, all is well again.
            lookup(&backend, 1).await;
            refill(&backend).await;
            let found = lookup(&backend, 1).await.found.expect("overwritten");
            assert_eq!(found.entry.body(), "again");
            backend.invalidate(Scope::All, Mode::Hard).await.expect("an invalidation");
            assert!(lookup(&backend, 1).await.found.is_none());
            refill(&backend).await;
        }
    }
}

async fn refill(backend: &Backend) {
    for _ in 0..2 {
        let ticket = backend.ticket(&KEY).await.expect("a ticket");
        let entry = entry(backend, ticket, &varying(), &["tag"], "again");
        let commit = Commit { key: KEY, variant: vary(1)(&varying()), entry, refresh: None, lease: None };
        match backend.commit(commit).await.expect("a commit") {
            Committed::Stored => return,
            Committed::Unsure | Committed::Superseded => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn truncated_and_damaged_values_are_misses_and_overwritten() {
    let server = RedisServer::start();
    let backend = connect(&server).await;
    let mut state = 0x5eed_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    fill(&backend, 1, &varying(), &["tag"], "body").await;
    for round in 0..150 {
        for key in keys(&server) {
            let Some(value) = server.command(&[b"GET", &key[..]]).bytes().map(<[u8]>::to_vec) else { continue };
            let mut damaged = value.clone();
            let is_entry = key.starts_with(b"gh:{0}:e:");
            if round % 2 == 0 {
                damaged.truncate(random(value.len()));
            } else if is_entry {
                // Up to the end of the head; the body is checked by who encoded it.
                let ours = value.windows(4).position(|window| window == b"head").unwrap() + 4;
                damaged[random(ours)] ^= 1 << random(8);
            } else {
                continue;
            }
            server.command(&[b"SET", &key[..], &damaged, b"KEEPTTL"]);
            let after = lookup(&backend, 1).await;
            if is_entry {
                assert!(after.found.is_none(), "round {round}: {damaged:?}");
            }
            refill(&backend).await;
            assert_eq!(lookup(&backend, 1).await.found.expect("overwritten").entry.body(), "again", "round {round}");
        }
    }
    assert!(!format!("{backend:?}").contains("malformed: 0"), "they are counted: {backend:?}");
}

#[tokio::test]
async fn a_clock_of_nonsense_is_replaced() {
    let server = RedisServer::start();
    let backend = connect(&server).await;
    fill(&backend, 1, &varying(), &["tag"], "body").await;
    for number in [f64::NAN, f64::INFINITY, -1.0, 0.5, 1e300] {
        server.command(&[&b"SET"[..], b"gh:{0}:c", &[number.to_le_bytes(); 5].concat()]);
        let lookup = lookup(&backend, 1).await;
        assert!(lookup.ticket.is_none() && lookup.found.is_none(), "{number}");
        backend.invalidate(Scope::All, Mode::Soft).await.expect("nothing to do");
        refill(&backend).await;
        assert!(self::lookup(&backend, 1).await.found.is_some(), "{number}");
    }
}

#[tokio::test]
async fn the_server_s_clock_is_the_one_that_counts() {
    let server = RedisServer::start();
    let (one, two) = (connect(&server).await, connect(&server).await);
    let before = [one.now(), two.now()];
    let reply = server.command(&["TIME"]);
    let part = |i: usize| reply.array()[i].text().parse::<u64>().unwrap();
    let theirs = Timestamp::from_micros(part(0) * 1_000_000 + part(1));
    let second = Duration::from_secs(1);
    for (backend, before) in [&one, &two].into_iter().zip(before) {
        let after = backend.now();
        assert!(before <= theirs.plus(second) && theirs <= after.plus(second), "{before:?} {theirs:?} {after:?}");
    }
}

#[tokio::test]
async fn scripts_are_loaded_again_after_script_flush_and_no_call_fails() {
    let server = RedisServer::start();
    let backend = connect(&server).await;
    for round in 0..20 {
        server.command(&["SCRIPT", "FLUSH"]);
        fill(&backend, 1, &VarySpec::none(), &["a"], "body").await;
        server.command(&["SCRIPT", "FLUSH"]);
        backend.invalidate(Scope::All, Mode::Soft).await.expect("an invalidation");
        assert!(lookup(&backend, 1).await.found.is_some_and(|found| found.stale_since.is_some()), "round {round}");
    }
}
