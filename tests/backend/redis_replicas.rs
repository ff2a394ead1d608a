//! Replicas: read by choice, and waited for by choice.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tower_gatehouse::{
    Backend, Tag, TagDigest,
    backend::{
        BackendError, Commit, Committed, Entry, ErrorKind, InvalidateError, Mode, PrimaryKey, RedisBuilder, Scope,
        Variant, VarySpec,
    },
};

use crate::support::{RedisCluster, RedisSentinel, RedisServer, ports::Port, until};

/// Long enough that a machine that stands still for a moment is not taken for a server that is gone.
const TIMEOUT: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(30);
const LAG: Duration = Duration::from_secs(5);

/// A master with two replicas that are in step.
pub(crate) struct Replicated {
    pub(crate) master: RedisServer,
    pub(crate) replicas: [RedisServer; 2],
}

impl Replicated {
    pub(crate) fn start() -> Self {
        let builder = RedisServer::builder().config("repl-diskless-sync-delay 0");
        let master = builder.clone().start();
        let replica = || builder.clone().config(format!("replicaof 127.0.0.1 {}", master.port())).start();
        let replicas = [replica(), replica()];
        for replica in &replicas {
            replica.wait_for_info("replication", "master_link_status", "up", LIMIT);
        }
        Self { master, replicas }
    }

    fn builder(&self) -> RedisBuilder {
        Backend::redis(self.master.url()).operation_timeout(TIMEOUT)
    }

    fn reset_stats(&self) {
        self.master.reset_stats();
        self.replicas.iter().for_each(RedisServer::reset_stats);
    }
}

fn key(n: u8) -> PrimaryKey {
    PrimaryKey::from_bytes([n.wrapping_mul(31); 16])
}

fn plain(_: &VarySpec) -> Variant {
    Variant(None)
}

fn tag() -> TagDigest {
    Tag::new("tag").unwrap().digest()
}

pub(crate) async fn fill(backend: &Backend, n: u8) -> Result<Committed, BackendError> {
    let ticket = backend.ticket(&key(n)).await?;
    let keep = backend.now().plus(Duration::from_mins(10));
    let entry = Entry::builder(ticket).fresh_until(keep).keep_until(keep).tags([tag()]).body(Bytes::from_static(b"b"));
    let commit = Commit { key: key(n), variant: Variant(None), entry: entry.build(), refresh: None, lease: None };
    backend.commit(commit).await
}

pub(crate) async fn stored(backend: &Backend, n: u8) -> bool {
    backend.lookup(&key(n), &plain).await.is_ok_and(|lookup| lookup.found.is_some())
}

async fn invalidate(backend: &Backend) -> Result<(), InvalidateError> {
    backend.invalidate(Scope::Tags(&[tag()]), Mode::Hard).await
}

/// Looks the key up until replicas, told by their index, have been asked for it.
async fn until_replicas_are_read(backend: &Backend, n: u8, replicas: &[&RedisServer]) {
    let start = Instant::now();
    let reads = || replicas.iter().map(|replica| replica.commandstats().calls("mget")).sum::<u64>();
    let before = reads();
    while reads() < before + 3 {
        assert!(stored(backend, n).await, "a hit, wherever it comes from");
        assert!(start.elapsed() < LIMIT, "no replica is asked");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_come_from_a_replica_and_everything_else_from_the_master() {
    let set = Replicated::start();
    let backend = set.builder().read_from_replicas().connect().await.expect("a connection");
    assert_eq!(fill(&backend, 1).await.expect("a commit"), Committed::Stored);
    until_replicas_are_read(&backend, 1, &[&set.replicas[0], &set.replicas[1]]).await;
    let reads = |server: &RedisServer| server.commandstats().calls("mget");
    // Where the machine stood still, no replica counts as in step for a while.
    until("hits come from replicas", || async {
        set.reset_stats();
        for _ in 0..100 {
            assert!(stored(&backend, 1).await);
        }
        reads(&set.master) < 10 && reads(&set.replicas[0]) + reads(&set.replicas[1]) > 90
    })
    .await;
    // A miss is asked of the master, too: what it has is found, however far the replicas are.
    assert!(!stored(&backend, 2).await);
    assert_eq!(fill(&backend, 2).await.expect("a commit"), Committed::Stored);
    assert!(stored(&backend, 2).await, "at once");
    // Without the option, none is asked.
    let plain = set.builder().connect().await.expect("a connection");
    tokio::time::sleep(Duration::from_secs(2)).await;
    // The first look-up learns the tags.
    assert!(stored(&plain, 1).await);
    set.reset_stats();
    assert!(stored(&plain, 1).await);
    assert_eq!(reads(&set.master), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_are_frozen_or_gone_cost_no_hit() {
    let mut set = Replicated::start();
    let backend = set.builder().read_from_replicas().connect().await.expect("a connection");
    assert_eq!(fill(&backend, 1).await.expect("a commit"), Committed::Stored);
    until_replicas_are_read(&backend, 1, &[&set.replicas[0], &set.replicas[1]]).await;
    set.replicas[0].pause();
    set.replicas[1].kill();
    let (start, mut slowest) = (Instant::now(), Duration::ZERO);
    // Until they are not asked any more, and on.
    while start.elapsed() < Duration::from_secs(7) {
        let asked = Instant::now();
        assert!(stored(&backend, 1).await);
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(slowest < 4 * TIMEOUT, "{slowest:?}");
    set.replicas[0].resume();
    until_replicas_are_read(&backend, 1, &[&set.replicas[0]]).await;
}

/// The replicas lose their master, and go on to serve what they have: what that costs is bounded.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_may_show_old_content_to_others_for_five_seconds_and_never_to_who_invalidated() {
    let set = Replicated::start();
    let reader = set.builder().read_from_replicas().connect().await.expect("a connection");
    let writer = set.builder().read_from_replicas().connect().await.expect("a connection");
    assert_eq!(fill(&writer, 1).await.expect("a commit"), Committed::Stored);
    let replicas = [&set.replicas[0], &set.replicas[1]];
    until_replicas_are_read(&reader, 1, &replicas).await;
    until_replicas_are_read(&writer, 1, &replicas).await;
    let gone = Port::reserve();
    for replica in replicas {
        replica.command(&["REPLICAOF", "127.0.0.1", &gone.number().to_string()]);
    }
    let cut = Instant::now();
    invalidate(&writer).await.expect("an invalidation");
    let mut old = 0;
    while cut.elapsed() < LAG + Duration::from_secs(3) {
        assert!(!stored(&writer, 1).await, "who has invalidated never sees it");
        let asked = cut.elapsed();
        if stored(&reader, 1).await {
            assert!(asked < LAG, "after {asked:?}");
            old += 1;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(old > 0, "the test shows nothing: no replica was read after it was cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_replicas_waited_for_the_whole_promise_holds() {
    let set = Replicated::start();
    let builder = || set.builder().read_from_replicas().wait_for_replicas(2, Duration::from_secs(5));
    let reader = builder().connect().await.expect("a connection");
    let writer = builder().connect().await.expect("a connection");
    assert_eq!(fill(&writer, 1).await.expect("a commit"), Committed::Stored);
    until_replicas_are_read(&reader, 1, &[&set.replicas[0], &set.replicas[1]]).await;
    until_invalidated(&writer).await;
    for round in 0..300 {
        assert_eq!(fill(&writer, 1).await.expect("a commit"), Committed::Stored);
        assert!(stored(&reader, 1).await);
        invalidate(&writer).await.expect("all replicas have it");
        assert!(!stored(&reader, 1).await, "round {round}");
    }
}

/// Invalidates until the replicas have it in time: they may just have come, or be in want of a processor.
async fn until_invalidated(backend: &Backend) {
    until("the replicas have it", || async { invalidate(backend).await.is_ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shortfall_of_replicas_is_an_error_that_counts_them_and_the_invalidation_holds() {
    let set = Replicated::start();
    let wait = Duration::from_secs(4);
    let backend = set.builder().wait_for_replicas(2, wait).connect().await.expect("a connection");
    assert_eq!(fill(&backend, 1).await.expect("a commit"), Committed::Stored);
    until_invalidated(&backend).await;
    assert_eq!(fill(&backend, 1).await.expect("a commit"), Committed::Stored);
    set.replicas[1].pause();
    // Many at once share what they wait for.
    let start = Instant::now();
    let calls: Vec<_> = (0..50)
        .map(|_| {
            tokio::spawn({
                let backend = backend.clone();
                async move { invalidate(&backend).await.expect_err("one is frozen") }
            })
        })
        .collect();
    for call in calls {
        let error = call.await.expect("no panic");
        let (part, why) = error.unreached().next().expect("a part");
        assert!(part.contains("{0}"), "{part}");
        assert_eq!(why.kind(), ErrorKind::Unreplicated);
        assert!(why.to_string().contains("only 1 of 2 replicas have acknowledged it within 4s"), "{why}");
    }
    assert!(start.elapsed() < 5 * wait, "{:?}", start.elapsed());
    assert!(!stored(&backend, 1).await, "it holds all the same");
    // Meanwhile nothing else waits.
    let start = Instant::now();
    assert_eq!(fill(&backend, 1).await.expect("a commit"), Committed::Stored);
    assert!(start.elapsed() < wait, "{:?}", start.elapsed());
    set.replicas[1].resume();
    until_invalidated(&backend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_works_on_a_full_server_and_after_connections_were_cut() {
    let set = Replicated::start();
    let backend = set.builder().wait_for_replicas(2, Duration::from_secs(5)).connect().await.expect("a connection");
    until_invalidated(&backend).await;
    assert_eq!(fill(&backend, 1).await.expect("a commit"), Committed::Stored);
    set.master.command(&["CONFIG", "SET", "maxmemory", "1"]);
    invalidate(&backend).await.expect("as without waiting");
    set.master.command(&["CONFIG", "SET", "maxmemory", "0"]);
    for _ in 0..5 {
        set.master.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        until_invalidated(&backend).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_a_cluster_and_under_sentinel_are_read_and_waited_for() {
    let cluster = RedisCluster::start();
    let url = cluster.url();
    let replicas: Vec<_> = cluster.nodes()[3..].iter().collect();
    check(Backend::redis(url), &replicas).await;
    let set = RedisSentinel::start();
    let (url, master) = (set.url(), set.master());
    let replicas: Vec<_> = (0..3).filter(|index| *index != master).map(|index| &set.servers()[index]).collect();
    check(Backend::redis(url), &replicas).await;
}

/// Twenty keys are found at replicas, and an invalidation that has waited for one of each master holds.
pub(crate) async fn check(builder: RedisBuilder, replicas: &[&RedisServer]) {
    let builder = builder.operation_timeout(TIMEOUT).read_from_replicas();
    let backend = builder.wait_for_replicas(1, Duration::from_secs(5)).connect().await.expect("a connection");
    for n in 1..=20 {
        assert_eq!(fill(&backend, n).await.expect("a commit"), Committed::Stored);
    }
    for n in 1..=20 {
        until_replicas_are_read(&backend, n, replicas).await;
    }
    until_invalidated(&backend).await;
    for n in 1..=20 {
        assert!(!stored(&backend, n).await);
    }
}
