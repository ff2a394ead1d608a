//! What it costs to invalidate a tag on Redis, beside a PING by the same client: with one entry that carries the tag,
//! with a million. Run with `cargo bench --all-features --bench invalidate`, for plots with `-- --csv FILE`: lines of
//! `name,x,y`. Needs a `redis-server`.

#[path = "support/csv.rs"]
mod csv;
#[path = "../tests/support/mod.rs"]
mod servers;
mod support;

use std::time::Duration;

use csv::Csv;
use fred::interfaces::ClientLike as _;
use servers::RedisServer;
use support::{compare, each};
use tokio::runtime::Runtime;
use tower_gatehouse::{
    Backend, HttpCache, Tag,
    backend::{Commit, Committed, Entry, PrimaryKey, Variant, VarySpec},
};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = RedisServer::start();
    let fred = runtime.block_on(async {
        let config = fred::prelude::Config::from_url(&server.url()).unwrap();
        let client = fred::prelude::Builder::from_config(config).build().unwrap();
        client.init().await.unwrap();
        client
    });
    let backend = runtime.block_on(Backend::redis(server.url()).connect()).unwrap();
    let cache = HttpCache::new(&backend);
    let mut csv = Csv::from_args();
    for entries in [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000] {
        runtime.block_on(store(&backend));
        server.copy_many(&format!("gh:{{0}}:e:{:032}", 0), "gh:{0}:e:", 1..entries);
        assert!(runtime.block_on(found(&backend, entries - 1)));
        let took = compare(
            &format!("Invalidating one tag on Redis beside a PING, {entries} entries with the tag"),
            vec![
                each("fred: PING", || runtime.block_on(fred.ping::<()>(None)).unwrap()),
                each("HttpCache::invalidate", || runtime.block_on(invalidate(&cache)).unwrap()),
            ],
        );
        csv.line("a PING of Redis: invalidation by entries: ns", entries, took[0]);
        csv.line("on Redis: invalidation by entries: ns", entries, took[1]);
        runtime.block_on(all_are_gone(&backend, entries));
    }
    in_many_buckets(&runtime, &server, &fred);
}

/// As on a Cluster: each bucket has a copy of the tag's cell.
fn in_many_buckets(runtime: &Runtime, server: &RedisServer, fred: &fred::clients::Client) {
    let connect = Backend::redis(server.url()).namespace("many").buckets(64).connect();
    let cache = HttpCache::new(&runtime.block_on(connect).unwrap());
    compare(
        "Invalidating one tag in 64 buckets, as on a Cluster, beside a PING",
        vec![
            each("fred: PING", || runtime.block_on(fred.ping::<()>(None)).unwrap()),
            each("HttpCache::invalidate", || runtime.block_on(invalidate(&cache)).unwrap()),
        ],
    );
}

async fn invalidate(cache: &HttpCache) -> Result<(), tower_gatehouse::InvalidationError> {
    cache.invalidate().tag("common").await
}

fn key(n: u32) -> PrimaryKey {
    PrimaryKey::from_bytes(u128::from_str_radix(&n.to_string(), 16).unwrap().to_be_bytes())
}

/// One entry that carries the tag; the others are copies of it.
async fn store(backend: &Backend) {
    let ticket = backend.ticket(&key(0)).await.unwrap();
    let later = backend.now().plus(Duration::from_hours(1));
    let tag = Tag::new("common").unwrap().digest();
    let entry = Entry::builder(ticket).fresh_until(later).keep_until(later).tags([tag]).build();
    let commit = Commit { key: key(0), variant: Variant(None), entry, refresh: None, lease: None };
    assert_eq!(backend.commit(commit).await.unwrap(), Committed::Stored);
    assert!(found(backend, 0).await);
}

async fn found(backend: &Backend, n: u32) -> bool {
    let plain = |_: &VarySpec| Variant(None);
    backend.lookup(&key(n), &plain).await.unwrap().found.is_some()
}

async fn all_are_gone(backend: &Backend, entries: u32) {
    for n in (0..entries).step_by(entries.div_ceil(100) as usize) {
        assert!(!found(backend, n).await, "entry {n} is still served");
    }
}
