//! What a look-up on Redis costs beside a bare GET of the same bytes with the same client, one at a time and 64 at once.
//! Run with `cargo bench --all-features --bench backend_redis`; needs a `redis-server`.

#[path = "support/rounds.rs"]
mod rounds;
#[allow(dead_code, reason = "shared by all benches")]
mod support;

#[path = "../tests/support/mod.rs"]
#[allow(clippy::pedantic, missing_debug_implementations)]
mod servers;

use std::time::Duration;

use bytes::Bytes;
use fred::prelude::{ClientLike, KeysInterface};
use rounds::rounds;
use servers::RedisServer;
use support::compare;
use tokio::runtime::Runtime;
use tower_gatehouse::{
    Backend, Tag,
    backend::{Commit, Committed, Entry, PrimaryKey, Variant, VarySpec},
};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = RedisServer::start();
    for size in [2 * 1024, 64 * 1024] {
        for tags in [0, 2, 5] {
            look_up(&runtime, &server, size, tags);
        }
    }
}

fn look_up(runtime: &Runtime, server: &RedisServer, size: usize, tags: usize) {
    let (fred, backend) = runtime.block_on(async {
        let config = fred::prelude::Config::from_url(&server.url()).unwrap();
        let client = fred::prelude::Builder::from_config(config).build().unwrap();
        client.init().await.unwrap();
        let _: () = client.set("bare", vec![b'x'; size].as_slice(), None, None, false).await.unwrap();
        let namespace = format!("bench-{size}-{tags}");
        (client, Backend::redis(server.url()).namespace(namespace).connect().await.unwrap())
    });
    let key = PrimaryKey::from_bytes([7; 16]);
    runtime.block_on(store(&backend, key, size, tags));
    let (fred, backend) = (&fred, &backend);
    let bare = move || async move {
        let value: Bytes = fred.get("bare").await.unwrap();
        assert_eq!(value.len(), size);
    };
    let hit = move || async move {
        let found = backend.lookup(&key, &plain).await.unwrap().found.unwrap();
        assert!(found.entry.body().len() < size);
    };
    for at_once in [1, 64] {
        compare(
            &format!(
                "A look-up on Redis beside a bare GET, {size} bytes, {tags} tags, {at_once} at once of one: one round of all"
            ),
            vec![
                rounds(runtime, "fred: GET", at_once, move |_| bare()),
                rounds(runtime, "Backend::lookup", at_once, move |_| hit()),
            ],
        );
    }
}

fn plain(_: &VarySpec) -> Variant {
    Variant(None)
}

/// Stores an entry whose value in Redis has about `size` bytes.
async fn store(backend: &Backend, key: PrimaryKey, size: usize, tags: usize) {
    let ticket = backend.ticket(&key).await.unwrap();
    let keep = backend.now().plus(Duration::from_hours(1));
    let entry = Entry::builder(ticket)
        .fresh_until(keep)
        .keep_until(keep)
        .tags((0..tags).map(|n| Tag::new(format!("tag{n}")).unwrap().digest()))
        .head(Bytes::from(vec![b'h'; 300]))
        .body(Bytes::from(vec![b'x'; size - 440 - 8 * tags]))
        .build();
    let commit = Commit { key, variant: Variant(None), entry, refresh: None, lease: None };
    assert_eq!(backend.commit(commit).await.unwrap(), Committed::Stored);
}
