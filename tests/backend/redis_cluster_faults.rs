//! A Redis Cluster that loses nodes and moves slots.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tower_gatehouse::{
    Backend, Tag, TagDigest,
    backend::{
        Ask, BackendError, Commit, Committed, Entry, ErrorKind, InvalidateError, Limit, LimitKey, Lookup, Mode,
        PrimaryKey, Scope, Take, Variant, VarySpec, Verdict,
    },
};

use crate::support::{RedisCluster, RedisServer, until};

/// Long enough that a busy machine is not taken for a dead node.
const TIMEOUT: Duration = Duration::from_millis(500);

async fn connect(cluster: &RedisCluster) -> Backend {
    Backend::redis(cluster.url()).operation_timeout(TIMEOUT).connect().await.expect("a connection")
}

fn tag() -> TagDigest {
    Tag::new("everywhere").unwrap().digest()
}

fn key(n: u64) -> PrimaryKey {
    let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    PrimaryKey::from_bytes((u128::from(hash) << 64 | u128::from(n)).to_be_bytes())
}

fn plain(_: &VarySpec) -> Variant {
    Variant(None)
}

async fn lookup(backend: &Backend, key: PrimaryKey) -> Result<Lookup, BackendError> {
    backend.lookup(&key, &plain).await
}

async fn fill(backend: &Backend, key: PrimaryKey) -> Result<Committed, BackendError> {
    let ticket = backend.ticket(&key).await?;
    let keep = backend.now().plus(Duration::from_mins(10));
    let entry: Arc<Entry> = Entry::builder(ticket)
        .fresh_until(keep)
        .keep_until(keep)
        .tags([tag()])
        .head(Bytes::from_static(b"head"))
        .body(Bytes::from_static(b"body"))
        .build();
    backend.commit(Commit { key, variant: Variant(None), entry, refresh: None, lease: None }).await
}

async fn stored(backend: &Backend, key: PrimaryKey) -> bool {
    lookup(backend, key).await.is_ok_and(|lookup| lookup.found.is_some())
}

async fn invalidate(backend: &Backend) -> Result<(), InvalidateError> {
    backend.invalidate(Scope::Tags(&[tag()]), Mode::Hard).await
}

async fn until_filled(backend: &Backend, key: PrimaryKey) {
    until("it is stored", || async { matches!(fill(backend, key).await, Ok(Committed::Stored)) }).await;
}

async fn until_found(backend: &Backend, key: PrimaryKey) {
    until("it is found", || stored(backend, key)).await;
}

/// The clock of the key's bucket, as the test's own clients name it.
fn clock_of(cluster: &RedisCluster, key: PrimaryKey) -> String {
    let end = format!(":e:{key}");
    let keys = cluster.nodes()[..3].iter().flat_map(|node| {
        let reply = node.command(&["KEYS", &format!("gh:*{end}")]);
        reply.array().iter().map(|key| String::from_utf8_lossy(key.bytes().unwrap()).into_owned()).collect::<Vec<_>>()
    });
    let entry = keys.into_iter().next().expect("the entry is stored");
    entry.replace(&end, ":c")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidation_that_did_not_reach_a_node_names_it_and_repeating_completes_it() {
    let mut cluster = RedisCluster::start();
    let backend = connect(&cluster).await;
    let keys: Vec<_> = (0..60).map(key).collect();
    for key in &keys {
        until_filled(&backend, *key).await;
    }
    let owners: Vec<_> = keys.iter().map(|key| cluster.owner(&clock_of(&cluster, *key))).collect();
    assert!((0..3).all(|node| owners.contains(&node)), "{owners:?}");
    let lost = format!("127.0.0.1:{}", cluster.nodes()[1].port());
    cluster.elect_soon();
    cluster.node_mut(1).kill();

    let start = Instant::now();
    let error = invalidate(&backend).await.expect_err("one node is dead");
    assert!(start.elapsed() < 25 * TIMEOUT, "{:?}", start.elapsed());
    let named: Vec<_> = error.unreached().map(|(part, _)| part.to_owned()).collect();
    assert!(named.iter().any(|part| part.starts_with("bucket {") && part.ends_with(&lost)), "{named:?}");
    assert!(error.to_string().contains("repeat it"), "{error}");

    let repeated = || async { invalidate(&backend).await.is_ok() };
    until("the replica takes over and repeating completes", repeated).await;
    for key in &keys {
        assert!(!stored(&backend, *key).await, "{key}");
    }
    for key in &keys {
        until_filled(&backend, *key).await;
        until_found(&backend, *key).await;
    }
}

/// Asks for all keys in turn for six seconds while node 1 is out of reach: the others must not feel it, but for a call
/// now and then on a busy machine.
async fn only_its_own_keys_are_missed(backend: &Backend, keys: &[PrimaryKey], owners: &[usize]) {
    let (start, mut slow, mut asked_others, mut missed) = (Instant::now(), 0, 0, 0);
    while start.elapsed() < Duration::from_secs(6) {
        for (key, owner) in keys.iter().zip(owners) {
            let asked = Instant::now();
            let answer = lookup(backend, *key).await;
            assert!(asked.elapsed() < 40 * TIMEOUT, "{:?}", asked.elapsed());
            slow += u32::from(asked.elapsed() >= TIMEOUT);
            if *owner != 1 {
                asked_others += 1;
                missed += u32::from(!answer.is_ok_and(|lookup| lookup.found.is_some()));
            }
        }
    }
    assert!(slow <= 20, "{slow} calls waited");
    assert!(missed * 20 <= asked_others, "{missed} of {asked_others}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_frozen_and_one_that_is_dead_cost_their_own_keys_only() {
    let settings = RedisServer::builder().config("cluster-replica-no-failover yes");
    let mut cluster = RedisCluster::start_with(settings.config("cluster-require-full-coverage no"));
    let backend = connect(&cluster).await;
    let keys: Vec<_> = (0..60).map(key).collect();
    for key in &keys {
        until_filled(&backend, *key).await;
    }
    let owners: Vec<_> = keys.iter().map(|key| cluster.owner(&clock_of(&cluster, *key))).collect();
    cluster.elect_soon();
    cluster.nodes()[1].pause();
    only_its_own_keys_are_missed(&backend, &keys, &owners).await;
    cluster.nodes()[1].resume();
    for key in &keys {
        until_found(&backend, *key).await;
    }
    cluster.node_mut(1).kill();
    only_its_own_keys_are_missed(&backend, &keys, &owners).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_one_node_denies_is_denied_although_another_one_is_away() {
    let settings = RedisServer::builder().config("cluster-replica-no-failover yes");
    let mut cluster = RedisCluster::start_with(settings.config("cluster-require-full-coverage no"));
    let connect = async || {
        let builder = Backend::redis(cluster.url()).operation_timeout(TIMEOUT).limit_timeout(TIMEOUT);
        builder.connect().await.expect("a connection")
    };
    // One that remembers no denial.
    let (backend, fresh) = (connect().await, connect().await);
    let (one, many) =
        [1, 100].map(|burst| [Ask { limit: Limit::rate(Duration::from_hours(1), burst), cost: 1 }]).into();
    let keys: Vec<_> = (0..30).map(|n| LimitKey::from_bytes(*key(n).as_bytes())).collect();
    for key in &keys {
        assert!(backend.take(&[Take { key: *key, asks: &one }]).await.expect("an answer").admitted);
    }
    let names: Vec<_> = cluster.nodes()[..3].iter().map(RedisServer::keys).collect();
    let on = |node: usize| {
        let is_on = |key: &LimitKey| names[node].iter().any(|name| name.ends_with(&format!(":n:{key}")));
        keys.iter().copied().find(is_on).expect("each node has some")
    };
    let (denied, free, away) = (on(0), on(2), on(1));
    cluster.node_mut(1).pause();
    let ask = async |keys: [(LimitKey, &[Ask; 1]); 3]| fresh.take(&keys.map(|(key, asks)| Take { key, asks })).await;
    let taken = ask([(away, &many), (denied, &one), (free, &many)]).await.expect("a denial");
    assert!(!taken.admitted);
    let [None, Some(level), Some(other)] = taken.levels[..] else { panic!("{taken:?}") };
    assert!(matches!(level.verdict, Verdict::Wait(_)), "{level:?}");
    assert_eq!((other.verdict, other.remaining), (Verdict::Within, 99), "it was given back");
    // Where nobody denies, nobody knows.
    fresh.take(&[Take { key: away, asks: &many }, Take { key: free, asks: &many }]).await.expect_err("one is away");
    cluster.node_mut(1).resume();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_being_moved_costs_misses_and_invalidations_get_through() {
    let cluster = RedisCluster::start();
    let (backend, other) = (connect(&cluster).await, connect(&cluster).await);
    let key = key(1);
    until_filled(&backend, key).await;
    until_found(&other, key).await;
    let clock = clock_of(&cluster, key);
    let from = cluster.owner(&clock);
    let to = (from + 1) % 3;
    let (slot, _) = cluster.begin_move(&clock, to);

    // All keys are still on the old node: what it has it serves.
    until_found(&backend, key).await;
    // A tag that has no cell there: some keys here, one absent. The invalidation gets through by purging the bucket.
    let unseen = Tag::new("unseen").unwrap().digest();
    until("it gets through", || async { backend.invalidate(Scope::Tags(&[unseen]), Mode::Hard).await.is_ok() }).await;
    for backend in [&backend, &other] {
        assert!(!stored(backend, key).await, "the whole bucket was purged");
    }
    // A fill may fail now, and says so within its time.
    let start = Instant::now();
    let filled = fill(&backend, key).await;
    assert!(start.elapsed() < 40 * TIMEOUT, "{:?}: {filled:?}", start.elapsed());

    cluster.finish_move(slot, from, to);
    // At the new node, and so does the other process.
    until_filled(&backend, key).await;
    until_found(&other, key).await;
    until("an invalidation", || async { invalidate(&other).await.is_ok() }).await;
    assert!(!stored(&backend, key).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_that_is_agreed_loses_nothing_and_is_followed() {
    let cluster = RedisCluster::start();
    let backend = connect(&cluster).await;
    let keys: Vec<_> = (0..30).map(key).collect();
    for key in &keys {
        until_filled(&backend, *key).await;
    }
    cluster.fail_over(3);
    for key in &keys {
        until_found(&backend, *key).await;
    }
    until("invalidations reach the new master", || async { invalidate(&backend).await.is_ok() }).await;
    for key in &keys {
        assert!(!stored(&backend, *key).await);
        until_filled(&backend, *key).await;
    }
}

fn cluster_that_goes_on_in_part() -> RedisCluster {
    RedisCluster::start_with(RedisServer::builder().config("cluster-require-full-coverage no"))
}

/// Connects lazily to a cluster of which a master and its replica are away.
fn connect_without(cluster: &mut RedisCluster, away: usize, buckets: u16) -> Backend {
    cluster.node_mut(away + 3).kill();
    cluster.node_mut(away).kill();
    let left: Vec<_> = (0..3).filter(|node| *node != away).map(|node| cluster.nodes()[node].port()).collect();
    let url = format!("redis-cluster://127.0.0.1:{}?node=127.0.0.1:{}", left[0], left[1]);
    Backend::redis(url).buckets(buckets).operation_timeout(TIMEOUT).connect_lazy().expect("settings")
}

#[tokio::test]
async fn a_process_that_disagrees_about_the_number_of_buckets_does_nothing_although_a_node_is_away() {
    let mut cluster = cluster_that_goes_on_in_part();
    drop(connect(&cluster).await);
    let away = (cluster.owner("{0}") + 1) % 3;
    let backend = connect_without(&mut cluster, away, 8);
    let start = Instant::now();
    for n in 0.. {
        let done = backend.invalidate(Scope::Keys(&[key(n)]), Mode::Hard).await;
        let error = done.expect_err("the others would not see it");
        if error.unreached().any(|(_, error)| error.kind() == ErrorKind::Config) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{error:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_process_does_nothing_until_the_node_can_be_asked_that_has_the_number_of_buckets() {
    let mut cluster = cluster_that_goes_on_in_part();
    drop(connect(&cluster).await);
    let away = cluster.owner("{0}");
    let backend = connect_without(&mut cluster, away, 64);
    let start = Instant::now();
    for n in (0..).take_while(|_| start.elapsed() < Duration::from_secs(3)) {
        let error = backend.ticket(&key(n)).await.expect_err("it is not checked yet");
        assert!(error.is_outage(), "{error:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.node_mut(away).restart();
    until_filled(&backend, key(1)).await;
}
