//! What a hit costs beside what it replaces: in memory beside a bare axum route, on Redis beside a bare GET of the same
//! bytes. Run with `cargo bench --all-features --bench hit`; the second half needs a `redis-server`.
//!
//! With `-- --times N WHAT` it only does one thing N times, for callgrind: what 2 N take more than N is what N of them
//! cost. WHAT is `request`, `route`, `hit`, `router`, `stack` (the four cache layers), `each` (each of the six layers),
//! `six` (the same with a second limit) or `pass LAYER` (a request that the layer does not concern).

#[path = "support/rounds.rs"]
mod rounds;
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
use rounds::rounds;
use servers::RedisServer;
use support::{Subject, compare, each};
use tokio::runtime::{Handle, Runtime};
use tower::{Layer, Service, ServiceExt};
use tower_gatehouse::{
    Backend, BoxError, CacheLayer, CoalesceLayer, HttpCache, ResponseExt, Rule, SwrLayer, TagInvalidationLayer,
    rate_limit::{Key, PeerAddr, Quota, RateLimitLayer},
    session::{KeyRing, SessionLayer},
};

const SIZES: [usize; 2] = [2 * 1024, 64 * 1024];
const DAY: std::time::Duration = std::time::Duration::from_hours(24);
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
        at_once(size);
    }
    all_six();
    compare("A request that no layer concerns", unconcerned());
    let server = RedisServer::start();
    for size in SIZES {
        on_redis(&runtime, &server, size);
    }
}

/// The floor is a route whose handler has its bytes at hand: the cheapest that a cache can stand before.
fn in_memory(size: usize) {
    let content = content(size);
    let route = route(content);
    let backend = Backend::memory();
    let cache = HttpCache::new(&backend);
    let mut bare = route.clone();
    let mut in_router = route.clone().layer(CacheLayer::new(&cache));
    let mut around = CacheLayer::new(&cache).layer(route.clone());
    let quiet = HttpCache::new(&Backend::memory()).without_status_fields();
    let mut quiet = CacheLayer::new(&quiet).layer(route.clone());
    Handle::current().block_on(answer(&mut quiet));
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

/// As a server has it: without a state axum makes the handler's route anew for each request.
fn route(content: Bytes) -> Router {
    Router::new().route("/products/{id}", get(async move || (FIELDS, content))).with_state(())
}

/// One thing, many times.
fn only(what: &str, times: u64) {
    let content = content(SIZES[0]);
    let mut route = route(content);
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
        "six" => {
            let backend = Backend::memory();
            let mut six = around(&backend).layer(by_user(&backend).layer(stack(&cache, route)));
            many(Box::new(move || ask(&mut six)));
        }
        "each" => {
            let mut each = around(&Backend::memory()).layer(stack(&cache, route));
            many(Box::new(move || ask(&mut each)));
        }
        other => {
            match other.strip_prefix("pass ").and_then(|layer| unconcerned().into_iter().find(|(n, _)| *n == layer)) {
                Some((_, mut passes)) => passes(times),
                None => panic!("{other} is not known"),
            }
        }
    }
}

/// 64 tasks on two threads, all for the same page.
fn at_once(size: usize) {
    let content = content(size);
    let route = route(content);
    let mut around = CacheLayer::new(&Backend::memory()).layer(route.clone());
    Handle::current().block_on(answer(&mut around));
    let two = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    compare(
        &format!("64 tasks on two threads, one answer for each, {size} bytes"),
        vec![
            ("bare route", Box::new(|n| two.block_on(tasks(n, &route)))),
            ("CacheLayer around the router", Box::new(|n| two.block_on(tasks(n, &around)))),
        ],
    );
}

async fn tasks<S, R>(n: u64, service: &S)
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    R: http_body::Body<Data = Bytes> + Send,
    R::Error: Into<BoxError> + std::fmt::Debug,
{
    let tasks = (0..64).map(|_| {
        let mut service = service.clone();
        tokio::spawn(async move {
            for _ in 0..n {
                answer(&mut service).await;
                // As a connection that waits for its next request.
                tokio::task::yield_now().await;
            }
        })
    });
    futures_util::future::join_all(tasks).await;
}

/// A hit through everything: a limit or two, a session that nobody asks for, the four cache layers.
fn all_six() {
    let content = content(SIZES[0]);
    let route = route(content);
    let backend = Backend::memory();
    let cache = HttpCache::new(&backend);
    let mut alone = CacheLayer::new(&cache).layer(route.clone());
    let mut once = around(&backend).layer(stack(&cache, route.clone()));
    let mut six = around(&backend).layer(by_user(&backend).layer(stack(&cache, route)));
    Handle::current().block_on(answer(&mut alone));
    compare(
        "A hit in memory through all six layers",
        vec![
            each("CacheLayer alone", move || ask(&mut alone)),
            each("limit by address, session, tags, swr, cache, coalesce", move || ask(&mut once)),
            each("the same with a limit by user within the session", move || ask(&mut six)),
            each("the request alone", || request(PATH)),
        ],
    );
}

/// What a layer costs a request that it has nothing to do with: a rule says that it is not cached, it has no session,
/// and it has no key by which a limit counts it.
fn unconcerned() -> Vec<Subject<'static>> {
    let route = Router::new().route("/live/{id}", get(async || content(0))).with_state(());
    let backend = Backend::memory();
    let cache = HttpCache::new(&backend).rule("/live/{id}", Rule::bypass()).unwrap();
    let mut bare = route.clone();
    let ask_bare = move || {
        let response = bare.call(request("/live/17")).now_or_never().expect("nothing waits").unwrap();
        response.status()
    };
    let api_key = Key::header(header::HeaderName::from_static("x-api-key"));
    let limit = RateLimitLayer::new(&backend, "key", api_key, Quota::per_minute(PLENTY));
    vec![
        each("bare route", ask_bare),
        each("RateLimitLayer", asks(limit.layer(route.clone()))),
        each("SessionLayer", asks(SessionLayer::new(&backend, KeyRing::ephemeral()).layer(route.clone()))),
        each("TagInvalidationLayer", asks(TagInvalidationLayer::new(&cache).layer(route.clone()))),
        each("SwrLayer", asks(SwrLayer::new(&cache).layer(route.clone()))),
        each("CacheLayer", asks(CacheLayer::new(&cache).layer(route.clone()))),
        each("CoalesceLayer", asks(CoalesceLayer::new(&cache).layer(route.clone()))),
        each("the four cache layers", asks(stack(&cache, route.clone()))),
        each("all six layers", {
            let session = SessionLayer::new(&backend, KeyRing::ephemeral());
            asks(limit.layer(session.layer(stack(&cache, route.clone()))))
        }),
        each("the request alone", || request("/live/17")),
    ]
}

fn asks<S, R>(mut service: S) -> impl FnMut() -> http::StatusCode + 'static
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible> + 'static,
{
    move || service.call(request("/live/17")).now_or_never().expect("nothing waits").unwrap().status()
}

/// Never used up.
const PLENTY: u32 = 1_000_000_000;

/// What stands around the cache layers: a limit by address, and the session.
fn around(backend: &Backend) -> (RateLimitLayer, SessionLayer) {
    let by_address = RateLimitLayer::new(backend, "ip", Key::peer_ip(), Quota::per_minute(PLENTY));
    (by_address, SessionLayer::new(backend, KeyRing::ephemeral()))
}

/// The second limit, within the session.
fn by_user(backend: &Backend) -> RateLimitLayer {
    RateLimitLayer::new(backend, "user", Key::user(), Quota::per_minute(PLENTY))
}

/// The four cache layers in their order.
fn stack(
    cache: &HttpCache,
    route: Router,
) -> impl Service<
    Request<Body>,
    Response = Response<impl http_body::Body<Data = Bytes, Error: Into<BoxError> + std::fmt::Debug> + Send + 'static>,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ 'static {
    let cached = CacheLayer::new(cache).layer(CoalesceLayer::new(cache).layer(route));
    TagInvalidationLayer::new(cache).layer(SwrLayer::new(cache).layer(cached))
}

const FIELDS: [(header::HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (header::CACHE_CONTROL, "max-age=3600"),
    (header::ETAG, "\"v17\""),
];

fn content(size: usize) -> Bytes {
    Bytes::from(vec![b'x'; size])
}

/// A request as a server hands it over: it says who is connected.
fn request(path: &str) -> Request<Body> {
    let mut request = Request::get(format!("http://shop.example{path}"))
        .header(header::ACCEPT, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
        .header(header::ACCEPT_ENCODING, "gzip, br")
        .header(header::ACCEPT_LANGUAGE, "de,en;q=0.7")
        .header(header::USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
        .body(Body::empty())
        .unwrap();
    request.extensions_mut().insert(PeerAddr(([192, 0, 2, 1], 50_000).into()));
    request
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
    let names: Vec<fred::types::Key> = (0..64).map(|page| format!("bare{page}").into()).collect();
    let (fred, layer, sent) = runtime.block_on(async {
        let config = fred::prelude::Config::from_url(&server.url()).unwrap();
        let client = fred::prelude::Builder::from_config(config).build().unwrap();
        client.init().await.unwrap();
        for name in &names {
            let _: () = client.set(name, content.clone(), None, None, false).await.unwrap();
        }
        let namespace = format!("bench{size}");
        // A turn that the machine has interrupted must not open the breaker: what follows would be misses.
        let backend = Backend::redis(server.url()).namespace(namespace).operation_timeout(DAY);
        let sent = backend.clone().near_cache(0).connect().await.unwrap();
        (client, CacheLayer::new(&backend.connect().await.unwrap()), CacheLayer::new(&sent))
    });
    for tags in ["", "a,b"] {
        let content = content.clone();
        let answer = async move || ([(header::HeaderName::from_static("cache-tag"), tags)], FIELDS, content);
        let kind = if tags.is_empty() { "plain" } else { "tagged" };
        let router = Router::new().route(&format!("/{kind}/{{page}}"), get(answer)).with_state(());
        let (app, sent) = (layer.layer(router.clone()), sent.layer(router));
        let paths: Vec<String> = (0..64).map(|page| format!("/{kind}/{page}")).collect();
        let (fred, names, paths) = (&fred, &names, &paths);
        for path in paths {
            runtime.block_on(async { answer_of(&app, path).await.into_body().collect().await.unwrap() });
            for again in [&app, &app, &app, &sent] {
                assert!(runtime.block_on(answer_of(again, path)).cache_status().unwrap().is_hit());
            }
        }
        for (at_once, pages) in [(1, 1), (64, 1), (64, 64)] {
            let bare = move |page: usize| async move {
                let value: Bytes = fred.get(&names[page % pages]).await.unwrap();
                assert_eq!(value.len(), size);
            };
            let [hit, all_sent] = [&app, &sent].map(|app| {
                move |page: usize| async move {
                    let body = answer_of(app, &paths[page % pages]).await.into_body();
                    assert_eq!(body.collect().await.unwrap().to_bytes().len(), size);
                }
            });
            compare(
                &format!("A hit on Redis, a round of {at_once}, pages: {pages}, {size} bytes, tags: {tags:?}"),
                vec![
                    rounds(runtime, "fred: GET", at_once, bare),
                    rounds(runtime, "CacheLayer", at_once, hit),
                    rounds(runtime, "CacheLayer, near_cache(0)", at_once, all_sent),
                ],
            );
        }
    }
}

async fn answer_of<S: Service<Request<Body>> + Clone>(app: &S, path: &str) -> S::Response
where
    S::Error: std::fmt::Debug,
{
    app.clone().oneshot(request(path)).await.unwrap()
}
