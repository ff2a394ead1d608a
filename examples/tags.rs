//! Gone when it is purged: by tag, by a rule on an unsafe request, softly.
//!
//! `cargo run --example tags --features redis [-- --redis redis://127.0.0.1:6379]`

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_gatehouse::{Backend, BoxError, CacheBody, CacheLayer, HttpCache, Rule, TagInvalidationLayer};

async fn origin(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("a product")))
}

async fn ask<S>(service: &S, method: Method, path: &str) -> Result<(), BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<CacheBody<CacheBody<Full<Bytes>>>>, Error = Infallible>
        + Clone,
{
    let uri = format!("http://example.com{path}");
    let request = Request::builder().method(method.clone()).uri(uri).body(Full::default())?;
    let response = service.clone().oneshot(request).await?;
    let said = response.headers().get("x-cache").map_or("", |value| value.to_str().unwrap_or("")).to_owned();
    response.into_body().collect().await?;
    println!("{method:>6} {path}: {said}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let lifetime = Duration::from_mins(1);
    let cache = HttpCache::new(&backend().await.map_err(|error| error.to_string())?)
        .rule("/products/{id}", Rule::ttl(lifetime).stale(lifetime).tag("product:{id}").tag("catalogue"))?;
    // What an earlier run has left on Redis.
    cache.invalidate().tag("catalogue").await?;
    let service = ServiceBuilder::new()
        .layer(TagInvalidationLayer::new(&cache).on("POST /orders/{id}", ["product:{id}"])?)
        .layer(CacheLayer::new(&cache))
        .service(service_fn(origin));
    for path in ["/products/17", "/products/18", "/products/17"] {
        ask(&service, Method::GET, path).await?;
    }
    println!("-- an order for product 17 invalidates `product:17` by a rule");
    ask(&service, Method::POST, "/orders/17").await?;
    ask(&service, Method::GET, "/products/17").await?;
    ask(&service, Method::GET, "/products/18").await?;
    println!("-- the tag `catalogue` is invalidated");
    cache.invalidate().tag("catalogue").await?;
    ask(&service, Method::GET, "/products/17").await?;
    ask(&service, Method::GET, "/products/18").await?;
    Ok(())
}

async fn backend() -> Result<Backend, Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (None, _) => Ok(Backend::memory()),
        // The default of 100 ms is for a release build.
        (Some("--redis"), Some(url)) => {
            Ok(Backend::redis(url).operation_timeout(Duration::from_secs(5)).connect().await?)
        }
        _ => Err("usage: [--redis URL]".into()),
    }
}
