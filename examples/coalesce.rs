//! A hundred requests at once, one request to the origin.
//!
//! `cargo run --example coalesce --features redis [-- --redis redis://127.0.0.1:6379]`

use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::task::JoinSet;
use tower::{ServiceBuilder, ServiceExt as _, service_fn};
use tower_gatehouse::{Backend, CoalesceLayer};

static ASKED: AtomicUsize = AtomicUsize::new(0);

/// Takes 2 s, and counts.
async fn origin(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    ASKED.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(2)).await;
    // What may be shared must say so.
    let mut response = Response::new(Full::from("the answer"));
    response.headers_mut().insert("cache-control", http::HeaderValue::from_static("max-age=60"));
    Ok(response)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let backend = backend().await?;
    let service = ServiceBuilder::new().layer(CoalesceLayer::new(&backend)).service(service_fn(origin));
    let start = Instant::now();
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let request = Request::get("http://example.com/slow").body(Full::default())?;
        requests.spawn(service.clone().oneshot(request));
    }
    let answers = requests.join_all().await.into_iter().flatten().count();
    println!("{answers} requests were answered within {:?}", start.elapsed());
    println!("the origin was asked {} time(s)", ASKED.load(Ordering::SeqCst));
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
