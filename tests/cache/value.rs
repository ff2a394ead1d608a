//! Values of the application: cache-aside with single flight.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tower_gatehouse::{Backend, HttpCache, ValueError};

use crate::{support::RedisServer, world::World};

#[derive(Clone, Default)]
struct Computation(Arc<AtomicUsize>);

impl Computation {
    async fn run(&self) -> usize {
        let n = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
        n
    }
}

#[tokio::test]
async fn a_value_is_computed_once_until_it_expires_or_is_invalidated() {
    for world in World::all().await {
        let (cache, computation) = (world.cache(), Computation::default());
        let get = async || {
            let value = cache.value("a").ttl(Duration::from_secs(10)).tag("t");
            value.get_or(|| computation.run()).await.unwrap()
        };
        assert_eq!((get().await, get().await), (1, 1));
        world.wait(11);
        assert_eq!((get().await, get().await), (2, 2), "{}", world.name);
        cache.invalidate().tag("t").await.unwrap();
        assert_eq!(get().await, 3);
        cache.invalidate().tag("t").soft().await.unwrap();
        assert_eq!(get().await, 4, "a value is never stale");
        assert_eq!(cache.value("b").get_or(|| computation.run()).await.unwrap(), 5);
        assert_eq!(cache.clone().scope("x").value("a").get_or(|| computation.run()).await.unwrap(), 6);
    }
}

#[tokio::test]
async fn many_who_want_it_at_once_wait_for_one_in_this_process_and_in_others() {
    for world in World::all().await {
        // Two caches on one backend are two processes, as far as flights are concerned.
        let caches = [world.cache(), world.cache()];
        let computation = Computation::default();
        let all = (0..40).map(|n| {
            let (cache, computation) = (&caches[n % 2], &computation);
            async move { cache.value("a").get_or(|| computation.run()).await.unwrap() }
        });
        let values = futures_util::future::join_all(all).await;
        assert!(values.iter().all(|value| *value == 1), "{}: {values:?}", world.name);
        assert_eq!(computation.0.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn an_error_goes_to_its_caller_and_the_next_one_computes() {
    for world in World::all().await {
        let cache = world.cache();
        let value = || cache.value("a");
        let failed = value().get_or_try(|| async { Err::<u8, Box<dyn std::error::Error>>("no".into()) }).await;
        assert_eq!(failed.unwrap_err().to_string(), "no", "{}", world.name);
        let start = Instant::now();
        assert_eq!(value().get_or(|| async { 7 }).await.unwrap(), 7);
        assert!(start.elapsed() < Duration::from_secs(5), "the turn was given back");
        let error: ValueError = value().tag("two words").get_or(|| async { 8 }).await.unwrap_err();
        assert!(error.to_string().contains("visible ASCII"), "{error}");
    }
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_hold_up_the_others() {
    for world in World::all().await {
        let cache = world.cache();
        let left = cache.value("a").get_or(std::future::pending::<u8>);
        assert!(tokio::time::timeout(Duration::from_millis(50), left).await.is_err());
        let next = cache.value("a").get_or(|| async { 1 });
        assert_eq!(tokio::time::timeout(Duration::from_secs(15), next).await.unwrap().unwrap(), 1, "{}", world.name);
    }
}

#[tokio::test]
async fn without_a_backend_every_caller_computes_and_none_fails() {
    let mut server = RedisServer::start();
    let backend = Backend::redis(server.url()).connect().await.unwrap();
    let cache = HttpCache::new(&backend);
    assert_eq!(cache.value("a").get_or(|| async { 1 }).await.unwrap(), 1);
    server.kill();
    for n in 2..10 {
        assert_eq!(cache.value("a").get_or(|| async move { n }).await.unwrap(), n);
    }
}

#[tokio::test]
async fn without_a_backend_those_who_want_it_at_once_compute_together() {
    let mut server = RedisServer::start();
    let cache = HttpCache::new(&Backend::redis(server.url()).connect().await.unwrap());
    server.kill();
    // The breaker opens: from now on a look-up fails at once.
    for _ in 0..10 {
        cache.value("other").get_or(|| async { 1 }).await.unwrap();
    }
    let computation = Computation::default();
    let all = (0..100).map(|_| cache.value("a").get_or(|| computation.run()));
    let values = futures_util::future::join_all(all).await;
    assert!(values.iter().all(Result::is_ok));
    // One, and one for all who came while it was under way; a look-up that tries the server is late.
    let computed = computation.0.load(Ordering::SeqCst);
    assert!(computed <= 50, "{computed}");
}

#[tokio::test]
async fn of_those_who_have_waited_too_long_one_computes_for_all() {
    for world in World::all().await {
        let cache = world.cache().wait(Duration::from_millis(300));
        let (computed, gate) = (AtomicUsize::new(0), tokio::sync::Semaphore::new(0));
        let all = (0..50).map(|_| {
            cache.value("a").get_or(async || {
                let n = computed.fetch_add(1, Ordering::SeqCst) + 1;
                if n == 1 {
                    // Longer than anybody waits.
                    let _ = gate.acquire().await;
                } else {
                    gate.add_permits(1);
                }
                n
            })
        });
        let values = futures_util::future::join_all(all).await;
        assert!(values.iter().all(Result::is_ok), "{}: {values:?}", world.name);
        let computed = computed.load(Ordering::SeqCst);
        assert!((2..=25).contains(&computed), "{}: {computed}", world.name);
    }
}
