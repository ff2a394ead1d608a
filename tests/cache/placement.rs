//! Where the layers stand: over services with a readiness of their own, in axum, around hyper (fault 24).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body as AxumBody, extract::Path, routing::get as route};
use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_gatehouse::{Backend, BoxError, CacheLayer, CoalesceLayer, HttpCache, Rule, SwrLayer, TagInvalidationLayer};

use crate::{
    app::{App, Body, Origin, boxed, full, get, request},
    support::http::get as fetch,
};

const MINUTE: &[(&str, &str)] = &[("cache-control", "max-age=60")];
const LIMIT: Duration = Duration::from_secs(10);

/// All cache layers around a service.
macro_rules! stacked {
    ($cache:expr, $service:expr) => {
        boxed(
            ServiceBuilder::new()
                .layer(TagInvalidationLayer::new($cache))
                .layer(SwrLayer::new($cache))
                .layer(CacheLayer::new($cache))
                .layer(CoalesceLayer::new($cache))
                .service($service),
        )
    };
}

async fn answers(app: &App) {
    for round in 0..3 {
        let urls: Vec<_> = (0..20).map(|n| format!("http://h/{round}/{n}")).collect();
        let all = futures_util::future::join_all(urls.iter().map(|url| get(app, url)));
        let all = tokio::time::timeout(LIMIT, all).await.expect("no hang");
        assert!(all.iter().all(|answer| answer.status == 200));
        assert_eq!(get(app, &urls[0]).await.x_cache(), "HIT");
    }
}

#[tokio::test]
async fn over_services_with_a_readiness_of_their_own_nothing_hangs() {
    let cache = || HttpCache::new(&Backend::memory());
    let slow = || {
        let origin = Origin::with(MINUTE);
        origin.clone().map_future(|answer| async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            answer.await
        })
    };
    let limited = ServiceBuilder::new().concurrency_limit(1).service(slow());
    answers(&stacked!(&cache(), limited)).await;
    let buffered = ServiceBuilder::new().buffer::<Request<Body>>(1).concurrency_limit(1).service(slow());
    answers(&stacked!(&cache(), buffered)).await;
    let timed = ServiceBuilder::new().timeout(LIMIT).concurrency_limit(1).service(slow());
    answers(&stacked!(&cache(), timed)).await;
    let shed = ServiceBuilder::new().load_shed().concurrency_limit(100).service(slow());
    answers(&stacked!(&cache(), shed)).await;
}

#[tokio::test]
async fn a_hit_does_not_wait_for_a_saturated_origin() {
    let cache = HttpCache::new(&Backend::memory());
    let origin = Origin::new(|request, n| {
        let fields: &[(&str, &str)] = if request.uri().path() == "/slow" { &[("x-wait", "")] } else { MINUTE };
        crate::app::respond(200, fields, format!("answer {n}"))
    });
    let app = stacked!(&cache, ServiceBuilder::new().concurrency_limit(1).service(origin.clone()));
    get(&app, "http://h/a").await;
    let saturate = get(&app, "http://h/slow");
    let hit = async {
        while origin.count() < 2 {
            tokio::task::yield_now().await;
        }
        let hit = tokio::time::timeout(LIMIT, get(&app, "http://h/a")).await.expect("it does not queue");
        assert_eq!(hit.x_cache(), "HIT");
        origin.gate.send_replace(true);
    };
    tokio::time::timeout(LIMIT, async { tokio::join!(saturate, hit) }).await.unwrap();
    // A request that is shed or given up does not keep its place.
    let abandoned = tokio::time::timeout(Duration::from_millis(5), get(&app, "http://h/b"));
    let _ = abandoned.await;
    assert_eq!(tokio::time::timeout(LIMIT, get(&app, "http://h/c")).await.unwrap().status, 200);
}

/// A layer's service that lives on, as in a `Buffer`, and what is not cached: it must not keep a place in the queue for
/// the next one of its kind, which may never come.
#[tokio::test]
async fn what_is_shed_does_not_keep_a_place_in_the_queue() {
    let cache = HttpCache::new(&Backend::memory());
    let origin = Origin::new(|request, n| {
        let fields: &[(&str, &str)] = if request.uri().path() == "/slow" { &[("x-wait", "")] } else { MINUTE };
        crate::app::respond(200, fields, format!("answer {n}"))
    });
    let inner = ServiceBuilder::new().load_shed().concurrency_limit(1).service(origin.clone());
    let mut app = CacheLayer::new(&cache).layer(inner);
    let passed = || request("GET", "http://h/passed", &[("if-match", "\"a\"")]);
    let slow = tokio::spawn(app.call(request("GET", "http://h/slow", &[])));
    while origin.count() < 1 {
        tokio::task::yield_now().await;
    }
    assert!(app.call(passed()).await.is_err(), "it is shed");
    origin.gate.send_replace(true);
    slow.await.unwrap().unwrap().into_body().collect().await.unwrap();
    for n in 0..3 {
        let miss = tokio::time::timeout(LIMIT, app.call(request("GET", &format!("http://h/{n}"), &[]))).await;
        miss.expect("an answer").expect("it is not shed").into_body().collect().await.unwrap();
    }
}

#[tokio::test]
async fn an_inner_service_that_gives_up_is_an_error_of_the_inner_service() {
    let cache = HttpCache::new(&Backend::memory());
    let never = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, BoxError>>());
    let timed = ServiceBuilder::new().timeout(Duration::from_millis(50)).service(never);
    let app = boxed(CacheLayer::new(&cache).layer(timed));
    let error =
        tokio::time::timeout(LIMIT, crate::app::try_send(&app, request("GET", "http://h/", &[]))).await.unwrap();
    assert!(error.unwrap_err().is::<tower::timeout::error::Elapsed>());
}

fn counted() -> (Router, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let handler = move |Path(id): Path<String>| {
        let n = counter.fetch_add(1, Ordering::SeqCst) + 1;
        async move { format!("{id} {n}") }
    };
    (Router::new().route("/products/{id}", route(handler)), count)
}

async fn axum_get(app: &Router, uri: &str) -> (String, String) {
    let response = app.clone().oneshot(Request::get(uri).body(AxumBody::empty()).unwrap()).await.unwrap();
    let x_cache = response.headers().get("x-cache").map_or("", |value| value.to_str().unwrap()).to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (x_cache, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn in_axum_it_stands_around_routers_routes_and_nested_routers() {
    let rule = || Rule::ttl(Duration::from_mins(1)).tag("product:{id}");
    let cache = || HttpCache::new(&Backend::memory()).default_ttl(Duration::from_mins(1));
    for (place, prefix) in [("layer", ""), ("route_layer", ""), ("nest", "/shop")] {
        let (router, count) = counted();
        let cache = cache();
        let layers = ServiceBuilder::new().layer(CacheLayer::new(&cache)).layer(rule());
        let app = match place {
            "layer" => router.layer(layers),
            "route_layer" => router.route_layer(layers),
            _ => {
                let nested =
                    || router.clone().layer(ServiceBuilder::new().layer(CacheLayer::new(&cache)).layer(rule()));
                Router::new().nest("/shop", nested()).nest("/other", nested())
            }
        };
        let url = |id: &str| format!("http://h{prefix}/products/{id}");
        for id in ["1", "2"] {
            assert_eq!(axum_get(&app, &url(id)).await.0, "MISS", "{place}");
            assert_eq!(axum_get(&app, &url(id)).await.0, "HIT", "{place}");
        }
        assert_eq!(count.load(Ordering::SeqCst), 2, "{place}");
        if place == "nest" {
            let other = axum_get(&app, "http://h/other/products/1").await;
            assert_eq!(other, ("MISS".to_owned(), "1 3".to_owned()), "the path before it was stripped is the key");
        }
        cache.invalidate().tag("product:1").await.unwrap();
        assert_eq!(axum_get(&app, &url("1")).await.0, "MISS", "{place}: its captured part was the tag");
        assert_eq!(axum_get(&app, &url("2")).await.0, "HIT", "{place}");
        cache.invalidate().url(&url("2")).await.unwrap();
        assert_eq!(axum_get(&app, &url("2")).await.0, "MISS", "{place}");
    }
}

#[tokio::test]
async fn a_rule_on_one_route_is_for_that_route() {
    let cache = HttpCache::new(&Backend::memory());
    let rule = Rule::ttl(Duration::from_mins(1));
    let app = Router::new()
        .route("/cached", route(|| async { "a" }).layer(rule))
        .route("/bypassed", route(|| async { ([("cache-control", "max-age=60")], "b") }).layer(Rule::bypass()))
        .route("/plain", route(|| async { "c" }))
        .layer(CacheLayer::new(&cache));
    for (path, x_cache) in [("/cached", "HIT"), ("/bypassed", "MISS"), ("/plain", "MISS")] {
        axum_get(&app, &format!("http://h{path}")).await;
        assert_eq!(axum_get(&app, &format!("http://h{path}")).await.0, x_cache, "{path}");
    }
}

#[tokio::test]
async fn it_serves_hyper_s_own_bodies_over_a_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cache = HttpCache::new(&Backend::memory());
    let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
        let content = request.into_body().collect().await.expect("the content").to_bytes();
        let response = Response::builder().header("cache-control", "max-age=60");
        let body = http_body_util::Full::new(bytes::Bytes::from(format!("hello {}", content.len())));
        Ok::<_, std::convert::Infallible>(response.body(body).unwrap())
    });
    let service = ServiceBuilder::new().layer(SwrLayer::new(&cache)).layer(CacheLayer::new(&cache)).service(service);
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let url = format!("http://{address}/");
    for x_cache in ["MISS", "HIT", "HIT"] {
        let answer = fetch(&url).await;
        assert_eq!(
            (answer.text(), answer.header("x-cache"), answer.header("content-length")),
            ("hello 0", x_cache, "7")
        );
    }
    serving.abort();
}

#[tokio::test]
async fn grpc_passes_through_untouched_with_its_trailers() {
    let cache = HttpCache::new(&Backend::memory()).default_ttl(Duration::from_mins(1));
    let grpc = service_fn(|request: Request<Body>| async move {
        let asked = request.into_body().collect().await?.to_bytes();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "0".parse()?);
        let frames = [Ok::<_, BoxError>(http_body::Frame::data(asked)), Ok(http_body::Frame::trailers(trailers))];
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        Ok::<_, BoxError>(Response::builder().header("content-type", "application/grpc").body(body.boxed_unsync())?)
    });
    let app = stacked!(&cache, grpc);
    for _ in 0..2 {
        let call = Request::post("http://h/service/Method")
            .header("content-type", "application/grpc+proto")
            .header("te", "trailers")
            .body(full(&b"\0\0\0\0\x01a"[..]))
            .unwrap();
        let response = app.clone().oneshot(call).await.unwrap();
        let names: Vec<_> = response.headers().keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["content-type"], "nothing is added");
        let read = response.into_body().collect().await.unwrap();
        assert_eq!(read.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(read.to_bytes(), &b"\0\0\0\0\x01a"[..]);
    }
}

#[tokio::test]
async fn grpc_streams_in_both_directions_and_ends_with_its_client() {
    let (open, is_open) = tokio::sync::watch::channel(());
    let is_open = Arc::new(is_open);
    let grpc = service_fn(move |request: Request<Body>| {
        let held = Arc::clone(&is_open);
        async move {
            if request.uri().path() == "/service/Hangs" {
                std::future::pending::<()>().await;
            }
            drop(held);
            let echo = Response::builder().header("content-type", "application/grpc").body(request.into_body());
            Ok::<_, BoxError>(echo?)
        }
    });
    let app = boxed(CacheLayer::new(&Backend::memory()).layer(grpc));
    let call = |path: &str, body| {
        let call = Request::post(format!("http://h/service/{path}")).header("content-type", "application/grpc");
        app.clone().oneshot(call.body(body).unwrap())
    };
    let (client, mut messages) = tokio::sync::mpsc::unbounded_channel::<&'static str>();
    let messages = futures_util::stream::poll_fn(move |cx| messages.poll_recv(cx));
    let messages = messages.map(|data| Ok::<_, BoxError>(http_body::Frame::data(data.into())));
    let body = http_body_util::StreamBody::new(messages).boxed_unsync();
    let mut answer = call("Echo", body).await.unwrap().into_body();
    for message in ["a", "b"] {
        client.send(message).unwrap();
        assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), message);
    }
    drop(client);
    assert!(answer.frame().await.is_none());
    let hangs = tokio::time::timeout(Duration::from_millis(100), call("Hangs", full("")));
    assert!(hangs.await.is_err());
    drop(app);
    let ended = tokio::time::timeout(Duration::from_secs(5), open.closed());
    ended.await.expect("nobody goes on with it");
}

/// A cache outside, and a clone of it with other settings inside.
#[tokio::test]
async fn a_clone_with_a_scope_of_its_own_keeps_its_own_keys() {
    let base = HttpCache::new(&Backend::memory());
    let scoped = base.clone().scope("x");
    let origin = Origin::with(MINUTE);
    let app = boxed(CacheLayer::new(&base).layer(CacheLayer::new(&scoped).layer(origin.clone())));
    let alone = boxed(CacheLayer::new(&scoped).layer(origin.clone()));
    let url = "http://h/a";
    assert_eq!(get(&app, url).await.body, "answer 1");
    assert_eq!((get(&app, url).await.x_cache(), get(&alone, url).await.x_cache()), ("HIT", "HIT"));
    base.invalidate().url(url).await.unwrap();
    assert_eq!(get(&alone, url).await.x_cache(), "HIT", "its key has the scope");
    scoped.invalidate().url(url).await.unwrap();
    assert_eq!(get(&alone, url).await.body, "answer 2");
}
