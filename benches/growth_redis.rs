//! How a hit on Redis grows: with the number of entries, of tags and of variants; what an entry takes there; and a
//! Cluster of three masters beside one server. Run with `cargo bench --all-features --bench growth_redis`, for plots
//! with `-- --csv FILE`: lines of `name,x,y`. Needs a `redis-server` and 2 GB of memory.

#[path = "support/csv.rs"]
mod csv;
#[path = "support/rounds.rs"]
mod rounds;
#[path = "../tests/support/mod.rs"]
#[allow(clippy::pedantic, missing_debug_implementations)]
mod servers;
#[allow(dead_code, reason = "shared by all benches")]
mod support;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use csv::Csv;
use rounds::rounds;
use servers::{RedisCluster, RedisServer};
use support::compare;
use tokio::runtime::Runtime;
use tower_gatehouse::{
    Backend, Tag,
    backend::{Ask, Commit, Committed, Entry, Limit, LimitKey, PrimaryKey, Take, Variant, VarySpec},
};

/// Of the body of most entries here, bytes.
const SIZE: usize = 512;
const PAGES: u32 = 1000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut csv = Csv::from_args();
    entries(&runtime, &mut csv);
    let server = RedisServer::start();
    tags(&runtime, &server, &mut csv);
    variants(&runtime, &server, &mut csv);
    memory(&runtime, &mut csv);
    cluster(&runtime, &server, &mut csv);
}

/// All three at the same time, each on a server of its own, so that they are measured in turns.
fn entries(runtime: &Runtime, csv: &mut Csv) {
    let counts = [1_000, 100_000, 1_000_000];
    let stores = counts.map(|n| {
        let server = RedisServer::start();
        let backend = connect(runtime, &server.url(), "gh");
        runtime.block_on(store(&backend, page(0), &Kind::default()));
        server.copy_many(&format!("gh:{{0}}:e:{:032}", 0), "gh:{0}:e:", 1..n);
        assert!(runtime.block_on(is_hit(&backend, page(n - 1), 0)));
        (n, server, backend)
    });
    let names = counts.map(|n| format!("{n} entries"));
    let hits = stores.iter().zip(&names).map(|((n, _, backend), name)| {
        let turn = Turn::default();
        rounds(runtime, name, 1, move |_| {
            let page = page(turn.next() % n);
            async move { assert!(is_hit(backend, page, 0).await) }
        })
    });
    let took = compare("A hit on Redis among so many entries, any of them", hits.collect());
    counts.iter().zip(took).for_each(|(n, nanos)| csv.line("redis: hit by entries: ns", n, nanos));
}

fn tags(runtime: &Runtime, server: &RedisServer, csv: &mut Csv) {
    let backend = connect(runtime, &server.url(), "tags");
    let counts = [0, 1, 5, 20];
    for (n, tags) in (0..).zip(counts) {
        runtime.block_on(store(&backend, page(n), &Kind { tags, ..Kind::default() }));
    }
    let (names, backend) = (counts.map(|n| format!("{n} tags")), &backend);
    let hits = names
        .iter()
        .zip(0..)
        .map(|(name, n)| rounds(runtime, name, 1, move |_| async move { assert!(is_hit(backend, page(n), 0).await) }));
    let took = compare("A hit on Redis with so many tags", hits.collect());
    counts.iter().zip(took).for_each(|(n, nanos)| csv.line("redis: hit by tags: ns", n, nanos));
}

fn variants(runtime: &Runtime, server: &RedisServer, csv: &mut Csv) {
    let backend = connect(runtime, &server.url(), "variants");
    let counts = [1, 2, 4, 8, 16];
    for (n, variants) in (0..).zip(counts) {
        for variant in 1..=variants {
            runtime.block_on(store(&backend, page(n), &Kind { variant, ..Kind::default() }));
        }
    }
    let (names, backend) = (counts.map(|n| format!("{n} variants")), &backend);
    let hits = names.iter().zip(counts).zip(0..).map(|((name, variants), n)| {
        let turn = Turn::default();
        rounds(runtime, name, 1, move |_| {
            let variant = u8::try_from(turn.next() % u32::from(variants)).unwrap() + 1;
            async move { assert!(is_hit(backend, page(n), variant).await) }
        })
    });
    let took = compare("A hit on Redis, any of so many variants", hits.collect());
    counts.iter().zip(took).for_each(|(n, nanos)| csv.line("redis: hit by variants: ns", n, nanos));
}

/// What Redis says that it uses, for each entry, with all that belongs to it.
fn memory(runtime: &Runtime, csv: &mut Csv) {
    println!("\nMemory that Redis uses for each of {PAGES} entries");
    for size in [256, 1024, 2 * 1024, 8 * 1024, 64 * 1024] {
        let server = RedisServer::start();
        let backend = connect(runtime, &server.url(), "gh");
        let used = || server.info("memory")["used_memory"].parse::<f64>().unwrap();
        let before = used();
        runtime.block_on(async {
            for n in 0..PAGES {
                store(&backend, page(n), &Kind { size, ..Kind::default() }).await;
            }
        });
        let each = (used() - before) / f64::from(PAGES);
        let response = size + HEAD;
        println!("  response of {response:>6} bytes: {each:>9.1} bytes   x {:>5.2}", each / response as f64);
        csv.line("redis: memory per entry: bytes", response, each);
    }
}

/// The same load: hits of all pages, and checks of limits, one at a time and 64 at once.
fn cluster(runtime: &Runtime, server: &RedisServer, csv: &mut Csv) {
    let cluster = RedisCluster::start();
    let backends = [("one server", server.url()), ("a Cluster of 3", cluster.url())]
        .map(|(name, url)| (name, connect(runtime, &url, "load")));
    for (_, backend) in &backends {
        runtime.block_on(async {
            for n in 0..PAGES {
                store(backend, page(n), &Kind { tags: 2, size: 2 * 1024, ..Kind::default() }).await;
            }
        });
    }
    let (pages, keys) = (Turn::default(), Turn::default());
    let (pages, keys) = (&pages, &keys);
    let mut plot = |what: &str, at_once: usize, took: Vec<f64>| {
        for ((name, _), nanos) in backends.iter().zip(took) {
            csv.line(
                &format!("{name}: one server or three: ns"),
                format!("{what} {at_once} at a time"),
                nanos / at_once as f64,
            );
        }
    };
    for at_once in [1, 64] {
        let hits = backends.iter().map(|(name, backend)| {
            rounds(runtime, name, at_once, move |_| async move {
                assert!(is_hit(backend, page(pages.next() % PAGES), 0).await);
            })
        });
        let took =
            compare(&format!("A hit on Redis, 2 KiB, 2 tags, {at_once} at once: one round of all"), hits.collect());
        plot("a hit", at_once, took);

        let checks = backends.iter().map(|(name, backend)| {
            rounds(runtime, name, at_once, move |_| async move {
                let mut key = [0; 16];
                key[..4].copy_from_slice(&(keys.next() % PAGES).to_le_bytes());
                let asks = [Ask { limit: Limit::rate(Duration::from_nanos(100), 1_000_000), cost: 1 }];
                let takes = [Take { key: LimitKey::from_bytes(key), asks: &asks }];
                assert!(backend.take(&takes).await.unwrap().admitted);
            })
        });
        let took =
            compare(&format!("A check of a limit on Redis, {at_once} at once: one round of all"), checks.collect());
        plot("a limit", at_once, took);
    }
}

fn connect(runtime: &Runtime, url: &str, namespace: &str) -> Backend {
    // A turn that the machine has interrupted must not open the breaker.
    let long = Duration::from_secs(10);
    let backend = Backend::redis(url).namespace(namespace).operation_timeout(long).limit_timeout(long);
    runtime.block_on(backend.connect()).unwrap()
}

/// The bytes of the key are the digits of its number, as `copy_many` writes them.
fn page(n: u32) -> PrimaryKey {
    PrimaryKey::from_bytes(u128::from_str_radix(&n.to_string(), 16).unwrap().to_be_bytes())
}

struct Kind {
    size: usize,
    tags: u8,
    /// 0: it does not vary.
    variant: u8,
}

impl Default for Kind {
    fn default() -> Self {
        Self { size: SIZE, tags: 0, variant: 0 }
    }
}

const HEAD: usize = 300;

async fn store(backend: &Backend, key: PrimaryKey, kind: &Kind) {
    let ticket = backend.ticket(&key).await.unwrap();
    let later = backend.now().plus(Duration::from_hours(1));
    let spec = if kind.variant == 0 { VarySpec::none() } else { VarySpec::new(Bytes::from_static(b"one")).unwrap() };
    let variant = vary(kind.variant)(&spec);
    let entry = Entry::builder(ticket)
        .fresh_until(later)
        .keep_until(later)
        .vary(spec)
        .tags((0..kind.tags).map(|n| Tag::new(format!("tag{n}")).unwrap().digest()))
        .head(Bytes::from(vec![b'h'; HEAD]))
        .body(Bytes::from(vec![b'x'; kind.size]))
        .build();
    let commit = Commit { key, variant, entry, refresh: None, lease: None };
    assert_eq!(backend.commit(commit).await.unwrap(), Committed::Stored);
    // Now it is known how it varies, and which tags it has.
    assert!(is_hit(backend, key, kind.variant).await);
}

fn vary(variant: u8) -> impl Fn(&VarySpec) -> Variant + Send + Sync {
    move |spec| Variant((!spec.is_none()).then_some([variant; 8]))
}

async fn is_hit(backend: &Backend, key: PrimaryKey, variant: u8) -> bool {
    backend.lookup(&key, &vary(variant)).await.unwrap().found.is_some()
}

/// Numbers without an order that a cache could follow.
#[derive(Default)]
struct Turn(AtomicU32);

impl Turn {
    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9) >> 1
    }
}
