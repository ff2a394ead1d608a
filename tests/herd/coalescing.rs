//! How many requests reach the origin.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tower::ServiceBuilder;
use tower_gatehouse::{Backend, HttpCache};

use crate::{
    app::{App, Origin, boxed, get, request, respond},
    fleet::{
        Held, Herd, MS, Slow, Store, alone, bounded, cached, eventually, gets, gets_at, herd, herd_at, patient,
        spawn_get, until,
    },
};

const URL: &str = "http://example.com/a";
const CACHEABLE: &[(&str, &str)] = &[("cache-control", "max-age=60")];

type Build = fn(&HttpCache, Held) -> App;
const BOTH_WAYS: [(&str, Build); 2] = [("with a cache", cached::<Held>), ("alone", alone::<Held>)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_to_four_processes_are_one_to_the_origin() {
    for store in Store::both() {
        for (how, build) in BOTH_WAYS {
            let origin = Held::new(Origin::with(CACHEABLE));
            let caches = store.fleet(4, |cache| cache.scope(how)).await;
            let apps: Vec<_> = caches.iter().map(|cache| build(cache, origin.clone())).collect();
            let answers = gets_at(&origin, &apps, 250, URL).await;
            assert_eq!((answers.len(), origin.0.count()), (1000, 1), "{how}, {}", store.name());
            assert!(answers.iter().all(|answer| answer.body == "answer 1" && answer.status == 200));
            let collapsed = |answer: &&crate::app::Answer| answer.field("cache-status").contains("collapsed");
            assert_eq!(answers.iter().filter(collapsed).count(), 999, "{how}, {}", store.name());
            // Only a cache answers who comes after the flight; who comes while it is being ended has its answer.
            let expected = if how == "alone" { 2 } else { 1 };
            let later = format!("answer {expected}");
            eventually(async || (get(&apps[3], URL).await.body == later).then_some(())).await;
            assert_eq!(origin.0.count(), expected, "{how}, {}", store.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_keys_at_once_are_a_hundred_requests_to_the_origin() {
    for store in Store::both() {
        for (how, build) in BOTH_WAYS {
            let origin = Held::new(Origin::with(CACHEABLE));
            let caches = store.fleet(4, |cache| cache.scope(how)).await;
            let apps: Vec<_> = caches.iter().map(|cache| build(cache, origin.clone())).collect();
            let requests = (0..1000).map(|n| {
                let url = format!("http://example.com/{}", n % 100);
                (apps[n / 100 % 4].clone(), request("GET", &url, &[]))
            });
            assert!(herd_at(&origin, requests).await.into_iter().all(|answer| answer.unwrap().status == 200));
            assert_eq!(origin.0.count(), 100, "{how}, {}", store.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_for_what_cannot_be_shared_go_on_in_parallel() {
    for store in Store::both() {
        let origin = Slow(
            Origin::new(|_, n| {
                if n <= 1000 {
                    respond(200, &[("cache-control", "no-store")], "x")
                } else {
                    respond(200, CACHEABLE, "y")
                }
            }),
            1000 * MS,
        );
        let caches = store.fleet(2, |cache| cache).await;
        let apps: Vec<_> = caches.iter().map(|cache| cached(cache, origin.clone())).collect();
        let start = Instant::now();
        assert_eq!(gets(&apps, 500, URL).await.len(), 1000);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(30), "{took:?} on {}", store.name());
        assert_eq!(origin.0.count(), 1000);
        assert_eq!(get(&apps[0], URL).await.body, "y");
        let hit = get(&apps[0], URL).await;
        assert_eq!(hit.x_cache(), "HIT", "what is cacheable later is cached again, {}: {hit:?}", store.name());
        assert_eq!(origin.0.count(), 1001);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variants_fly_apart_and_each_of_them_once() {
    for store in Store::both() {
        for (how, build) in BOTH_WAYS {
            let origin = Held::new(Origin::new(|request, _| {
                let language = request.headers()["accept-language"].to_str().unwrap().to_owned();
                respond(200, &[("cache-control", "max-age=60"), ("vary", "accept-language")], language)
            }));
            let caches = store.fleet(3, |cache| cache.scope(how)).await;
            let apps: Vec<_> = caches.iter().map(|cache| build(cache, origin.clone())).collect();
            let requests = (0..120).map(|n| {
                let language = ["de", "fr"][n / 3 % 2];
                (apps[n % 3].clone(), request("GET", URL, &[("accept-language", language), ("x-want", language)]))
            });
            let herd = Herd::start(requests);
            herd.settled().await;
            // From the first they know how it varies; alone, they share only what they ask for at the same time.
            origin.answer_one();
            until("the other language is asked for", || origin.0.count() == 2).await;
            herd.settled().await;
            origin.open();
            let answers = herd.answers().await;
            let count = |of: &str| answers.iter().filter(|answer| answer.as_ref().unwrap().body == of).count();
            assert_eq!((count("de"), count("fr")), (60, 60), "{how}, {}", store.name());
            assert_eq!(origin.0.count(), 2, "{how}, {}", store.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_share_an_error_and_those_who_come_later_try_again() {
    for store in Store::both() {
        for (how, build) in BOTH_WAYS {
            // A process that hears of it only after a moment asks for itself: then once more.
            let shared = async |round: usize| {
                let url = format!("http://example.com/{round}");
                let down = Arc::new(AtomicBool::new(true));
                let origin = Held::new(Origin::new({
                    let down = Arc::clone(&down);
                    move |_, _| {
                        let down = down.load(Ordering::SeqCst);
                        if down { respond(503, &[], "down") } else { respond(200, CACHEABLE, "up") }
                    }
                }));
                let caches = store.fleet(3, |cache| cache.scope(how)).await;
                let apps: Vec<_> = caches.iter().map(|cache| build(cache, origin.clone())).collect();
                let answers = gets_at(&origin, &apps, 30, &url).await;
                let asked = origin.0.count();
                assert!(asked <= 3, "{how}, {}: {asked}", store.name());
                assert!(answers.iter().all(|answer| answer.status == 503 || answer.status == 502));
                let told = answers.iter().filter(|answer| answer.body == "down").count();
                assert_eq!(told, asked, "the body is the leader's");
                down.store(false, Ordering::SeqCst);
                tokio::time::sleep(300 * MS).await;
                assert_eq!(get(&apps[1], &url).await.body, "up", "{how}, {}", store.name());
                asked == 1
            };
            let mut rounds = 0..10;
            while !shared(rounds.next().expect("the processes share it")).await {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_that_is_not_modified_is_one_request_for_all() {
    for store in Store::both() {
        let origin = Held::new(Origin::new(|request, n| {
            if request.headers().contains_key("if-none-match") {
                respond(304, &[("etag", "\"v\""), ("cache-control", "max-age=60")], "")
            } else {
                assert_eq!(n, 1);
                respond(200, &[("etag", "\"v\""), ("cache-control", "max-age=1")], "content")
            }
        }));
        let caches = store.fleet(3, |cache| cache).await;
        let apps: Vec<_> = caches.iter().map(|cache| cached(cache, origin.clone())).collect();
        origin.answer_one();
        get(&apps[0], URL).await;
        tokio::time::sleep(1100 * MS).await;
        let answers = gets_at(&origin, &apps, 50, URL).await;
        assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == "content"));
        assert_eq!(origin.0.count(), 2, "{}", store.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_store_each_process_sends_one_request_at_a_time() {
    let mut store = Store::redis();
    for (how, build) in BOTH_WAYS {
        let origin = Held::new(Origin::with(CACHEABLE));
        let mut apps = Vec::new();
        for _ in 0..2 {
            let backend = Backend::redis(store.redis.as_ref().unwrap().url()).connect().await.unwrap();
            apps.push(build(&patient(HttpCache::new(&backend)).scope(how), origin.clone()));
        }
        store.redis.as_mut().unwrap().kill();
        let answers = gets_at(&origin, &apps, 40, URL).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        // Those whose look-up failed after the origin was asked share the next request.
        assert!((2..=4).contains(&origin.0.count()), "{how}: {}", origin.0.count());
        store.redis.as_mut().unwrap().restart();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_invalidated_meanwhile_is_not_handed_to_who_came_afterwards() {
    for store in Store::both() {
        for (how, build) in BOTH_WAYS {
            let origin = Held::new(Origin::with(CACHEABLE));
            let caches = store.fleet(2, |cache| cache.scope(how)).await;
            let apps: Vec<_> = caches.iter().map(|cache| build(cache, origin.clone())).collect();
            // One process asks, the other waits for it.
            let mut early = Vec::new();
            for app in &apps {
                early.push(spawn_get(app, URL));
                until("the origin is asked", || origin.0.count() == 1).await;
                tokio::time::sleep(60 * MS).await;
            }
            caches[0].invalidate().url(URL).await.unwrap();
            let answers = gets_at(&origin, &apps, 10, URL).await;
            assert!(
                answers.iter().all(|answer| answer.body != "answer 1"),
                "{how}, {}: who came after the invalidation got what was asked before",
                store.name()
            );
            assert!(origin.0.count() <= 4, "{how}, {}: {}", store.name(), origin.0.count());
            for answer in early {
                assert_eq!(bounded(answer).await.unwrap().status, 200);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_are_rarely_ready_do_not_hang_it() {
    for (how, build) in [("cached", true), ("alone", false)] {
        let cache = HttpCache::new(&Backend::memory());
        let origin = Slow(Origin::with(CACHEABLE), 5 * MS);
        let inner = ServiceBuilder::new()
            .buffer(4)
            .load_shed()
            .timeout(Duration::from_secs(10))
            .service(boxed(ServiceBuilder::new().concurrency_limit(1).service(origin.clone())));
        let app = if build { cached(&cache, boxed(inner)) } else { alone(&cache, boxed(inner)) };
        let requests = (0..200).map(|n| (app.clone(), request("GET", &format!("http://example.com/{}", n % 20), &[])));
        let answers = herd(requests).await;
        assert_eq!(answers.len(), 200, "{how}");
        assert_eq!(get(&app, "http://example.com/new").await.status, 200, "{how}: it is still ready");
    }
    let cache = HttpCache::new(&Backend::memory());
    let origin = Slow(Origin::with(CACHEABLE), 5 * MS);
    let app = cached(&cache, boxed(ServiceBuilder::new().concurrency_limit(1).service(origin.clone())));
    let requests = (0..200).map(|n| (app.clone(), request("GET", &format!("http://example.com/{}", n % 20), &[])));
    assert!(herd(requests).await.iter().all(Result::is_ok));
    assert_eq!(origin.0.count(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_does_not_wait_for_the_end_of_what_is_too_large_to_share() {
    let store = Store::redis();
    let ends = Arc::new(watch::Sender::new(false));
    let origin = Origin::new({
        let ends = Arc::clone(&ends);
        move |_, _| {
            let mut response = respond(200, CACHEABLE, "");
            let (content, body) = crate::streaming::channel();
            let mut ends = ends.subscribe();
            tokio::spawn(async move {
                for n in 0..200 {
                    if n == 20 {
                        ends.wait_for(|ends| *ends).await.unwrap();
                    }
                    content.send(vec![b'x'; 1024].into()).await.unwrap();
                }
            });
            *response.body_mut() = body;
            response
        }
    });
    let caches = store.fleet(2, |cache| cache.max_body(10 * 1024)).await;
    let apps: Vec<_> = caches.iter().map(|cache| cached(cache, origin.clone())).collect();
    let first = spawn_get(&apps[0], URL);
    until("the first request has come", || origin.count() == 1).await;
    let second = spawn_get(&apps[1], URL);
    until("the second does not wait for the first", || origin.count() == 2).await;
    ends.send_replace(true);
    for answer in [first, second] {
        assert_eq!(bounded(answer).await.unwrap().body.len(), 200 * 1024);
    }
}

/// Another process may reach the store, and invalidate, while this one does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_store_nobody_is_answered_with_what_was_asked_before_he_came() {
    for (how, build) in BOTH_WAYS {
        let origin = Held::new(Origin::with(CACHEABLE));
        // Nothing listens there.
        let backend = Backend::redis("redis://127.0.0.1:1").connect_lazy().unwrap();
        let app = build(&patient(HttpCache::new(&backend)), origin.clone());
        let early = spawn_get(&app, URL);
        until("the origin is asked", || origin.0.count() == 1).await;
        // Here another process would invalidate.
        let late = gets_at(&origin, std::slice::from_ref(&app), 20, URL).await;
        assert_eq!(bounded(early).await.unwrap().body, "answer 1");
        assert!(late.iter().all(|answer| answer.body == "answer 2"), "{how}: {late:?}");
    }
}
