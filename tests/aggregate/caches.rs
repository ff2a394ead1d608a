//! Aggregates inside cache layers, with cache layers around their parts.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};
use tower_gatehouse::{
    Backend, CacheLayer, HttpCache, SwrLayer, TestClock,
    aggregate::{Aggregate, Part},
};

use crate::support::Fields;

/// A service that counts its requests, and whose answer says how many they were.
#[derive(Clone, Default)]
struct Counted {
    asked: Arc<AtomicUsize>,
    fails: Arc<std::sync::atomic::AtomicBool>,
}

impl Counted {
    fn count(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn service(
        &self,
        fields: Fields,
    ) -> impl tower::Service<
        Request<Full<Bytes>>,
        Response = Response<Full<Bytes>>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static {
        let this = self.clone();
        service_fn(move |_: Request<Full<Bytes>>| {
            let count = this.asked.fetch_add(1, Ordering::SeqCst) + 1;
            let status = if this.fails.load(Ordering::SeqCst) { 500 } else { 200 };
            let builder =
                fields.iter().fold(Response::builder().status(status), |b, (name, value)| b.header(*name, *value));
            std::future::ready(Ok(builder.body(Full::from(count.to_string())).unwrap()))
        })
    }
}

fn request() -> Request<Full<Bytes>> {
    Request::get("http://example.com/").body(Full::default()).unwrap()
}

/// Status, `X-Cache`, data.
async fn ask<S, B>(service: &S) -> (StatusCode, String, Value)
where
    S: tower::Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let response = service.clone().oneshot(request()).await.unwrap();
    let cache = response.headers()["x-cache"].to_str().unwrap().to_owned();
    let status = response.status();
    let content = response.into_body().collect().await.unwrap().to_bytes();
    let json: Value = serde_json::from_slice(&content).unwrap();
    (status, cache, json["data"].clone())
}

const USER: Fields = &[("cache-control", "max-age=300"), ("surrogate-key", "user")];
const ORDERS: Fields = &[("cache-control", "max-age=60"), ("surrogate-key", "orders")];

fn both(user: &Counted, orders: &Counted) -> Aggregate {
    Aggregate::at("/")
        .unwrap()
        .part("user", Part::new(user.service(USER), |cx| cx.get("/user")))
        .part("orders", Part::new(orders.service(ORDERS), |cx| cx.get("/orders")).optional())
        .build()
        .unwrap()
}

#[tokio::test]
async fn the_whole_is_stored_for_as_long_as_its_parts_are_fresh_and_purged_by_their_tags() {
    let (user, orders, clock) = (Counted::default(), Counted::default(), TestClock::new());
    let cache = HttpCache::new(&Backend::memory_with(&clock));
    let app = CacheLayer::new(&cache).layer(both(&user, &orders));
    assert_eq!(ask(&app).await, (StatusCode::OK, "MISS".into(), json!({ "user": 1, "orders": 1 })));
    clock.advance(Duration::from_secs(58));
    assert_eq!(ask(&app).await.1, "HIT");
    clock.advance(Duration::from_secs(3));
    assert_eq!(ask(&app).await.2, json!({ "user": 2, "orders": 2 }));
    assert_eq!(ask(&app).await.1, "HIT");
    for (tag, count) in [("orders", 3), ("user", 4)] {
        cache.invalidate().tag(tag).await.unwrap();
        assert_eq!(ask(&app).await.2, json!({ "user": count, "orders": count }), "{tag}");
    }
    assert_eq!((user.count(), orders.count()), (4, 4));
}

#[tokio::test]
async fn a_partial_answer_is_not_stored() {
    let (user, orders) = (Counted::default(), Counted::default());
    let app = CacheLayer::new(&Backend::memory()).layer(both(&user, &orders));
    orders.fails.store(true, Ordering::SeqCst);
    assert_eq!(ask(&app).await.2, json!({ "user": 1, "orders": null }));
    orders.fails.store(false, Ordering::SeqCst);
    assert_eq!(ask(&app).await.2, json!({ "user": 2, "orders": 2 }));
    assert_eq!(ask(&app).await.2, json!({ "user": 2, "orders": 2 }));
}

#[tokio::test]
async fn each_part_has_a_cache_of_its_own_and_its_age_counts() {
    let (user, orders, clock) = (Counted::default(), Counted::default(), TestClock::new());
    let cache = HttpCache::new(&Backend::memory_with(&clock));
    let part = |counted: &Counted, fields, path: &'static str| {
        Part::new(CacheLayer::new(&cache).layer(counted.service(fields)), move |cx| {
            cx.get(format!("http://example.com{path}"))
        })
    };
    let aggregate = Aggregate::at("/")
        .unwrap()
        .part("user", part(&user, USER, "/user"))
        .part("orders", part(&orders, ORDERS, "/orders"))
        .build()
        .unwrap();
    let lifetime = async || {
        let response = aggregate.clone().oneshot(request()).await.unwrap();
        response.headers()["cache-control"].to_str().unwrap().to_owned()
    };
    assert_eq!(lifetime().await, "max-age=60");
    clock.advance(Duration::from_secs(20));
    assert_eq!(lifetime().await, "max-age=40");
    clock.advance(Duration::from_secs(50));
    assert_eq!(lifetime().await, "max-age=60");
    assert_eq!((user.count(), orders.count()), (1, 2));
}

#[tokio::test]
async fn a_purge_reaches_the_part_in_its_own_cache_and_the_whole() {
    let (user, orders, backend) = (Counted::default(), Counted::default(), Backend::memory());
    let of_parts = HttpCache::new(&backend).expose_tags();
    let part = |counted: &Counted, fields, path: &'static str| {
        Part::new(CacheLayer::new(&of_parts).layer(counted.service(fields)), move |cx| {
            cx.get(format!("http://parts.example{path}"))
        })
    };
    let aggregate = Aggregate::at("/")
        .unwrap()
        .part("user", part(&user, USER, "/user"))
        .part("orders", part(&orders, ORDERS, "/orders"))
        .build()
        .unwrap();
    let cache = HttpCache::new(&backend);
    let app = CacheLayer::new(&cache).layer(aggregate);
    assert_eq!(ask(&app).await.2, json!({ "user": 1, "orders": 1 }));
    assert_eq!(ask(&app).await.1, "HIT");
    cache.invalidate().tag("orders").await.unwrap();
    assert_eq!(ask(&app).await, (StatusCode::OK, "MISS".into(), json!({ "user": 1, "orders": 2 })));
    assert_eq!(ask(&app).await.1, "HIT");
}

#[tokio::test]
async fn it_is_served_stale_while_it_is_gathered_anew() {
    const STALE: Fields = &[("cache-control", "max-age=10, stale-while-revalidate=60")];
    let (only, clock) = (Counted::default(), TestClock::new());
    let aggregate =
        Aggregate::at("/").unwrap().part("a", Part::new(only.service(STALE), |cx| cx.get("/"))).build().unwrap();
    let app = SwrLayer::new(HttpCache::new(&Backend::memory_with(&clock))).layer(aggregate);
    assert_eq!(ask(&app).await.2, json!({ "a": 1 }));
    clock.advance(Duration::from_secs(20));
    let (_, cache, data) = ask(&app).await;
    assert_eq!((&*cache, data), ("STALE", json!({ "a": 1 })));
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let (_, cache, data) = ask(&app).await;
        if cache == "HIT" {
            assert_eq!((data, only.count()), (json!({ "a": 2 }), 2));
            return;
        }
    }
    panic!("it was never gathered anew");
}
