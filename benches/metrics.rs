//! What counting costs on a hit in memory: with no recorder, and with that of the Prometheus exporter. Run with
//! `cargo bench --all-features --bench metrics`.

mod support;

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use metrics_exporter_prometheus::PrometheusBuilder;
use support::{compare, each};
use tokio::runtime::Runtime;
use tower::{Layer as _, Service, service_fn};
use tower_gatehouse::{Backend, CacheLayer, HttpCache, metrics::SECOND_BUCKETS};

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let _guard = runtime.enter();
    // What counts before there is a recorder goes on without one.
    let silent = hit(&runtime);
    let recorder = PrometheusBuilder::new().set_buckets(SECOND_BUCKETS).expect("buckets").build_recorder();
    metrics::set_global_recorder(recorder).expect("the first");
    let counted = hit(&runtime);
    compare("A hit in memory, 2 KiB", vec![each("no recorder", silent), each("counted for Prometheus", counted)]);
}

/// Asks for what is stored, on a cache of its own.
fn hit(runtime: &Runtime) -> impl FnMut() + 'static {
    let origin = service_fn(|_: Request<Full<Bytes>>| async {
        let response = Response::builder().header(header::CACHE_CONTROL, "max-age=3600");
        Ok::<_, Infallible>(response.body(Full::from(vec![b'x'; 2048])).expect("a response"))
    });
    let mut service = CacheLayer::new(HttpCache::new(&Backend::memory())).layer(origin);
    let request = || Request::get("http://shop.example/products/17").body(Full::default()).expect("a request");
    let first =
        runtime.block_on(async { service.call(request()).await.expect("an answer").into_body().collect().await });
    assert_eq!(first.map(|body| body.to_bytes().len()).ok(), Some(2048));
    move || {
        let response = service.call(request()).now_or_never().expect("a hit").expect("an answer");
        assert_eq!(response.headers()["x-cache"], "HIT");
    }
}
