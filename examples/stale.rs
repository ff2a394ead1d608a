//! Stale while it refreshes: nobody waits for the origin but the first.
//!
//! `cargo run --example stale --features redis [-- --redis redis://127.0.0.1:6379]`

use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};
use tower_gatehouse::{Backend, HttpCache, SwrLayer};

static ASKED: AtomicUsize = AtomicUsize::new(0);

/// Takes 300 ms; its answers are fresh for two seconds, and may be served for a minute while they are refreshed.
async fn origin(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let n = ASKED.fetch_add(1, Ordering::SeqCst) + 1;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut response = Response::new(Full::from(format!("version {n}")));
    let fresh = http::HeaderValue::from_static("max-age=2, stale-while-revalidate=60");
    response.headers_mut().insert("cache-control", fresh);
    Ok(response)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = HttpCache::new(&backend().await?);
    // What an earlier run has left on Redis.
    cache.invalidate().url("http://example.com/slow").await?;
    let service = ServiceBuilder::new().layer(SwrLayer::new(&cache)).service(service_fn(origin));
    for (pause, what) in
        [(0, "first"), (100, "soon after"), (2500, "when it is stale"), (1800, "when it was refreshed")]
    {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let start = Instant::now();
        let request = Request::get("http://example.com/slow").body(Full::default())?;
        let response = service.clone().oneshot(request).await?;
        let said = response.headers()["x-cache"].to_str()?.to_owned();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        println!("{what:>22}: {said:<5} {} after {:?}", String::from_utf8_lossy(&body), start.elapsed());
    }
    cache.shutdown(Duration::from_secs(1)).await;
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
