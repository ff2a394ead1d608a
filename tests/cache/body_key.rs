//! POST, QUERY and others answered from the store, keyed by their content.

use std::time::Duration;

use http::{Method, Request};
use tower::{Layer as _, ServiceBuilder};
use tower_gatehouse::{BodyKeyLayer, CacheLayer, CoalesceLayer, HttpCache, SwrLayer};

use crate::{
    app::{Answer, App, Body, Origin, boxed, full, respond, send},
    world::World,
};
use http_body_util::BodyExt;
use tower_gatehouse::{BoxError, body_key::KeyedBody};

const URL: &str = "http://example.com/search";

/// A search that answers with what was searched for.
fn app(cache: &HttpCache, layer: BodyKeyLayer, origin: &Origin) -> App {
    let origin = origin.clone();
    let layers = ServiceBuilder::new()
        .layer(layer)
        .layer(SwrLayer::new(cache))
        .layer(CacheLayer::new(cache))
        .layer(CoalesceLayer::new(cache))
        // The origin reads its content from a body of its own type.
        .map_request(|request: Request<KeyedBody<Body>>| {
            request.map(|body| body.map_err(Into::<BoxError>::into).boxed_unsync())
        });
    boxed(layers.service(echo(origin)))
}

fn echo(
    origin: Origin,
) -> impl tower::Service<Request<Body>, Response = http::Response<Body>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    tower::service_fn(move |request: Request<Body>| {
        let mut origin = origin.clone();
        async move {
            let (parts, body) = request.into_parts();
            let content = body.collect().await?.to_bytes();
            let asked = Request::from_parts(parts, full(content.clone()));
            let response = tower::Service::call(&mut origin, asked).await?;
            let (parts, body) = response.into_parts();
            let answer = [content, body.collect().await?.to_bytes()].concat();
            Ok(http::Response::from_parts(parts, full(answer)))
        }
    })
}

async fn ask(app: &App, method: &str, content_type: &str, content: impl Into<bytes::Bytes>) -> Answer {
    let request = Request::builder().method(method).uri(URL).header("content-type", content_type);
    send(app, request.body(full(content)).unwrap()).await
}

fn origin() -> Origin {
    Origin::new(|_, n| respond(200, &[("cache-control", "max-age=60"), ("surrogate-key", "search")], format!(" {n}")))
}

#[tokio::test]
async fn searches_are_told_apart_by_content_type_and_method() {
    for world in World::all().await {
        let layer = BodyKeyLayer::new().method(Method::POST);
        let app = app(&world.cache(), layer, &origin());
        let json = "application/json";
        let rows = [
            ("POST", json, r#"{"q":"a"}"#, "MISS", r#"{"q":"a"} 1"#),
            ("POST", json, r#"{"q":"a"}"#, "HIT", r#"{"q":"a"} 1"#),
            ("POST", json, r#"{"q":"b"}"#, "MISS", r#"{"q":"b"} 2"#),
            ("QUERY", json, r#"{"q":"a"}"#, "MISS", r#"{"q":"a"} 3"#),
            ("QUERY", json, r#"{"q":"a"}"#, "HIT", r#"{"q":"a"} 3"#),
            ("QUERY", "text/plain", r#"{"q":"a"}"#, "MISS", r#"{"q":"a"} 4"#),
            ("POST", json, "", "MISS", " 5"),
            ("POST", json, "", "HIT", " 5"),
            ("GET", json, "", "MISS", " 6"),
        ];
        for (method, content_type, content, x_cache, body) in rows {
            let answer = ask(&app, method, content_type, content).await;
            assert_eq!((answer.x_cache(), answer.body.as_str()), (x_cache, body), "{} {method} {content}", world.name);
        }
    }
}

#[tokio::test]
async fn what_is_keyed_by_content_goes_with_its_tags_and_its_url() {
    for world in World::all().await {
        let cache = world.cache();
        let app = app(&cache, BodyKeyLayer::new(), &origin());
        for by in ["tag", "url", "put"] {
            for content in ["a", "b"] {
                ask(&app, "QUERY", "text/plain", content).await;
                assert_eq!(ask(&app, "QUERY", "text/plain", content).await.x_cache(), "HIT");
            }
            match by {
                "tag" => cache.invalidate().tag("search").await.unwrap(),
                "url" => cache.invalidate().url(URL).await.unwrap(),
                _ => assert_eq!(ask(&app, "PUT", "text/plain", "new").await.status, 200),
            }
            for content in ["a", "b"] {
                assert_eq!(ask(&app, "QUERY", "text/plain", content).await.x_cache(), "MISS", "{} {by}", world.name);
            }
        }
    }
}

#[tokio::test]
async fn other_methods_and_large_contents_pass_through_whole() {
    for world in World::all().await {
        let app = app(&world.cache(), BodyKeyLayer::new().max_bytes(10), &origin());
        for (method, length) in [("POST", 3), ("QUERY", 11), ("QUERY", 100_000)] {
            for _ in 0..2 {
                let content = "x".repeat(length);
                let answer = ask(&app, method, "text/plain", content.clone()).await;
                assert_eq!(answer.x_cache(), "BYPASS", "{} {method} {length}", world.name);
                assert!(answer.body.starts_with(&content), "{method} {length}");
            }
        }
        let at_the_limit = "x".repeat(10);
        ask(&app, "QUERY", "text/plain", at_the_limit.clone()).await;
        assert_eq!(ask(&app, "QUERY", "text/plain", at_the_limit).await.x_cache(), "HIT");
    }
}

#[tokio::test]
async fn a_keyed_post_does_not_invalidate_and_an_unkeyed_one_does() {
    for world in World::all().await {
        let app = app(&world.cache(), BodyKeyLayer::new().method(Method::POST).max_bytes(10), &origin());
        assert_eq!(ask(&app, "GET", "text/plain", "").await.x_cache(), "MISS");
        ask(&app, "POST", "text/plain", "a").await;
        assert_eq!(ask(&app, "GET", "text/plain", "").await.x_cache(), "HIT", "{}: a search is a search", world.name);
        ask(&app, "POST", "text/plain", "x".repeat(100)).await;
        assert_eq!(ask(&app, "GET", "text/plain", "").await.x_cache(), "MISS", "{}", world.name);
    }
}

#[tokio::test]
async fn any_method_may_be_keyed_but_those_that_change_what_is_stored() {
    for world in World::all().await {
        for (methods, want) in [
            (&["SEARCH", "REPORT", "PROPFIND"][..], ["MISS", "MISS", "HIT", "HIT"]),
            (&["PUT", "PATCH", "DELETE"], ["MISS", "BYPASS", "BYPASS", "MISS"]),
            (&["MKCOL", "LOCK", "PROPPATCH"], ["MISS", "BYPASS", "BYPASS", "MISS"]),
            (&["OPTIONS", "TRACE"], ["MISS", "BYPASS", "BYPASS", "HIT"]),
        ] {
            for method in methods {
                let layer = BodyKeyLayer::new().method(method.parse().unwrap());
                let app = app(&world.cache().scope(method), layer, &origin());
                let mut seen = Vec::new();
                for method in ["GET", method, method, "GET"] {
                    seen.push(ask(&app, method, "text/plain", "").await.x_cache().to_owned());
                }
                assert_eq!(seen, want, "{} {method}", world.name);
            }
        }
    }
}

#[tokio::test]
async fn a_keyed_post_that_a_layer_makes_a_delete_is_one() {
    for world in World::all().await {
        let delete = |mut request: Request<KeyedBody<Body>>| {
            if request.method() == Method::POST {
                *request.method_mut() = Method::DELETE;
            }
            request.map(|body| body.map_err(Into::<BoxError>::into).boxed_unsync())
        };
        let layers = ServiceBuilder::new()
            .layer(BodyKeyLayer::new().method(Method::POST))
            .map_request(delete)
            .layer(CacheLayer::new(world.cache()));
        let app = boxed(layers.service(echo(origin())));
        for (method, x_cache) in [("GET", "MISS"), ("POST", "BYPASS"), ("GET", "MISS")] {
            assert_eq!(ask(&app, method, "text/plain", "").await.x_cache(), x_cache, "{} {method}", world.name);
        }
    }
}

/// Has a validator, and answers to a condition as RFC 9110 §13.1.2 has it.
fn tagged(control: &'static str) -> Origin {
    Origin::new(move |request, n| {
        let fields = &[("cache-control", control), ("etag", "\"v1\"")];
        let is_conditional = request.headers().contains_key("if-none-match");
        match request.method().as_str() {
            "QUERY" if is_conditional => respond(304, fields, ""),
            _ if is_conditional => respond(412, fields, ""),
            _ => respond(200, fields, format!(" {n}")),
        }
    })
}

#[tokio::test]
async fn a_stale_answer_to_a_query_is_validated_and_one_to_a_post_is_fetched_anew() {
    for world in World::all().await {
        let layer = BodyKeyLayer::new().method(Method::POST);
        for (method, x_cache, body) in [("QUERY", "REVALIDATED", "a 1"), ("POST", "MISS", "a 2")] {
            let app = app(&world.cache().scope(method), layer.clone(), &tagged("max-age=60"));
            ask(&app, method, "text/plain", "a").await;
            world.wait(61);
            for x_cache in [x_cache, "HIT"] {
                let answer = ask(&app, method, "text/plain", "a").await;
                let got = (answer.status, answer.x_cache(), answer.body.as_str());
                assert_eq!(got, (200, x_cache, body), "{} {method}", world.name);
            }
        }
    }
}

#[tokio::test]
async fn the_condition_of_a_keyed_post_is_for_the_origin_and_its_412_for_nobody_else() {
    for world in World::all().await {
        let layer = BodyKeyLayer::new().method(Method::POST);
        let app = app(&world.cache(), layer, &tagged("max-age=60, stale-while-revalidate=600"));
        let conditional = || Request::post(URL).header("if-none-match", "*").body(full("a")).unwrap();
        assert_eq!(send(&app, conditional()).await.status, 412);
        let first = Request::post(URL).body(full("a")).unwrap();
        let first = send(&app, first).await;
        assert_eq!((first.x_cache(), first.body.as_str()), ("MISS", "a 2"), "{}", world.name);
        world.wait(61);
        // Nobody waits for what is fetched in the background.
        let refreshed = async {
            while send(&app, conditional()).await.x_cache() != "HIT" {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), refreshed).await.expect("it is fetched anew");
    }
}

#[tokio::test]
async fn content_in_many_small_frames_goes_on_in_one_piece() {
    let (count, mut frames) = tokio::sync::mpsc::unbounded_channel();
    let inner = tower::service_fn(move |request: Request<KeyedBody<Body>>| {
        let count = count.clone();
        async move {
            let (mut body, mut sizes) = (request.into_body(), Vec::new());
            while let Some(frame) = body.frame().await {
                sizes.push(frame?.into_data().map_or(0, |data| data.len()));
            }
            count.send(sizes)?;
            Ok::<_, BoxError>(respond(200, &[], ""))
        }
    });
    let app = boxed(BodyKeyLayer::new().max_bytes(1000).layer(inner));
    for (of, want) in [(1, vec![1]), (1000, vec![1000]), (1002, vec![1000, 1, 1])] {
        let bytes = futures_util::stream::iter((0..of).map(|_| Ok::<_, BoxError>(http_body::Frame::data("x".into()))));
        let body = http_body_util::StreamBody::new(bytes).boxed_unsync();
        send(&app, Request::builder().method("QUERY").uri(URL).body(body).unwrap()).await;
        assert_eq!(frames.recv().await.unwrap(), want);
    }
}
