//! Sentinels: connecting to them, and masters that are replaced.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tower_gatehouse::{
    Backend,
    backend::{
        BackendError, Commit, Committed, Credential, Entry, ErrorKind, LeaseKey, LeaseKind, Mode, PrimaryKey,
        RedisBuilder, Scope, Variant, VarySpec,
    },
};

use crate::{
    redis_faults::is_woken,
    support::{RedisSentinel, RedisServer, Reply, ports::Port, tls::Authority, until},
};

const TIMEOUT: Duration = Duration::from_millis(500);
/// What a failover may take on a busy machine: Sentinel itself needs several seconds.
const LIMIT: Duration = Duration::from_mins(1);

fn builder(set: &RedisSentinel) -> RedisBuilder {
    Backend::redis(set.url()).operation_timeout(TIMEOUT)
}

async fn connect(set: &RedisSentinel) -> Backend {
    builder(set).connect().await.expect("a connection")
}

fn key(n: u8) -> PrimaryKey {
    PrimaryKey::from_bytes([n; 16])
}

fn plain(_: &VarySpec) -> Variant {
    Variant(None)
}

async fn stored(backend: &Backend, n: u8) -> Option<Bytes> {
    let lookup = backend.lookup(&key(n), &plain).await.ok()?;
    Some(lookup.found?.entry.body().clone())
}

async fn fill(backend: &Backend, n: u8, body: &'static str) -> Result<Committed, BackendError> {
    let ticket = backend.ticket(&key(n)).await?;
    let keep = backend.now().plus(Duration::from_mins(10));
    let entry = Entry::builder(ticket).fresh_until(keep).keep_until(keep).body(Bytes::from_static(body.as_bytes()));
    let commit = Commit { key: key(n), variant: Variant(None), entry: entry.build(), refresh: None, lease: None };
    backend.commit(commit).await
}

async fn until_filled(backend: &Backend, n: u8, body: &'static str) {
    until("it is stored", || async { matches!(fill(backend, n, body).await, Ok(Committed::Stored)) }).await;
}

async fn until_found(backend: &Backend, n: u8, body: &str) {
    until("it is found", || async { stored(backend, n).await.is_some_and(|found| found == body) }).await;
}

/// How many connections other than the replicas' and the Sentinels' a server has: those of this process's clients.
fn clients(server: &RedisServer) -> usize {
    // A server that changes its role cuts connections, this one, too.
    let Ok(Reply::Bytes(list)) = server.try_command(&["CLIENT", "LIST", "TYPE", "normal"]) else { return usize::MAX };
    let list = String::from_utf8_lossy(&list);
    list.lines().filter(|line| !line.contains("name=sentinel-") && !line.contains("cmd=client|list")).count()
}

async fn refused(builder: RedisBuilder) -> BackendError {
    builder.connect().await.expect_err("this must be refused")
}

#[track_caller]
fn assert_says(error: &BackendError, kind: ErrorKind, words: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(words.iter().all(|word| text.contains(word)), "{text:?} does not say {words:?}");
    assert!(!text.contains('\n') && text.len() < 250, "{text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_sentinels_is_said_in_one_sentence() {
    let server = RedisServer::start();
    let place = format!("127.0.0.1:{}", server.port());
    let error = refused(Backend::redis(format!("redis-sentinel://{place}?sentinelServiceName=main"))).await;
    assert_says(&error, ErrorKind::Config, &["the Sentinel at", &place, "is none: use redis://"]);
    let gone = Port::reserve();
    let gone = gone.number();
    let error = refused(Backend::redis(format!("redis-sentinel://127.0.0.1:{gone}?sentinelServiceName=main"))).await;
    assert_says(&error, ErrorKind::Unavailable, &["cannot reach the Sentinel at", &format!("127.0.0.1:{gone}")]);

    let set = RedisSentinel::start_with_passwords("sesame", "simsim");
    let sentinel = format!("127.0.0.1:{}", set.sentinels()[0].port());
    let right = || builder(&set).password("sesame").sentinel_credential(Credential::password("simsim"));
    assert_says(
        &refused(builder(&set).password("sesame")).await,
        ErrorKind::Denied,
        &["the Sentinel at", &sentinel, "wants a password"],
    );
    assert_says(
        &refused(right().sentinel_credential(Credential::password("sesame"))).await,
        ErrorKind::Denied,
        &["the Sentinel at", &sentinel, "does not accept the user name and password"],
    );
    let master = format!("Redis at 127.0.0.1:{}", set.servers()[0].port());
    assert_says(&refused(right().password("simsim")).await, ErrorKind::Denied, &[&master, "does not accept"]);
    let other = set.url().replace("sentinelServiceName=main", "sentinelServiceName=other");
    let other = Backend::redis(other).password("sesame").sentinel_credential(Credential::password("simsim"));
    assert_says(&refused(other).await, ErrorKind::Config, &[&sentinel, "knows no master other"]);
    let asked = Backend::redis(format!("redis://:simsim@{sentinel}"));
    assert_says(&refused(asked).await, ErrorKind::Config, &[&sentinel, "is a Sentinel: use redis-sentinel://"]);

    let backend = right().connect().await.expect("the right passwords");
    until_filled(&backend, 1, "body").await;
    assert!(!format!("{backend:?}").contains("sesame") && !format!("{backend:?}").contains("simsim"));
    let url = set.url().replace("//", "//:sesame@") + "&sentinelPassword=simsim";
    let backend = Backend::redis(url).connect().await.expect("the passwords from the URL");
    until_found(&backend, 1, "body").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sentinel_is_enough_to_find_the_others_and_one_that_is_dead_or_frozen_does_not_matter() {
    let mut set = RedisSentinel::start();
    let [first, second] = [0, 1].map(|index| set.sentinels()[index].port());
    let url = |port| format!("redis-sentinel://127.0.0.1:{port}?sentinelServiceName=main");
    let backend = Backend::redis(url(first)).operation_timeout(TIMEOUT).connect().await.expect("a connection");
    until_filled(&backend, 1, "body").await;
    set.sentinel_mut(0).kill();
    let old = set.master_by(1);
    set.fail_over_by(1);
    until("nobody talks to the old master", || async { clients(&set.servers()[old]) == 0 }).await;
    until_filled(&backend, 2, "new").await;
    // A new process whose first Sentinel is dead, and whose second is frozen.
    set.sentinels()[1].pause();
    let url = format!("{}&node=127.0.0.1:{second}&node=127.0.0.1:{}", url(first), set.sentinels()[2].port());
    let start = Instant::now();
    let backend = loop {
        match Backend::redis(&url).operation_timeout(TIMEOUT).connect().await {
            Ok(backend) => break backend,
            // There are a few seconds for all of it, and the frozen one takes some of them.
            Err(error) => assert!(start.elapsed() < LIMIT, "the third one tells: {error}"),
        }
    };
    until_found(&backend, 2, "new").await;
    set.sentinels()[1].resume();
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_sentinels_and_servers_are_asked_and_a_failover_is_followed() {
    let authority = Authority::new();
    let set = RedisSentinel::start_secure(|builder, port| authority.secure(builder, port));
    let error = refused(Backend::redis(set.url())).await;
    assert_says(&error, ErrorKind::Config, &["the TLS handshake with the Sentinel at 127.0.0.1:"]);
    let backend = builder(&set).tls_ca(authority.pem()).wait_for_replicas(1, Duration::from_secs(5));
    let backend = backend.connect().await.expect("a connection");
    until_filled(&backend, 1, "body").await;
    until("a replica has it", || async { backend.invalidate(Scope::All, Mode::Hard).await.is_ok() }).await;
    let new = set.fail_over();
    // The old one takes fills, too, until it is left.
    until("fills go to the new master", || async {
        matches!(fill(&backend, 2, "new").await, Ok(Committed::Stored)) && clients(&set.servers()[new]) > 0
    })
    .await;
    assert_eq!(stored(&backend, 1).await, None);
    // Nobody came to the port that is not secured, but for this test.
    let plain = format!("laddr=127.0.0.1:{} ", set.servers()[new].port());
    let list = set.servers()[new].command(&["CLIENT", "LIST", "TYPE", "normal"]).text();
    assert!(list.lines().filter(|line| line.contains(&plain)).all(|line| line.contains("cmd=client|list")), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_is_asked_for_is_followed_and_wake_ups_with_it() {
    let set = RedisSentinel::start();
    let (holder, waiter) = (connect(&set).await, connect(&set).await);
    let lease = LeaseKey { key: key(1), variant: Variant(None), kind: LeaseKind::Fill };
    for round in 0..2 {
        for backend in [&holder, &waiter] {
            until_filled(backend, 2, "body").await;
        }
        // After a failover the listener follows within some seconds.
        until(&format!("a wake-up is heard in round {round}"), || is_woken(&holder, &waiter, lease)).await;
        let old = set.master();
        if round == 0 {
            set.fail_over();
            until("everybody has left the old master", || async { clients(&set.servers()[old]) == 0 }).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_killed_or_frozen_is_replaced_and_invalidations_are_errors_until_then() {
    for frozen in [false, true] {
        let mut set = RedisSentinel::start();
        let backend = connect(&set).await;
        until_filled(&backend, 1, "body").await;
        let old = set.master();
        set.elect_soon();
        if frozen {
            set.servers()[old].pause();
        } else {
            set.server_mut(old).kill();
        }
        let start = Instant::now();
        let error = backend.invalidate(Scope::All, Mode::Hard).await.expect_err("not a silent success");
        assert!(start.elapsed() < 25 * TIMEOUT, "{:?}", start.elapsed());
        assert!(error.unreached().all(|(_, error)| error.is_outage()), "{error}");
        let new = set.wait_for_other_master(old);
        until("invalidations reach the new master", || async {
            backend.invalidate(Scope::All, Mode::Hard).await.is_ok()
        })
        .await;
        assert_eq!(stored(&backend, 1).await, None, "what was invalidated is gone");
        until_filled(&backend, 1, "new").await;
        assert_eq!(set.servers()[new].command(&["EXISTS", "gh:{0}:c"]).integer(), 1);
        // The old master comes back, still taking itself for one until the Sentinels tell it: nobody listens to it.
        if frozen {
            set.servers()[old].resume();
        } else {
            set.server_mut(old).restart();
        }
        for _ in 0..50 {
            assert_ne!(stored(&backend, 1).await, Some(Bytes::from_static(b"body")));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        until_found(&backend, 1, "new").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_starts_while_no_sentinel_can_be_reached() {
    let mut set = RedisSentinel::start();
    for index in 0..3 {
        set.sentinels()[index].pause();
    }
    let backend = builder(&set).operation_timeout(Duration::from_secs(20));
    let backend = backend.connect_lazy().expect("settings that are right");
    let start = Instant::now();
    let error = backend.lookup(&key(1), &plain).await.expect_err("nobody has said who is the master");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no Sentinel has said yet"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    for index in 0..3 {
        set.sentinels()[index].resume();
    }
    until_filled(&backend, 1, "body").await;
    // And once it is known, the Sentinels are not needed.
    for index in 0..3 {
        set.sentinel_mut(index).kill();
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for _ in 0..20 {
        assert!(stored(&backend, 1).await.is_some());
    }
}
