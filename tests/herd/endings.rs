//! Clients that leave, handlers that panic, shutdown.

use std::sync::atomic::{AtomicUsize, Ordering};

use tower_gatehouse::{Backend, HttpCache};

use crate::{
    app::{Origin, get, request, respond, try_send},
    fleet::{
        Held, Herd, MS, Slow, Store, alone, bounded, cached, gets, gets_at, herd_at, patient, spawn_get, swr, until,
    },
};

const URL: &str = "http://example.com/a";
const CACHEABLE: &[(&str, &str)] = &[("cache-control", "max-age=60")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leaders_client_leaves_and_nobody_fetches_again() {
    for store in Store::both() {
        let origin = Held::new(Origin::with(CACHEABLE));
        let caches = store.fleet(2, |cache| cache).await;
        let apps: Vec<_> = caches.iter().map(|cache| cached(cache, origin.clone())).collect();
        let leader = spawn_get(&apps[0], URL);
        until("the origin is asked", || origin.0.count() == 1).await;
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        let answers = gets_at(&origin, &apps, 5, URL).await;
        assert!(answers.iter().all(|answer| answer.body == "answer 1"), "{}", store.name());
        assert_eq!(origin.0.count(), 1, "{}", store.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_leaves_takes_nobody_with_it() {
    let cache = patient(HttpCache::new(&Backend::memory()));
    let origin = Held::new(Origin::with(CACHEABLE));
    let app = alone(&cache, origin.clone());
    let leaving: Vec<_> = (0..10).map(|_| spawn_get(&app, URL)).collect();
    until("the origin is asked", || origin.0.count() == 1).await;
    let herd = Herd::start((0..10).map(|_| (app.clone(), request("GET", URL, &[]))));
    herd.settled().await;
    for request in leaving {
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
    }
    origin.open();
    assert!(herd.answers().await.into_iter().all(|answer| answer.unwrap().body == "answer 1"));
    assert_eq!(origin.0.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_panics_costs_its_own_request_and_one_more_at_the_origin() {
    for store in Store::both() {
        let calls = std::sync::Arc::new(AtomicUsize::new(0));
        let handler = tower::service_fn({
            let calls = std::sync::Arc::clone(&calls);
            move |_: http::Request<crate::app::Body>| {
                let calls = std::sync::Arc::clone(&calls);
                async move {
                    let n = calls.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(200 * MS).await;
                    assert!(n > 0, "on purpose");
                    Ok(respond(200, CACHEABLE, "fine"))
                }
            }
        });
        let caches = store.fleet(2, |cache| cache).await;
        let apps: Vec<_> = caches.iter().map(|cache| cached(cache, handler.clone())).collect();
        let answers = gets(&apps, 20, URL).await;
        let count = |status| answers.iter().filter(|answer| answer.status == status).count();
        assert_eq!((count(502), count(200)), (1, 39), "{}", store.name());
        assert_eq!(calls.load(Ordering::SeqCst), 2, "{}", store.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_finishes_what_is_under_way() {
    for store in Store::both() {
        let origin = Slow(Origin::with(CACHEABLE), 300 * MS);
        let caches = store.fleet(2, |cache| cache).await;
        let app = cached(&caches[0], origin.clone());
        let leader = spawn_get(&app, URL);
        until("the origin is asked", || origin.0.count() == 1).await;
        leader.abort();
        assert!(bounded(caches[0].shutdown(5000 * MS)).await, "all had finished");
        assert_eq!(get(&cached(&caches[1], origin.clone()), URL).await.x_cache(), "HIT", "{}", store.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_gives_back_the_leases_of_what_has_not_finished() {
    for store in Store::both() {
        let origin = Slow(Origin::with(CACHEABLE), 20_000 * MS);
        let caches = store.fleet(2, |cache| cache).await;
        let app = cached(&caches[0], origin.clone());
        let leader = spawn_get(&app, URL);
        until("the origin is asked", || origin.0.count() == 1).await;
        let start = std::time::Instant::now();
        assert!(!bounded(caches[0].shutdown(100 * MS)).await, "something had to be dropped");
        assert_eq!(bounded(leader).await.unwrap().status, 502);
        let quick = Slow(Origin::with(CACHEABLE), 10 * MS);
        assert_eq!(get(&cached(&caches[1], quick), URL).await.status, 200);
        // It is of 15 s.
        assert!(start.elapsed() < 10_000 * MS, "{}: the lease was given back: {:?}", store.name(), start.elapsed());
        // Requests that come after all go through.
        let late = cached(&caches[0], Slow(Origin::with(CACHEABLE), 10 * MS));
        assert_eq!(get(&late, "http://example.com/late").await.status, 200);
        assert_eq!(get(&late, "http://example.com/late").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_revalidation_begins_after_a_shutdown() {
    let cache = HttpCache::new(&Backend::memory());
    let origin = Origin::with(&[("cache-control", "max-age=1, stale-while-revalidate=60")]);
    let app = swr(&cache, origin.clone());
    get(&app, URL).await;
    tokio::time::sleep(1100 * MS).await;
    assert!(cache.shutdown(1000 * MS).await);
    assert_eq!(get(&app, URL).await.x_cache(), "STALE");
    tokio::time::sleep(100 * MS).await;
    assert_eq!(origin.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_gets_the_inner_error_and_the_others_502() {
    let cache = patient(HttpCache::new(&Backend::memory()));
    let origin = Held::new(Origin::new(|_, _| respond(200, &[("x-refuse", "1")], "")));
    let app = cached(&cache, origin.clone());
    let answers = herd_at(&origin, (0..20).map(|_| (app.clone(), request("GET", URL, &[])))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 1);
    assert!(answers.iter().flatten().all(|answer| answer.status == 502));
    assert!(try_send(&app, request("GET", URL, &[])).await.is_err());
    assert_eq!(origin.0.count(), 2);
}
