//! The near cache: what is there saves sending it, and changes nothing else. The conformance kit, where whatever is
//! looked up comes from it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use tower_gatehouse::{
    Backend, Tag,
    backend::{
        BackendError, Commit, Committed, Entry, Lookup, Mode, PrimaryKey, RedisBuilder, Scope, Variant, VaryOf,
        VarySpec,
        conformance::{Facts, Harness, Loss},
    },
};

use crate::{
    redis::{PATIENT, delete, kinds, namespace, server},
    redis_cluster::cluster,
    redis_replicas::Replicated,
    support::{
        RedisCluster, RedisServer,
        altered::{Alter, Altered},
        until,
    },
};

/// Whoever looks has looked twice before, so that what he finds was near.
#[derive(Debug)]
struct Familiar(Backend);

impl Alter for Familiar {
    fn inner(&self) -> &Backend {
        &self.0
    }

    async fn lookup(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> Result<Lookup, BackendError> {
        for _ in 0..2 {
            self.0.lookup(key, vary).await?;
        }
        self.0.lookup(key, vary).await
    }
}

struct Near {
    namespace: String,
    masters: Vec<&'static RedisServer>,
    backend: Backend,
    peer: Backend,
}

impl Near {
    async fn new(url: String, masters: Vec<&'static RedisServer>) -> Self {
        let namespace = namespace();
        let connect = async || {
            let builder = Backend::redis(&url).namespace(&namespace).operation_timeout(PATIENT).limit_timeout(PATIENT);
            let backend = builder.near_cache_from(0).connect().await.expect("a connection");
            Backend::custom(Altered(Familiar(backend)))
        };
        let (backend, peer) = (connect().await, connect().await);
        Self { namespace, masters, backend, peer }
    }
}

impl Harness for Near {
    fn backend(&self) -> Backend {
        self.backend.clone()
    }

    fn peer(&self) -> Backend {
        self.peer.clone()
    }

    async fn lose(&self, what: Loss) {
        for master in &self.masters {
            delete(master, &self.namespace, kinds(what));
        }
    }

    fn facts(&self) -> Facts {
        Facts::default().effort(Duration::from_secs(1))
    }
}

mod one_server {
    use super::{Near, server};

    tower_gatehouse::conformance_tests!(Near::new(server().url(), vec![server()]));
}

mod of_a_cluster {
    use super::{Near, cluster};

    tower_gatehouse::conformance_tests!(Near::new(cluster().url(), cluster().nodes()[..3].iter().collect()));
}

const LONG: usize = 64 * 1024;

fn builder(url: &str) -> RedisBuilder {
    Backend::redis(url).operation_timeout(PATIENT).limit_timeout(PATIENT)
}

async fn connect(server: &RedisServer) -> Backend {
    builder(&server.url()).connect().await.expect("a connection")
}

/// All of one bucket, also where there are many.
fn page(n: u8) -> PrimaryKey {
    let mut bytes = [0; 16];
    bytes[15] = n;
    PrimaryKey::from_bytes(bytes)
}

async fn look(backend: &Backend, n: u8) -> Option<Arc<Entry>> {
    let lookup = backend.lookup(&page(n), &|_: &VarySpec| Variant(None)).await.expect("a look-up");
    lookup.found.map(|found| found.entry)
}

fn tag(n: u8) -> Tag {
    Tag::new(format!("page-{n}")).unwrap()
}

/// Stores a page of so many bytes that are all `byte`; as a new head of `refreshed` where that is given.
async fn fill(backend: &Backend, n: u8, byte: u8, len: usize, refreshed: Option<&Entry>) -> Committed {
    let ticket = backend.ticket(&page(n)).await.expect("a ticket");
    let later = backend.now().plus(Duration::from_mins(5));
    let entry = Entry::builder(ticket).fresh_until(later).keep_until(later).tags([tag(n).digest()]);
    let entry = entry.head(Bytes::copy_from_slice(&[byte; 10])).body(vec![byte; len].into()).build();
    let commit = Commit { key: page(n), variant: Variant(None), entry, refresh: refreshed, lease: None };
    backend.commit(commit).await.expect("a commit")
}

/// Reads the page until it is near.
async fn until_near(backend: &Backend, n: u8) -> Arc<Entry> {
    for _ in 0..3 {
        look(backend, n).await.expect("a hit");
    }
    look(backend, n).await.expect("a hit")
}

/// What the server was asked by look-ups, without what its script asks.
fn asked(server: &RedisServer) -> (u64, u64) {
    let stats = server.commandstats();
    let scripts = stats.calls("evalsha_ro") + stats.calls("eval_ro");
    (scripts, stats.calls("mget") - scripts)
}

fn sent(server: &RedisServer) -> u64 {
    server.info("stats")["total_net_output_bytes"].parse().expect("a number")
}

#[tokio::test]
async fn a_long_response_that_was_read_twice_is_not_sent_again() {
    let server = RedisServer::start();
    let (backend, filler) = (connect(&server).await, connect(&server).await);
    fill(&filler, 1, b'a', LONG, None).await;
    let near = until_near(&backend, 1).await;

    server.reset_stats();
    let before = sent(&server);
    for _ in 0..10 {
        let entry = look(&backend, 1).await.expect("a hit");
        assert_eq!(entry.body(), &vec![b'a'; LONG]);
        assert_eq!(entry.body().as_ptr(), near.body().as_ptr(), "the very bytes");
    }
    assert_eq!(asked(&server), (10, 0), "each hit is one round trip");
    // INFO is answered, too, with a few kilobytes.
    assert!(sent(&server) - before < 2 * LONG as u64 / 3, "ten times the body would be {}", 10 * LONG);

    backend.invalidate(Scope::Tags(&[tag(1).digest()]), Mode::Hard).await.expect("an invalidation");
    assert!(look(&backend, 1).await.is_none(), "it is near, and invalidated");
    fill(&filler, 1, b'b', LONG, None).await;
    assert_eq!(look(&backend, 1).await.expect("a hit").body()[0], b'b');
}

#[tokio::test]
async fn short_ones_and_all_where_it_is_off_are_read() {
    let server = RedisServer::start();
    fill(&connect(&server).await, 1, b'a', 2048, None).await;
    fill(&connect(&server).await, 2, b'a', LONG, None).await;
    let (backend, off) = (connect(&server).await, builder(&server.url()).near_cache(0).connect().await.unwrap());
    until_near(&backend, 1).await;
    until_near(&off, 2).await;
    server.reset_stats();
    look(&backend, 1).await.expect("a hit");
    look(&off, 2).await.expect("a hit");
    assert_eq!(asked(&server), (0, 2));
}

#[tokio::test]
async fn what_another_process_has_put_in_its_place_is_found_in_one_round_trip() {
    let server = RedisServer::start();
    let (backend, filler) = (connect(&server).await, connect(&server).await);
    fill(&filler, 1, b'a', LONG, None).await;
    until_near(&backend, 1).await;
    for byte in b'b'..b'f' {
        assert_eq!(fill(&filler, 1, byte, LONG, None).await, Committed::Stored);
        server.reset_stats();
        assert_eq!(look(&backend, 1).await.expect("a hit").body(), &vec![byte; LONG]);
        assert_eq!(look(&backend, 1).await.expect("a hit").body(), &vec![byte; LONG]);
        assert_eq!(asked(&server), (2, 0), "and it is near at once");
    }
    // Too long to be copied in and out of Lua.
    fill(&filler, 1, b'g', 5 * LONG, None).await;
    server.reset_stats();
    assert_eq!(look(&backend, 1).await.expect("a hit").body(), &vec![b'g'; 5 * LONG]);
    assert_eq!(asked(&server), (1, 1));
    // Short.
    fill(&filler, 1, b'h', 10, None).await;
    assert_eq!(look(&backend, 1).await.expect("a hit").body(), &vec![b'h'; 10]);
}

#[tokio::test]
async fn a_head_that_was_refreshed_is_seen() {
    let server = RedisServer::start();
    let (backend, filler) = (connect(&server).await, connect(&server).await);
    fill(&filler, 1, b'a', LONG, None).await;
    until_near(&backend, 1).await;
    let base = look(&filler, 1).await.expect("a hit");
    assert_eq!(fill(&filler, 1, b'b', LONG, Some(&base)).await, Committed::Refreshed);
    let refreshed = look(&backend, 1).await.expect("a hit");
    assert_eq!((refreshed.head()[0], refreshed.body()[0]), (b'b', b'a'), "the head is new, the body is not");
    // A refresh on what was near: the place of its body is known.
    let near = until_near(&backend, 1).await;
    assert_eq!(fill(&backend, 1, b'c', LONG, Some(&near)).await, Committed::Refreshed);
    let refreshed = look(&filler, 1).await.expect("a hit");
    assert_eq!((refreshed.head()[0], refreshed.body()[0]), (b'c', b'a'));
}

#[tokio::test]
async fn what_redis_has_lost_is_missed() {
    let server = RedisServer::start();
    let backend = connect(&server).await;
    let name = |n: u8| server.keys().into_iter().find(|name| name.contains(&format!("}}:e:{n:032x}"))).expect("a key");
    for n in 1..=3 {
        fill(&backend, n, b'a', LONG, None).await;
        until_near(&backend, n).await;
    }
    server.command(&["DEL", &name(1)]);
    assert!(look(&backend, 1).await.is_none(), "deleted");
    let name = name(2);
    server.command(&["DEL", &name]);
    server.command(&["LPUSH", &name, "a list"]);
    assert!(look(&backend, 2).await.is_none(), "of another type");
    assert!(look(&backend, 3).await.is_some());
    server.command(&["SCRIPT", "FLUSH"]);
    server.reset_stats();
    assert!(look(&backend, 3).await.is_some(), "the script is sent again");
    assert_eq!(server.commandstats().calls("eval_ro"), 1);
    server.command(&["FLUSHALL"]);
    assert!(look(&backend, 3).await.is_none());
}

#[tokio::test]
async fn many_at_once_are_few_commands_and_each_finds_its_own() {
    let server = RedisServer::start();
    let (backend, filler) = (connect(&server).await, connect(&server).await);
    for n in 0..100 {
        // In turns long and short ones.
        fill(&filler, n, n, if n % 3 == 0 { 100 } else { LONG }, None).await;
    }
    for n in 0..100 {
        until_near(&backend, n).await;
    }
    // Too many have another one now for all of them to go through Lua.
    for n in 10..40 {
        fill(&filler, n, 100 + n, LONG, None).await;
    }
    server.reset_stats();
    let found = join_all((0..120).map(|n| look(&backend, n))).await;
    for (n, found) in (0..).zip(found) {
        let expected = match n {
            10..40 => Some(100 + n),
            0..100 => Some(n),
            _ => None,
        };
        assert_eq!(found.map(|entry| entry.body()[0]), expected, "page {n}");
    }
    let (scripts, mgets) = asked(&server);
    assert!((1..=10).contains(&scripts), "{scripts} scripts for 66 that are near");
    assert!((1..=45).contains(&mgets), "{mgets} commands for the others and those that were asked for again");
}

#[tokio::test]
async fn it_follows_a_slot_that_is_being_moved() {
    let cluster = RedisCluster::start();
    let backend = builder(&cluster.url()).connect().await.expect("a connection");
    for n in 0..10 {
        fill(&backend, n, n, LONG, None).await;
        until_near(&backend, n).await;
    }
    let all_found = async || {
        let found = join_all((0..10).map(|n| look(&backend, n))).await;
        for (n, found) in (0..10).zip(found) {
            assert_eq!(found.expect("a hit").body(), &vec![n; LONG]);
        }
    };
    let name = cluster.nodes()[..3].iter().flat_map(RedisServer::keys).find(|name| name.contains("}:e:")).unwrap();
    let to = (cluster.owner(&name) + 1) % 3;
    let asked = || cluster.nodes().iter().map(|node| node.commandstats().calls("evalsha_ro")).sum::<u64>();
    let (before, (slot, from)) = (asked(), cluster.begin_move(&name, to));
    all_found().await;
    assert!(asked() > before, "whether it has the same");
    cluster.finish_move(slot, from, to);
    let before = cluster.nodes()[to].commandstats().calls("evalsha_ro");
    all_found().await;
    assert!(cluster.nodes()[to].commandstats().calls("evalsha_ro") > before, "the one that has it now");
}

#[tokio::test]
async fn another_entry_is_told_by_what_is_in_it() {
    let server = RedisServer::start();
    let (backend, filler) = (connect(&server).await, connect(&server).await);
    let (ticket, later) = (filler.ticket(&page(1)).await.unwrap(), filler.now().plus(Duration::from_mins(5)));
    // On the same ticket and with the same times: Redis had lost the first one.
    for byte in [b'a', b'b'] {
        let entry = Entry::builder(ticket).fresh_until(later).keep_until(later).head(vec![byte].into());
        let entry = entry.body(vec![byte; LONG].into()).build();
        let commit = Commit { key: page(1), variant: Variant(None), entry, refresh: None, lease: None };
        assert_eq!(filler.commit(commit).await.unwrap(), Committed::Stored);
        assert_eq!(until_near(&backend, 1).await.body()[0], byte);
        let name = server.keys().into_iter().find(|name| name.contains("}:e:")).expect("a key");
        server.command(&["DEL", &name]);
    }
}

#[tokio::test]
async fn where_the_script_is_refused_all_is_read() {
    const RULES: &str = "resetchannels ~gh:* &gh:* +@all -evalsha_ro -eval_ro";
    let server = RedisServer::builder().user("shop", "secret", RULES).start();
    let shop = || builder(&server.url()).username("shop").password("secret");
    let off = shop().near_cache(0).connect().await.expect("it is not needed");
    fill(&off, 1, b'a', LONG, None).await;
    fill(&off, 2, b'b', LONG, None).await;
    // Which does not insist on permissions.
    let backend = shop().connect_lazy().expect("settings");
    until("it is connected", || async { backend.ping().await.is_ok() }).await;
    for n in [1, 2] {
        until_near(&backend, n).await;
    }
    server.reset_stats();
    assert!(look(&backend, 1).await.is_some());
    assert_eq!(asked(&server), (0, 1), "it is not tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_asked_in_the_same_way() {
    let set = Replicated::start();
    let backend = builder(&set.master.url()).read_from_replicas().connect().await.expect("a connection");
    fill(&backend, 1, b'a', LONG, None).await;
    let scripts = || set.replicas.iter().map(|replica| replica.commandstats().calls("evalsha_ro")).sum::<u64>();
    until("a replica is asked whether it has the same", || async {
        assert_eq!(look(&backend, 1).await.expect("a hit").body(), &vec![b'a'; LONG]);
        scripts() > 3
    })
    .await;
}
