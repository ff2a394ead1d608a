//! Storing, hits, freshness, validation, invalidation: the main way.

use std::time::Duration;

use tower::{Layer, ServiceBuilder};
use tower_gatehouse::{
    Backend, CacheLayer, HttpCache, Rule, TestClock, Timestamp,
    backend::{Lookup, PrimaryKey, VaryOf},
};

use crate::{
    app::{App, Origin, boxed, get, get_with, request, respond, send},
    support::altered::{Alter, Altered},
};

const URL: &str = "http://example.com/a";

fn app(cache: &HttpCache, origin: &Origin) -> App {
    boxed(CacheLayer::new(cache).layer(origin.clone()))
}

fn fixture(origin: &Origin) -> (TestClock, HttpCache, App) {
    let clock = TestClock::new();
    let cache = HttpCache::new(&Backend::memory_with(&clock));
    let app = app(&cache, origin);
    (clock, cache, app)
}

#[tokio::test]
async fn a_fresh_response_is_answered_from_the_store_until_it_is_stale() {
    let origin = Origin::with(&[("cache-control", "max-age=60")]);
    let (clock, _, app) = fixture(&origin);
    let first = get(&app, URL).await;
    assert_eq!((first.body.as_str(), first.x_cache()), ("answer 1", "MISS"));
    assert_eq!(first.field("cache-status"), "gatehouse; fwd=uri-miss; ttl=60; stored");
    clock.advance(Duration::from_secs(10));
    let second = get(&app, URL).await;
    assert_eq!((second.body.as_str(), second.x_cache(), second.field("age")), ("answer 1", "HIT", "10"));
    assert_eq!(second.field("cache-status"), "gatehouse; hit; ttl=50");
    assert_eq!(second.field("content-length"), "8");
    clock.advance(Duration::from_secs(50));
    let third = get(&app, URL).await;
    assert_eq!((third.body.as_str(), third.x_cache()), ("answer 2", "MISS"), "{third:?}");
    assert_eq!(origin.count(), 2);
}

/// Where the time need not be exact, it is behind by as much as it may be.
#[derive(Debug)]
struct Lagging(Backend);

impl Alter for Lagging {
    fn inner(&self) -> &Backend {
        &self.0
    }

    fn about_now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.now().as_micros() - 499_999)
    }

    fn lookup_now(&self, key: &PrimaryKey, vary: &VaryOf<'_>, now: Timestamp) -> Option<Lookup> {
        self.0.lookup_now(key, vary, now)
    }
}

#[tokio::test]
async fn a_time_that_is_about_now_makes_nothing_fresh_that_is_not() {
    let origin = Origin::with(&[("cache-control", "max-age=60")]);
    let clock = TestClock::new();
    let cache = HttpCache::new(&Backend::custom(Altered(Lagging(Backend::memory_with(&clock)))));
    let app = app(&cache, &origin);
    get(&app, URL).await;
    clock.advance(Duration::from_secs(11));
    assert_eq!(get(&app, URL).await.body, "answer 1");
    let young = get_with(&app, URL, &[("cache-control", "max-age=10")]).await;
    assert_eq!(young.body, "answer 2", "a request that says how old it may be is answered by the exact time");
    clock.advance(Duration::from_millis(59_900));
    let last = get(&app, URL).await;
    assert_eq!((last.body.as_str(), last.field("age")), ("answer 2", "59"), "near its end by the exact time");
    clock.advance(Duration::from_millis(100));
    assert_eq!(get(&app, URL).await.body, "answer 3");
    cache.invalidate().soft().url(URL).await.expect("an invalidation");
    assert_eq!(get(&app, URL).await.body, "answer 4", "stale at once");
}

#[tokio::test]
async fn what_says_nothing_is_not_stored_and_says_why() {
    let origin = Origin::with(&[]);
    let (_, _, app) = fixture(&origin);
    get(&app, URL).await;
    let second = get(&app, URL).await;
    assert_eq!((second.body.as_str(), second.detail()), ("answer 2", "no-freshness"));
}

#[tokio::test]
async fn a_stale_response_is_validated_and_a_304_refreshes_it() {
    let origin = Origin::new(|request, _| {
        if request.headers().get("if-none-match").is_some_and(|tag| tag == "\"v1\"") {
            respond(304, &[("etag", "\"v1\""), ("cache-control", "max-age=60"), ("x-new", "yes")], "")
        } else {
            respond(200, &[("etag", "\"v1\""), ("cache-control", "max-age=60")], "content")
        }
    });
    let (clock, _, app) = fixture(&origin);
    get(&app, URL).await;
    clock.advance(Duration::from_secs(61));
    let validated = get_with(&app, URL, &[("if-none-match", "\"other\"")]).await;
    assert_eq!((validated.status, validated.body.as_str(), validated.x_cache()), (200, "content", "REVALIDATED"));
    assert_eq!(validated.field("x-new"), "yes");
    assert_eq!(validated.cache.as_ref().unwrap().forward_status(), Some(304));
    let hit = get(&app, URL).await;
    assert_eq!((hit.body.as_str(), hit.x_cache(), hit.field("x-new")), ("content", "HIT", "yes"));
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn the_clients_own_condition_is_answered_from_the_store_and_from_a_fill() {
    let origin = Origin::with(&[("cache-control", "max-age=60"), ("etag", "\"v1\"")]);
    let (_, _, app) = fixture(&origin);
    let filled = get_with(&app, URL, &[("if-none-match", "\"v1\"")]).await;
    assert_eq!((filled.status, filled.body.as_str()), (304, ""));
    assert!(!origin.last().2.contains_key("if-none-match"), "the origin is asked for the whole");
    let mut tries = 0;
    while get(&app, URL).await.x_cache() != "HIT" && tries < 100 {
        tries += 1;
    }
    let hit = get_with(&app, URL, &[("if-none-match", "W/\"v1\", \"v2\"")]).await;
    assert_eq!((hit.status, hit.body.as_str(), hit.x_cache(), hit.field("etag")), (304, "", "HIT", "\"v1\""));
}

#[tokio::test]
async fn an_unsafe_request_that_succeeds_invalidates_and_one_that_fails_does_not() {
    let origin = Origin::new(|request, n| match request.method().as_str() {
        "GET" => respond(200, &[("cache-control", "max-age=60")], format!("answer {n}")),
        "PUT" => respond(500, &[], ""),
        _ => respond(201, &[("location", "/b")], ""),
    });
    let (_, _, app) = fixture(&origin);
    get(&app, URL).await;
    get(&app, "http://example.com/b").await;
    send(&app, request("PUT", URL, &[])).await;
    assert_eq!(get(&app, URL).await.body, "answer 1");
    let posted = send(&app, request("POST", URL, &[])).await;
    assert_eq!(
        (posted.status, posted.x_cache(), posted.field("cache-status")),
        (201, "BYPASS", "gatehouse; fwd=method")
    );
    assert_eq!(get(&app, URL).await.body, "answer 5");
    assert_eq!(get(&app, "http://example.com/b").await.body, "answer 6", "Location is invalidated too");
}

#[tokio::test]
async fn rules_by_path_give_lifetimes_tags_and_bypasses() {
    let origin = Origin::with(&[]);
    let cache = HttpCache::new(&Backend::memory())
        .rule("/products/{id}", Rule::ttl(Duration::from_mins(1)).tag("product:{id}"))
        .unwrap()
        .rule("/admin/{*rest}", Rule::bypass())
        .unwrap();
    let app = app(&cache, &origin);
    assert_eq!(get(&app, "http://h/products/1").await.x_cache(), "MISS");
    assert_eq!(get(&app, "http://h/products/1").await.x_cache(), "HIT");
    assert_eq!(get(&app, "http://h/products/2").await.x_cache(), "MISS");
    let bypassed = get(&app, "http://h/admin/x").await;
    assert_eq!((bypassed.x_cache(), bypassed.detail()), ("BYPASS", "rule"));
    cache.invalidate().tag("product:1").await.unwrap();
    assert_eq!(get(&app, "http://h/products/1").await.x_cache(), "MISS");
    assert_eq!(get(&app, "http://h/products/2").await.x_cache(), "HIT");
}

#[tokio::test]
async fn layers_stack_with_service_builder() {
    let origin = Origin::with(&[("cache-control", "max-age=60")]);
    let cache = HttpCache::new(&Backend::memory());
    let app = boxed(
        ServiceBuilder::new()
            .layer(tower_gatehouse::TagInvalidationLayer::new(&cache))
            .layer(tower_gatehouse::SwrLayer::new(&cache))
            .layer(CacheLayer::new(&cache))
            .layer(tower_gatehouse::CoalesceLayer::new(&cache))
            .service(origin.clone()),
    );
    assert_eq!(get(&app, URL).await.x_cache(), "MISS");
    let hit = get(&app, URL).await;
    assert_eq!((hit.x_cache(), hit.headers.get_all("cache-status").iter().count()), ("HIT", 1));
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn when_the_origin_fails_a_stale_response_stands_in_where_it_may() {
    let origin = Origin::script([
        (200, &[("cache-control", "max-age=10, stale-if-error=60")] as &[_], "content"),
        (503, &[], "down"),
    ]);
    let (clock, _, app) = fixture(&origin);
    get(&app, URL).await;
    clock.advance(Duration::from_secs(30));
    let stale = get(&app, URL).await;
    assert_eq!((stale.status, stale.body.as_str(), stale.x_cache()), (200, "content", "STALE"));
    assert_eq!(stale.field("cache-status"), "gatehouse; fwd=stale; fwd-status=503; ttl=-20; detail=origin-error");
    clock.advance(Duration::from_mins(1));
    let failed = get(&app, URL).await;
    assert_eq!((failed.status, failed.body.as_str()), (503, "down"), "the window has ended");
}

#[tokio::test]
async fn all_layers_stand_around_an_axum_router() {
    use axum::{Router, routing};
    use tower::ServiceExt;
    let cache = HttpCache::new(&Backend::memory());
    let handler = routing::get(async || ([("cache-control", "max-age=60")], "content"));
    let app = Router::new().route("/a/{id}", handler).layer(cache.layers());
    let answer = async || {
        let request = http::Request::get("/a/1").body(axum::body::Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let x_cache = response.headers()["x-cache"].to_str().unwrap().to_owned();
        (x_cache, axum::body::to_bytes(response.into_body(), 1000).await.unwrap())
    };
    assert_eq!(answer().await, ("MISS".to_owned(), "content".into()));
    assert_eq!(answer().await, ("HIT".to_owned(), "content".into()));
}

#[tokio::test]
async fn what_the_origin_has_removed_is_not_kept_for_its_window() {
    let origin = Origin::script([
        (200, &[("cache-control", "max-age=10, stale-while-revalidate=600")] as &[_], "content"),
        (404, &[], "gone"),
    ]);
    let clock = TestClock::new();
    let cache = HttpCache::new(&Backend::memory_with(&clock));
    let app = boxed(tower_gatehouse::SwrLayer::new(&cache).layer(origin.clone()));
    get(&app, URL).await;
    clock.advance(Duration::from_secs(20));
    assert_eq!(get(&app, URL).await.x_cache(), "STALE");
    assert!(cache.shutdown(Duration::from_secs(5)).await, "the validation in the background has ended");
    let after = get(&app, URL).await;
    assert_eq!((after.status, after.body.as_str()), (404, "gone"));
}
