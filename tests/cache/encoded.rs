//! Paths that are written in several ways have one tag: that by which handlers name them.

use std::time::Duration;

use axum::{Router, body::Body, extract::Path, routing::get};
use http::Request;
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt};
use tower_gatehouse::{Backend, CacheLayer, HttpCache, Rule};

use crate::app::{Origin, boxed, get as ask};

#[tokio::test]
async fn what_a_handler_reads_is_the_tag() {
    let rule = Rule::new().tag("product:{id}");
    let cache =
        HttpCache::new(&Backend::memory()).default_ttl(Duration::from_mins(1)).rule("/products/{id}", rule).unwrap();
    let read = async |Path(id): Path<String>| id;
    let app = Router::new().route("/products/{id}", get(read)).layer(CacheLayer::new(&cache));
    let ask = async |path: &str| {
        let request = Request::get(format!("http://shop.example/products/{path}")).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let was = response.headers()["x-cache"].to_str().unwrap().to_owned();
        (was, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    };
    for path in ["a%3Ab", "a:b", "ann%40shop.example", "a%2fb", "100%25", "%7Eann", "plain"] {
        let (_, id) = ask(path).await;
        assert_eq!(ask(path).await.0, "HIT", "{path}");
        cache.invalidate().tag(format!("product:{id}")).await.unwrap();
        assert_eq!(ask(path).await.0, "MISS", "{path}, which is {id}");
    }
    // No tag has blanks, commas or what is not ASCII.
    for (path, tag) in [("a%20b", "product:a%20b"), ("a,b", "product:a%2Cb"), ("%c3%bc", "product:%C3%BC")] {
        ask(path).await;
        cache.invalidate().tag(tag).await.unwrap();
        assert_eq!(ask(path).await.0, "MISS", "{path}");
    }
}

#[tokio::test]
async fn a_prefix_is_meant_however_it_is_written() {
    for (stored, invalidated) in [("/%7Eann/a", "/~ann"), ("/~ann/a", "/%7eann"), ("/%c3%bc/a", "/%C3%BC")] {
        let cache = HttpCache::new(&Backend::memory()).tag_path_prefixes();
        let origin = Origin::with(&[("cache-control", "max-age=60")]);
        let app = boxed(CacheLayer::new(&cache).layer(origin));
        let url = format!("http://shop.example{stored}");
        ask(&app, &url).await;
        cache.invalidate().prefix(invalidated).await.unwrap();
        assert_eq!(ask(&app, &url).await.body, "answer 2", "{stored} {invalidated}");
    }
}
