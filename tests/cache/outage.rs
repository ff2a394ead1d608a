//! What the cache costs on Redis, and what happens without it.

use std::time::{Duration, Instant};

use tower_gatehouse::{Backend, HttpCache};

use crate::{
    app::{Origin, get},
    support::{RedisServer, until},
    world::{app, patient},
};

const URL: &str = "http://example.com/a";

fn calls(server: &RedisServer) -> Vec<(String, u64)> {
    let stats = server.commandstats();
    // TIME is asked in the background.
    stats.data().into_iter().filter(|(name, _)| *name != "time").map(|(name, n)| (name.to_owned(), n)).collect()
}

#[tokio::test]
async fn a_hit_is_one_mget_and_a_miss_is_an_mget_and_a_commit() {
    let server = RedisServer::start();
    let cache = HttpCache::new(&patient(&server).connect().await.unwrap());
    let origin = Origin::with(&[("cache-control", "max-age=60"), ("surrogate-key", "a b"), ("vary", "accept")]);
    let app = app(&cache, &origin);
    // The first request finds no clock, and scripts are loaded.
    get(&app, "http://example.com/first").await;
    server.reset_stats();
    assert_eq!(get(&app, URL).await.x_cache(), "MISS");
    let stats = server.commandstats();
    assert_eq!((stats.calls("evalsha"), stats.calls("eval")), (1, 0), "{stats:?}");
    assert_eq!(stats.calls("mget"), 2, "the look-up, and the commit's script reads its cells: {stats:?}");
    for _ in 0..3 {
        server.reset_stats();
        assert_eq!(get(&app, URL).await.x_cache(), "HIT");
        assert_eq!(calls(&server), [("mget".to_owned(), 1)]);
    }
}

#[tokio::test]
async fn while_redis_is_down_every_request_is_answered_by_the_origin_and_afterwards_all_is_well() {
    let mut server = RedisServer::start();
    let cache = HttpCache::new(&Backend::redis(server.url()).connect().await.unwrap());
    let origin = Origin::with(&[("cache-control", "max-age=60")]);
    let app = app(&cache, &origin);
    // Within the usual 100 ms, which a busy machine may take.
    until("a hit", || async { get(&app, URL).await.x_cache() == "HIT" }).await;
    let before = origin.count();
    server.kill();
    let start = Instant::now();
    for _ in 0..200 {
        let answer = get(&app, URL).await;
        assert_eq!((answer.status, answer.x_cache(), answer.detail()), (200, "MISS", "backend-unavailable"));
    }
    // At most a few operation timeouts of 100 ms until the breaker opens, then next to nothing.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(origin.count(), before + 200);
    assert!(cache.invalidate().url(URL).await.unwrap_err().unreached().is_some(), "not a silent success");
    server.restart();
    until("it recovers by itself", || async { get(&app, URL).await.x_cache() == "HIT" }).await;
}
