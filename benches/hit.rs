//! What a hit costs beside what it replaces: in memory beside a bare axum route, on Redis beside a bare GET of the same
//! bytes. Run with `cargo bench --all-features --bench hit`; the second half needs a `redis-server`.
//!
//! With `-- --times N WHAT` it only does one thing N times, for callgrind: what 2 N take more than N is what N of them
//! cost. WHAT is `request`, `route`, `hit`, `router` or `stack`.

mod support;

#[path = "../tests/support/mod.rs"]
#[allow(clippy::pedantic, missing_debug_implementations)]
mod servers;

use std::convert::Infallible;

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use fred::prelude::{ClientLike, KeysInterface};
use futures_util::FutureExt;
use http::{Request, Response, header};
use http_body_util::BodyExt;
use servers::RedisServer;
use support::{compare, each};
use tokio::runtime::{Handle, Runtime};
use tower::{Layer, Service, ServiceExt};
use tower_gatehouse::{
    Backend, BoxError, CacheLayer, CoalesceLayer, HttpCache, ResponseExt, SwrLayer, TagInvalidationLayer,
};

const SIZES: [usize; 2] = [2 * 1024, 64 * 1024];
const PATH: &str = "/products/17?page=2";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _guard = runtime.enter();
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--times") {
        let what = args.get(at + 2).map_or("hit", |what| what);
        return only(what, args[at + 1].parse().expect("a number"));
    }
    for size in SIZES {
        in_memory(size);
    }
    let server = RedisServer::start();
    for size in SIZES {
        on_redis(&runtime, &server, size);
    }
}

/// The floor is a route whose handler has its bytes at hand: the cheapest that a cache can stand before.
fn in_memory(size: usize) {
    let content = content(size);
    let route = Router::new().route("/products/{id}", get(async move || (FIELDS, content)));
    let backend = Backend::memory();
    let cache = HttpCache::new(&backend);
    let mut bare = route.clone();
    let mut in_router = route.clone().layer(CacheLayer::new(&cache));
    let mut around = CacheLayer::new(&cache).layer(route.clone());
    let quiet = cache.clone().without_status_fields();
    let mut quiet = CacheLayer::new(&quiet).layer(route.clone());
    let mut all = stack(&cache, route);
    Handle::current().block_on(answer(&mut around));
    compare(
        &format!("A hit in memory beside a bare axum route, {size} bytes"),
        vec![
            each("bare route: request, route, handler, content", move || ask(&mut bare)),
            each("CacheLayer around the router", move || ask(&mut around)),
            each("CacheLayer around the router, no Cache-Status, X-Cache", move || ask(&mut quiet)),
            each("CacheLayer in Router::layer", move || ask(&mut in_router)),
            each("all four cache layers around the router", move || ask(&mut all)),
            each("the request alone", || request(PATH)),
        ],
    );
}

/// One thing, many times.
fn only(what: &str, times: u64) {
    let content = content(SIZES[0]);
    let mut route = Router::new().route("/products/{id}", get(async move || (FIELDS, content)));
    let cache = HttpCache::new(&Backend::memory());
    let mut hit = CacheLayer::new(&cache).layer(route.clone());
    Handle::current().block_on(answer(&mut hit));
    let many = |mut once: Box<dyn FnMut() -> usize>| (0..times).for_each(|_| assert_eq!(once(), SIZES[0]));
    match what {
        "request" => (0..times).for_each(|_| drop(std::hint::black_box(request(PATH)))),
        "route" => many(Box::new(move || ask(&mut route))),
        "hit" => many(Box::new(move || ask(&mut hit))),
        "router" => {
            let mut router = route.layer(CacheLayer::new(&cache));
            many(Box::new(move || ask(&mut router)));
        }
        "stack" => {
            let mut stack = stack(&cache, route);
            many(Box::new(move || ask(&mut stack)));
        }
        other => panic!("{other} is not known"),
    }
}

/// The four cache layers in their order.
fn stack(
    cache: &HttpCache,
    route: Router,
) -> impl Service<Request<Body>, Response = Response<impl http_body::Body<Data = Bytes, Error = BoxError>>, Error = Infallible>
{
    TagInvalidationLayer::new(cache)
        .layer(SwrLayer::new(cache).layer(CacheLayer::new(cache).layer(CoalesceLayer::new(cache).layer(route))))
}

const FIELDS: [(header::HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (header::CACHE_CONTROL, "max-age=3600"),
    (header::ETAG, "\"v17\""),
];

fn content(size: usize) -> Bytes {
    Bytes::from(vec![b'x'; size])
}

fn request(path: &str) -> Request<Body> {
    Request::get(format!("http://shop.example{path}"))
        .header(header::ACCEPT, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
        .header(header::ACCEPT_ENCODING, "gzip, br")
        .header(header::ACCEPT_LANGUAGE, "de,en;q=0.7")
        .header(header::USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
        .body(Body::empty())
        .unwrap()
}

/// Sends a request and reads the answer.
async fn answer<S, R>(service: &mut S) -> usize
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible>,
    R: http_body::Body<Data = Bytes>,
    R::Error: Into<BoxError> + std::fmt::Debug,
{
    let Ok(service) = service.ready().await;
    let Ok(response) = service.call(request(PATH)).await;
    response.into_body().collect().await.unwrap().to_bytes().len()
}

/// The same for what is stored: in memory that never waits.
fn ask<S, R>(service: &mut S) -> usize
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible>,
    R: http_body::Body<Data = Bytes>,
    R::Error: Into<BoxError> + std::fmt::Debug,
{
    answer(service).now_or_never().expect("nothing waits")
}

/// The floor is the client that the backend uses, reading a value of the same length.
fn on_redis(runtime: &Runtime, server: &RedisServer, size: usize) {
    let content = content(size);
    let (fred, layer) = runtime.block_on(async {
        let config = fred::prelude::Config::from_url(&server.url()).unwrap();
        let client = fred::prelude::Builder::from_config(config).build().unwrap();
        client.init().await.unwrap();
        let _: () = client.set("bare", content.clone(), None, None, false).await.unwrap();
        let namespace = format!("bench{size}");
        let backend = Backend::redis(server.url()).namespace(namespace).connect().await.unwrap();
        (client, CacheLayer::new(&backend))
    });
    for tags in ["", "a,b"] {
        let path = if tags.is_empty() { "/plain" } else { "/tagged" };
        let content = content.clone();
        let answer = async move || ([(header::HeaderName::from_static("cache-tag"), tags)], FIELDS, content);
        let app = layer.layer(Router::new().route(path, get(answer)));
        let (fred, app) = (&fred, &app);
        let bare = move || async move {
            let value: Bytes = fred.get("bare").await.unwrap();
            assert_eq!(value.len(), size);
        };
        let hit = move || async move {
            let response = app.clone().oneshot(request(path)).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), size);
        };
        runtime.block_on(hit());
        let answer = runtime.block_on(app.clone().oneshot(request(path))).unwrap();
        assert!(answer.cache_status().unwrap().is_hit());
        for at_once in [1, 64] {
            compare(
                &format!("A hit on Redis beside a bare GET, {size} bytes, {at_once} at a time, tags: {tags:?}"),
                vec![
                    ("fred: GET", Box::new(move |n| runtime.block_on(together(n, at_once, bare)))),
                    ("CacheLayer", Box::new(move |n| runtime.block_on(together(n, at_once, hit)))),
                ],
            );
        }
    }
}

/// Does it `n` times, so many at a time.
async fn together<F: Future<Output = ()>>(n: u64, at_once: u64, once: impl Fn() -> F + Copy) {
    let chains = (0..at_once).map(|chain| async move {
        for _ in 0..(n + chain) / at_once {
            once().await;
        }
    });
    futures_util::future::join_all(chains).await;
}
