//! Filling the cache before clients ask, in memory and on Redis.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt};
use http::{Request, Response};
use tower::{Layer, Service};
use tower_gatehouse::{
    Backend, BoxError, HttpCache, Rule,
    warm::{List, Outcome, Summary, Warmed},
};

use crate::{
    app::{App, Body, Origin, boxed, full, get, get_with, request, respond},
    support::{RedisServer, wait_until},
    world::World,
};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];

fn urls(count: usize) -> impl Iterator<Item = Request<Body>> + Send {
    (0..count).map(|n| request("GET", &format!("http://shop.example/{n}"), &[]))
}

/// An origin that takes its time, and notices how many are in it at once.
#[derive(Clone, Default)]
struct Crowded {
    takes: Duration,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Crowded {
    fn taking(milliseconds: u64) -> Self {
        Self { takes: Duration::from_millis(milliseconds), ..Self::default() }
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }
}

impl Service<Request<Body>> for Crowded {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            this.begun.fetch_add(1, Ordering::SeqCst);
            let now = this.now.fetch_add(1, Ordering::SeqCst) + 1;
            this.most.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(this.takes).await;
            this.now.fetch_sub(1, Ordering::SeqCst);
            this.ended.fetch_add(1, Ordering::SeqCst);
            Ok(respond(200, FRESH, "content"))
        })
    }
}

fn counts(summary: &Summary) -> [u64; 6] {
    let Summary { fresh, stored, not_stored, bypassed, failed, stopped, .. } = *summary;
    [stored, fresh, not_stored, bypassed, failed, stopped]
}

#[tokio::test]
async fn answers_are_stored_and_what_is_fresh_is_skipped_also_through_the_layers_themselves() {
    for world in World::all().await {
        let (cache, origin) = (world.cache(), Origin::with(FRESH));
        let app = boxed(cache.layers().layer(origin.clone()));
        // The bare service and the one with layers fill the same entries.
        let bare = cache.warm(origin.clone(), urls(3)).finish().await;
        assert_eq!(counts(&bare), [3, 0, 0, 0, 0, 0], "{}", world.name);
        let layered = cache.warm(app.clone(), urls(5)).finish().await;
        assert_eq!(counts(&layered), [2, 3, 0, 0, 0, 0], "{}", world.name);
        assert_eq!((origin.count(), layered.total()), (5, 5));
        for n in 0..5 {
            assert_eq!(get(&app, &format!("http://shop.example/{n}")).await.x_cache(), "HIT");
        }
        cache.invalidate().url("http://shop.example/1").await.unwrap();
        let again = cache.warm(app, urls(5)).finish().await;
        assert_eq!(counts(&again), [1, 4, 0, 0, 0, 0], "{}", world.name);
    }
}

#[tokio::test]
async fn what_is_stale_is_validated_and_what_soon_will_be_is_on_request() {
    for world in World::all().await {
        let origin = Origin::new(|request, _| {
            let fields = &[("cache-control", "max-age=60"), ("etag", "\"a\"")];
            let status = if request.headers().contains_key("if-none-match") { 304 } else { 200 };
            respond(status, fields, if status == 200 { "content" } else { "" })
        });
        let cache = world.cache();
        assert_eq!(cache.warm(origin.clone(), urls(1)).finish().await.stored, 1);
        world.wait(61);
        assert_eq!(cache.warm(origin.clone(), urls(1)).finish().await.stored, 1);
        assert_eq!(origin.last().2["if-none-match"], "\"a\"");
        world.wait(30);
        assert_eq!(cache.warm(origin.clone(), urls(1)).finish().await.fresh, 1);
        let ahead = request("GET", "http://shop.example/0", &[("cache-control", "min-fresh=45")]);
        assert_eq!(cache.warm(origin.clone(), [ahead]).finish().await.stored, 1);
        assert_eq!(origin.count(), 3);
    }
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_allowed_and_none_is_taken_before_its_time() {
    for world in World::all().await {
        let (cache, origin) = (world.cache(), Crowded::taking(20));
        let taken = Arc::new(AtomicUsize::new(0));
        let requests = {
            let taken = Arc::clone(&taken);
            // It never ends.
            (0..).map(move |n| {
                taken.fetch_add(1, Ordering::SeqCst);
                request("GET", &format!("http://shop.example/{n}"), &[])
            })
        };
        let mut warming = cache.warm(origin.clone(), requests).concurrency(3).per_second(10_000);
        for heard in 1..=12 {
            let outcome = warming.next().await.unwrap();
            assert!(matches!(outcome.warmed, Warmed::Stored { .. }), "{outcome}");
            assert!(taken.load(Ordering::SeqCst) <= heard + 3);
        }
        assert_eq!(origin.most.load(Ordering::SeqCst), 3, "{}", world.name);
    }
}

#[tokio::test]
async fn requests_go_out_at_the_rate_and_what_is_fresh_does_not_count() {
    for world in World::all().await {
        let (cache, origin) = (world.cache(), Crowded::default());
        let start = Instant::now();
        let summary = cache.warm(origin.clone(), urls(11)).concurrency(11).per_second(50).finish().await;
        assert_eq!((summary.stored, origin.begun()), (11, 11));
        assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
        // At one a second, eleven would take ten seconds.
        let start = Instant::now();
        let summary = cache.warm(origin.clone(), urls(11)).per_second(1).finish().await;
        assert_eq!((summary.fresh, origin.begun()), (11, 11));
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn the_stream_says_how_many_are_to_come() {
    let [world, _] = World::all().await;
    let mut warming = world.cache().warm(Crowded::default(), urls(4)).concurrency(2);
    assert_eq!(warming.size_hint(), (4, Some(4)));
    for left in (0..4).rev() {
        assert!(warming.next().await.is_some());
        assert_eq!(warming.size_hint(), (left, Some(left)));
    }
    assert!(warming.next().await.is_none());
}

#[tokio::test]
async fn stopped_it_sends_nothing_more_finishes_what_is_under_way_and_ends() {
    for world in World::all().await {
        let (cache, origin) = (world.cache(), Crowded::taking(50));
        let mut warming = cache.warm(origin.clone(), urls(1000)).concurrency(4).per_second(10_000);
        let stop = warming.stop_handle();
        let first = warming.next().await.unwrap();
        assert!(matches!(first.warmed, Warmed::Stored { .. }), "{first}");
        stop.stop();
        let begun = origin.begun();
        let rest: Vec<Outcome> = tokio::time::timeout(Duration::from_secs(10), warming.collect()).await.unwrap();
        assert!(rest.len() <= 4, "{}", rest.len());
        assert!(
            rest.iter().all(|outcome| matches!(outcome.warmed, Warmed::Stored { .. } | Warmed::Stopped)),
            "{rest:?}"
        );
        assert!(origin.begun() <= begun + 4, "{}", world.name);
        assert_eq!(origin.begun(), origin.ended(), "nothing was broken off");
    }
}

#[tokio::test]
async fn stopped_it_does_not_wait_for_its_rate() {
    let [world, _] = World::all().await;
    // The next one would be sent in a second, the last in four.
    let mut warming = world.cache().warm(Crowded::default(), urls(100)).concurrency(5).per_second(1);
    let stop = warming.stop_handle();
    assert!(matches!(warming.next().await.unwrap().warmed, Warmed::Stored { .. }));
    stop.stop();
    let summary = tokio::time::timeout(Duration::from_millis(500), warming.finish()).await.expect("it ends at once");
    assert_eq!((summary.stopped, summary.total()), (4, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_it_begins_nothing_more_and_what_is_under_way_is_stored() {
    for world in World::all().await {
        let (cache, origin) = (world.cache(), Crowded::taking(50));
        let mut warming = cache.warm(origin.clone(), urls(1000)).concurrency(2).per_second(10_000);
        warming.next().await.unwrap();
        drop(warming);
        let begun = origin.begun();
        wait_until("it to come to its end", Duration::from_secs(10), || origin.begun() == origin.ended());
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(origin.begun() <= begun + 2, "{}", world.name);
        assert!(cache.shutdown(Duration::from_secs(10)).await);
        let stored = cache.backend().clone();
        let summary = HttpCache::new(&stored).warm(origin.clone(), urls(origin.ended())).finish().await;
        assert_eq!(summary.fresh, summary.total(), "{}: {summary}", world.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_it_and_gives_back_its_leases() {
    for world in World::all().await {
        let patient = || world.cache().lease(Duration::from_secs(30)).wait(Duration::from_secs(30));
        let (cache, origin) = (patient(), Crowded::taking(60_000));
        let warming = cache.warm(origin.clone(), urls(1000)).concurrency(2).per_second(10_000);
        let warming = tokio::spawn(warming.finish());
        wait_until("both to begin", Duration::from_secs(10), || origin.begun() == 2);
        assert!(!cache.shutdown(Duration::from_millis(50)).await, "they had to be dropped");
        let summary = tokio::time::timeout(Duration::from_secs(10), warming).await.unwrap().unwrap();
        assert_eq!((summary.failed, summary.total()), (2, 2), "{}", world.name);
        // Another process asks at once, without waiting for a lease to end.
        let other = Crowded::default();
        let start = Instant::now();
        assert_eq!(patient().warm(other, urls(2)).finish().await.stored, 2);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn what_cannot_be_stored_says_why_and_what_the_cache_passes_by_is_never_sent() {
    for world in World::all().await {
        let origin = Origin::new(|request, _| match request.uri().path() {
            "/plain" => respond(200, &[], "x"),
            "/private" => respond(200, &[("cache-control", "private")], "x"),
            "/missing" => respond(404, FRESH, "x"),
            "/broken" => respond(503, &[], "x"),
            "/dead" => respond(200, &[("x-refuse", "1")], ""),
            "/panics" => panic!("the handler panics"),
            path => panic!("{path} must not be asked"),
        });
        let cache = world.cache().rule("/admin/{*rest}", Rule::bypass()).unwrap().without_status_fields();
        let with_status = world.cache().scope("status");
        let ask = async |cache: &HttpCache, method: &str, path: &str| {
            let request = request(method, &format!("http://shop.example{path}"), &[]);
            let mut warming = cache.warm(origin.clone(), [request]);
            warming.next().await.unwrap()
        };
        let said = async |path: &str| ask(&with_status, "GET", path).await.to_string();
        assert_eq!(said("/plain").await, "http://shop.example/plain: not stored (200, no-freshness)");
        assert_eq!(said("/private").await, "http://shop.example/private: not stored (200, private)");
        assert_eq!(said("/missing").await, "http://shop.example/missing: stored (404, 1 bytes)");
        assert!(said("/broken").await.starts_with("http://shop.example/broken: not stored (503"), "{}", world.name);
        assert_eq!(said("/dead").await, "http://shop.example/dead: failed (connection refused)");
        assert!(matches!(ask(&cache, "GET", "/plain").await.warmed, Warmed::NotStored { reason: None, .. }));
        let panics = ask(&cache, "GET", "/panics").await;
        assert!(matches!(panics.warmed, Warmed::NotStored { .. } | Warmed::Failed { .. }), "{panics}");
        for (method, path, why) in [
            ("POST", "/a", "method"),
            ("DELETE", "/a", "method"),
            ("HEAD", "/a", "method"),
            ("GET", "/admin/a", "rule"),
        ] {
            match ask(&cache, method, path).await.warmed {
                Warmed::Bypassed { reason, .. } => assert_eq!(reason, why),
                other => panic!("{method} {path}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_failure_is_one_where_a_stale_answer_stands_in_too() {
    for world in World::all().await {
        for (fields, said) in [
            (&[] as &[_], "failed (503, and a stale answer stands in)"),
            (&[("x-refuse", "1")], "failed (no answer, and a stale answer stands in)"),
        ] {
            for layered in [false, true] {
                let cache = world.cache().scope(&format!("{said}{layered}")).without_status_fields();
                let origin = Origin::new(move |_, n| match n {
                    1 => respond(200, &[("cache-control", "max-age=60, stale-if-error=600")], "content"),
                    _ => respond(503, fields, ""),
                });
                let app = if layered { boxed(cache.layers().layer(origin)) } else { boxed(origin) };
                assert_eq!(cache.warm(app.clone(), urls(1)).finish().await.stored, 1);
                world.wait(61);
                let outcome = cache.warm(app, urls(1)).next().await.unwrap().to_string();
                assert_eq!(outcome, format!("http://shop.example/0: {said}"), "{} {layered}", world.name);
            }
        }
    }
}

#[tokio::test]
async fn what_names_no_host_is_not_sent_unless_all_hosts_share_their_responses() {
    for world in World::all().await {
        let origin = Origin::with(FRESH);
        let said = async |cache: HttpCache, fields: &[(&str, &str)]| {
            cache.warm(origin.clone(), [request("GET", "/1", fields)]).next().await.unwrap().to_string()
        };
        assert_eq!(said(world.cache(), &[]).await, "/1: bypassed (host)", "{}", world.name);
        assert_eq!(origin.count(), 0);
        assert_eq!(said(world.cache(), &[("host", "shop.example")]).await, "/1: stored (200, 8 bytes)");
        assert_eq!(said(world.cache().any_host(), &[]).await, "/1: stored (200, 8 bytes)");
    }
}

#[tokio::test]
async fn an_origin_that_hangs_costs_its_timeout_and_no_more() {
    for world in World::all().await {
        let origin = Crowded::taking(60_000);
        let warming = world.cache().warm(origin, urls(2)).timeout(Duration::from_millis(50)).finish();
        let summary = tokio::time::timeout(Duration::from_secs(10), warming).await.unwrap();
        assert_eq!((summary.failed, summary.total()), (2, 2), "{}", world.name);
    }
}

#[tokio::test]
async fn a_store_that_is_out_of_reach_is_said_and_the_origin_is_left_alone() {
    let server = RedisServer::start();
    let backend = Backend::redis(server.url()).operation_timeout(Duration::from_millis(200)).connect().await.unwrap();
    let (cache, origin) = (HttpCache::new(&backend), Origin::with(FRESH));
    assert_eq!(cache.warm(origin.clone(), urls(1)).finish().await.stored, 1);
    drop(server);
    let summary = tokio::time::timeout(Duration::from_secs(10), cache.warm(origin.clone(), urls(20)).finish());
    let summary = summary.await.unwrap();
    assert_eq!((summary.failed, summary.total()), (20, 20));
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn each_variant_is_warmed_by_a_request_for_it() {
    for world in World::all().await {
        let origin = Origin::new(|request, _| {
            let language = request.headers()["accept-language"].to_str().unwrap().to_owned();
            respond(200, &[("cache-control", "max-age=60"), ("vary", "accept-language")], language)
        });
        let cache = world.cache();
        let app: App = boxed(cache.layers().layer(origin.clone()));
        let languages = ["en", "de"].map(|l| request("GET", "http://shop.example/", &[("accept-language", l)]));
        assert_eq!(cache.warm(app.clone(), languages).finish().await.stored, 2);
        for language in ["en", "de"] {
            let answer = get_with(&app, "http://shop.example/", &[("accept-language", language)]).await;
            assert_eq!((answer.x_cache(), answer.body.as_str()), ("HIT", language), "{}", world.name);
        }
    }
}

#[tokio::test]
async fn two_processes_that_warm_the_same_list_share_the_work() {
    for world in World::all().await {
        // Two caches on one backend are two processes, as far as flights are concerned.
        let (one, two) = (world.cache(), world.cache());
        let origin = Crowded::taking(20);
        let (a, b) = tokio::join!(
            one.warm(origin.clone(), urls(30)).per_second(10_000).finish(),
            two.warm(origin.clone(), urls(30)).per_second(10_000).finish(),
        );
        assert_eq!((a.fresh + a.stored, b.fresh + b.stored), (30, 30), "{}: {a}; {b}", world.name);
        assert_eq!(origin.begun(), 30, "{}", world.name);
    }
}

#[tokio::test]
async fn a_list_comes_from_a_file_and_a_mistake_in_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("urls.txt");
    std::fs::write(&file, "# what most ask for\n/1\n\nhttp://shop.example/2\n").unwrap();
    for world in World::all().await {
        let list = List::read(&file).await.unwrap().at("http://shop.example").unwrap();
        let cache = world.cache();
        let app = boxed(cache.layers().layer(Origin::with(FRESH)));
        let summary = cache.warm(app.clone(), list.requests::<String>().map(|r| r.map(full))).finish().await;
        assert_eq!((summary.stored, list.len()), (2, 2));
        // As a server sees a client's request: the path, and the host in a field.
        let asked = get_with(&app, "/1", &[("host", "shop.example")]).await;
        assert_eq!(asked.x_cache(), "HIT", "{}", world.name);
    }
    std::fs::write(&file, "/1\nnot a url\n").unwrap();
    let error = List::read(&file).await.unwrap_err().to_string();
    assert!(error.contains("urls.txt: line 2: "), "{error}");
    let error = List::read(folder.path().join("none.txt")).await.unwrap_err().to_string();
    assert!(error.contains("none.txt: "), "{error}");
    std::fs::write(&file, b"/\xff").unwrap();
    assert!(List::read(&file).await.is_err());
}
