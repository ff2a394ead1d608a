//! Stale while it refreshes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, extract::Path, response::IntoResponse, routing::get as route};
use tower::{Layer as _, ServiceExt as _};
use tower_gatehouse::{Backend, CacheLayer, CoalesceLayer, HttpCache, Rule, SwrLayer, TestClock};

use crate::{
    app::{App, Origin, boxed, get, request, respond, send},
    fleet::{Held, MS, Slow, Store, call, eventually, gets, swr, until},
};

const URL: &str = "http://example.com/a";

fn validating(refresh: &'static [(&'static str, &'static str)]) -> Origin {
    Origin::new(move |request, _| {
        if request.headers().get("if-none-match").is_some_and(|tag| tag == "\"v\"") {
            respond(304, refresh, "")
        } else {
            respond(200, &[("etag", "\"v\""), ("cache-control", "max-age=1, stale-while-revalidate=60")], "content")
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_turns_stale_causes_one_conditional_request_in_the_fleet_and_nobody_waits() {
    for store in Store::both() {
        let inner = validating(&[("etag", "\"v\""), ("cache-control", "max-age=60"), ("x-new", "yes")]);
        let origin = Held::new(inner);
        let caches = store.fleet(4, |cache| cache).await;
        let apps: Vec<_> = caches.iter().map(|cache| swr(cache, origin.clone())).collect();
        origin.answer_one();
        assert_eq!(get(&apps[0], URL).await.body, "content");
        tokio::time::sleep(1100 * MS).await;
        // The origin answers when all have their answer.
        let answers = gets(&apps, 10, URL).await;
        assert!(answers.iter().all(|answer| answer.body == "content" && answer.x_cache() == "STALE"));
        until("the origin is asked", || origin.0.count() == 2).await;
        assert_eq!(origin.0.last().2["if-none-match"], "\"v\"");
        origin.open();
        for app in &apps {
            let hit = eventually(async || Some(get(app, URL).await).filter(|answer| answer.x_cache() == "HIT")).await;
            assert_eq!(hit.field("x-new"), "yes", "{}", store.name());
        }
        assert_eq!(origin.0.count(), 2, "{}", store.name());
    }
}

#[tokio::test]
async fn it_works_inside_a_router_with_path_parameters() {
    let clock = TestClock::new();
    let cache = HttpCache::new(&Backend::memory_with(&clock))
        .rule("/products/{id}", Rule::ttl(Duration::from_secs(10)).stale(Duration::from_mins(1)))
        .unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let handler = {
        let calls = Arc::clone(&calls);
        move |Path(id): Path<u32>| async move {
            format!("product {id}, {}", calls.fetch_add(1, Ordering::SeqCst) + 1).into_response()
        }
    };
    let app = Router::new().route("/products/{id}", route(handler)).layer(SwrLayer::new(&cache));
    let ask = async |app: &Router| {
        let request = http::Request::get("http://example.com/products/17").body(axum::body::Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        String::from_utf8(axum::body::to_bytes(response.into_body(), 1000).await.unwrap().to_vec()).unwrap()
    };
    assert_eq!(ask(&app).await, "product 17, 1");
    // It is stored once its end has been read.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(11));
    assert_eq!(ask(&app).await, "product 17, 1", "stale");
    until("the background request has reached the handler", || calls.load(Ordering::SeqCst) == 2).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(&app).await, "product 17, 2", "and it has reached it with its parameter");
}

fn fixture(origin: &Origin) -> (TestClock, HttpCache, App) {
    let clock = TestClock::new();
    let cache = HttpCache::new(&Backend::memory_with(&clock));
    let app = boxed(
        tower::ServiceBuilder::new()
            .layer(SwrLayer::new(&cache))
            .layer(CacheLayer::new(&cache))
            .layer(CoalesceLayer::new(&cache))
            .service(origin.clone()),
    );
    (clock, cache, app)
}

async fn settle() {
    tokio::time::sleep(50 * MS).await;
}

#[tokio::test]
async fn an_origin_that_asks_for_patience_is_left_alone_like_one_that_fails() {
    let origin = Origin::new(|_, n| match n {
        1 => respond(200, &[("cache-control", "max-age=10, stale-while-revalidate=100")], "answer"),
        _ => respond(429, &[], "later"),
    });
    let (clock, _, app) = fixture(&origin);
    get(&app, URL).await;
    settle().await;
    clock.advance(Duration::from_secs(15));
    for _ in 0..5 {
        assert_eq!(get(&app, URL).await.body, "answer");
        settle().await;
    }
    assert_eq!(origin.count(), 2, "backoff");
}

#[tokio::test]
async fn an_origin_that_is_down_gives_stale_inside_the_window_and_an_error_outside_and_recovers() {
    let down = Arc::new(AtomicBool::new(false));
    let origin = Origin::new({
        let down = Arc::clone(&down);
        move |_, n| {
            if down.load(Ordering::SeqCst) {
                respond(503, &[], "down")
            } else {
                let fresh = [("cache-control", "max-age=10, stale-while-revalidate=10, stale-if-error=100")];
                respond(200, &fresh, format!("answer {n}"))
            }
        }
    });
    let (clock, _, app) = fixture(&origin);
    get(&app, URL).await;
    settle().await;
    down.store(true, Ordering::SeqCst);
    clock.advance(Duration::from_secs(15));
    let stale = get(&app, URL).await;
    assert_eq!((stale.status, stale.body.as_str(), stale.x_cache()), (200, "answer 1", "STALE"));
    settle().await;
    assert_eq!(origin.count(), 2);
    // After a failure nobody tries again for a second.
    for _ in 0..10 {
        assert_eq!(get(&app, URL).await.body, "answer 1");
        settle().await;
    }
    assert_eq!(origin.count(), 2, "backoff");
    clock.advance(Duration::from_secs(20));
    let stale = get(&app, URL).await;
    assert_eq!((stale.body.as_str(), stale.x_cache()), ("answer 1", "STALE"), "stale-if-error, in the foreground");
    clock.advance(Duration::from_secs(100));
    assert_eq!(get(&app, URL).await.status, 503, "its window has ended");
    down.store(false, Ordering::SeqCst);
    // Errors are remembered for a moment.
    tokio::time::sleep(100 * MS).await;
    clock.advance(Duration::from_secs(1));
    let count = origin.count();
    assert_eq!(get(&app, URL).await.body, format!("answer {}", count + 1));
    settle().await;
    assert_eq!(get(&app, URL).await.x_cache(), "HIT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fleet_backs_off_together_longer_and_longer() {
    for store in Store::both() {
        let down = Arc::new(AtomicBool::new(false));
        let origin = Origin::new({
            let down = Arc::clone(&down);
            move |_, _| {
                if down.load(Ordering::SeqCst) {
                    respond(500, &[], "down")
                } else {
                    respond(200, &[("cache-control", "max-age=1, stale-while-revalidate=600")], "content")
                }
            }
        });
        let caches = store.fleet(4, |cache| cache).await;
        let apps: Vec<_> = caches.iter().map(|cache| swr(cache, origin.clone())).collect();
        get(&apps[0], URL).await;
        tokio::time::sleep(1100 * MS).await;
        down.store(true, Ordering::SeqCst);
        let start = Instant::now();
        while start.elapsed() < 3500 * MS {
            assert!(gets(&apps, 1, URL).await.iter().all(|answer| answer.body == "content"));
            tokio::time::sleep(20 * MS).await;
        }
        let asked = origin.count() - 1;
        assert!((2..=4).contains(&asked), "{}: asked {asked} times in 3.5 s", store.name());
        down.store(false, Ordering::SeqCst);
        let recovered = async || {
            for _ in 0..1000 {
                if get(&apps[1], URL).await.x_cache() == "HIT" {
                    return true;
                }
                tokio::time::sleep(20 * MS).await;
            }
            false
        };
        assert!(recovered().await, "{}", store.name());
    }
}

#[tokio::test(start_paused = true)]
async fn an_origin_slower_than_the_soft_timeout_gives_a_stale_answer_and_is_not_lost() {
    let clock = TestClock::new();
    let cache = HttpCache::new(&Backend::memory_with(&clock)).soft_timeout(100 * MS);
    let inner =
        Origin::new(|_, n| respond(200, &[("cache-control", "max-age=10, stale-if-error=100")], format!("answer {n}")));
    let app = swr(&cache, Slow(inner.clone(), 400 * MS));
    assert_eq!(get(&app, URL).await.body, "answer 1", "nothing stale: it waits");
    settle().await;
    clock.advance(Duration::from_secs(20));
    let start = tokio::time::Instant::now();
    let stale = get(&app, URL).await;
    assert_eq!((stale.body.as_str(), stale.detail()), ("answer 1", "origin-slow"));
    assert!(start.elapsed() < 150 * MS, "{:?}", start.elapsed());
    tokio::time::sleep(600 * MS).await;
    let hit = get(&app, URL).await;
    assert_eq!((hit.body.as_str(), hit.x_cache()), ("answer 2", "HIT"), "the late answer is stored");
    assert_eq!(inner.count(), 2);
}

#[tokio::test]
async fn a_background_answer_that_cannot_be_stored_replaces_what_is_stored() {
    for (status, headers) in [
        (200, &[("cache-control", "no-store")] as &'static [(&str, &str)]),
        (200, &[("cache-control", "private")]),
        (404, &[]),
        (200, &[]),
    ] {
        let origin = Origin::script([
            (200, &[("cache-control", "max-age=10, stale-while-revalidate=1000")] as &[_], "old"),
            (status, headers, "new"),
        ]);
        let (clock, _, app) = fixture(&origin);
        get(&app, URL).await;
        settle().await;
        clock.advance(Duration::from_secs(20));
        assert_eq!(get(&app, URL).await.body, "old");
        settle().await;
        assert_eq!(get(&app, URL).await.body, "new", "{status} {headers:?}");
    }
}

/// Between two cache layers, something asks once more when the origin has failed.
#[tokio::test]
async fn a_304_to_a_second_attempt_does_not_reach_a_client_that_asked_for_the_page() {
    let origin = Origin::script([
        (200, &[("etag", "\"v\""), ("cache-control", "max-age=10, must-revalidate")] as &[_], "content"),
        (503, &[], "down"),
        (304, &[("etag", "\"v\""), ("cache-control", "max-age=10, must-revalidate")], ""),
    ]);
    let clock = TestClock::new();
    let cache = HttpCache::new(&Backend::memory_with(&clock));
    let inner = boxed(CacheLayer::new(&cache).layer(origin.clone()));
    let twice = tower::service_fn(move |request: http::Request<crate::app::Body>| {
        let inner = inner.clone();
        async move {
            let (head, _) = request.into_parts();
            let request = || http::Request::from_parts(head.clone(), crate::app::full(""));
            let first = call(inner.clone(), request()).await?;
            if first.status() == 503 { call(inner, request()).await } else { Ok(first) }
        }
    });
    let app = boxed(CacheLayer::new(&cache).layer(twice));
    get(&app, URL).await;
    settle().await;
    clock.advance(Duration::from_secs(20));
    let answer = get(&app, URL).await;
    assert_eq!((answer.status, answer.body.as_str(), origin.count()), (200, "content", 3), "{answer:?}");
}

#[tokio::test]
async fn a_head_request_refreshes_what_it_finds_stale() {
    let origin = validating(&[("etag", "\"v\""), ("cache-control", "max-age=60")]);
    let (clock, _, app) = fixture(&origin);
    get(&app, URL).await;
    settle().await;
    clock.advance(Duration::from_secs(2));
    assert_eq!(send(&app, request("HEAD", URL, &[])).await.x_cache(), "STALE");
    settle().await;
    assert_eq!(origin.last().0, http::Method::GET);
    assert_eq!(get(&app, URL).await.x_cache(), "HIT");
    assert_eq!(origin.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn background_work_is_bounded_in_all_and_for_one_origin() {
    let clock = TestClock::new();
    let cache = HttpCache::new(&Backend::memory_with(&clock)).revalidations(3, 2);
    let inner = Origin::with(&[("cache-control", "max-age=10, stale-while-revalidate=1000")]);
    // It never answers.
    let app = swr(&cache, Held::new(inner.clone()));
    let urls: Vec<_> = (0..20).map(|n| format!("/{n}")).collect();
    let host = |n: usize| if n < 10 { "a.example" } else { "b.example" };
    let quick = swr(&cache, inner.clone());
    for (n, url) in urls.iter().enumerate() {
        crate::app::get_with(&quick, url, &[("host", host(n))]).await;
    }
    settle().await;
    clock.advance(Duration::from_secs(20));
    for (n, url) in urls.iter().enumerate().take(10) {
        assert_eq!(crate::app::get_with(&app, url, &[("host", host(n))]).await.x_cache(), "STALE");
    }
    until("two for one origin", || inner.count() == 22).await;
    settle().await;
    assert_eq!(inner.count(), 22, "two for one origin");
    for (n, url) in urls.iter().enumerate().skip(10) {
        assert_eq!(crate::app::get_with(&app, url, &[("host", host(n))]).await.x_cache(), "STALE");
    }
    until("three in all", || inner.count() == 23).await;
    settle().await;
    assert_eq!(inner.count(), 23, "three in all");
}

#[tokio::test]
async fn what_goes_on_after_the_soft_timeout_is_bounded_in_number_and_time() {
    /// How many requests are at the origin.
    struct Here(Arc<AtomicUsize>);
    impl Drop for Here {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    for (limit, stays) in [(Duration::from_mins(10), 2), (50 * MS, 0)] {
        let (clock, here) = (TestClock::new(), Arc::new(AtomicUsize::new(0)));
        let cache = HttpCache::new(&Backend::memory_with(&clock)).revalidations(2, 2);
        let cache = cache.soft_timeout(20 * MS).revalidation_timeout(limit);
        let fresh = Origin::with(&[("cache-control", "max-age=10, stale-if-error=100")]);
        let hanging = tower::service_fn({
            let here = Arc::clone(&here);
            move |_: http::Request<crate::app::Body>| {
                here.fetch_add(1, Ordering::SeqCst);
                let here = Here(Arc::clone(&here));
                async move {
                    let _here = here;
                    std::future::pending::<Result<http::Response<crate::app::Body>, tower_gatehouse::BoxError>>().await
                }
            }
        });
        let (fill, app) = (swr(&cache, fresh), swr(&cache, hanging));
        let urls: Vec<_> = (0..10).map(|n| format!("http://example.com/{n}")).collect();
        for url in &urls {
            get(&fill, url).await;
        }
        settle().await;
        clock.advance(Duration::from_secs(20));
        for url in &urls {
            assert_eq!(get(&app, url).await.detail(), "origin-slow");
        }
        until("the others are given up", || here.load(Ordering::SeqCst) == stays).await;
    }
}
