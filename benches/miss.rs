//! What a miss costs beside no cache at all: an origin that takes 50 ms and then streams 1 MiB. Run with
//! `cargo bench --all-features --bench miss`.
//!
//! Each turn is one request by each of them, for a URL that nobody has asked for; shown are the medians of the turns,
//! and between which ratios eight of ten turns lie.

use std::{
    convert::Infallible,
    pin::pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_gatehouse::{Backend, CacheLayer, CoalesceLayer, HttpCache, SwrLayer, TagInvalidationLayer};

const DELAY: Duration = Duration::from_millis(50);
const SIZE: usize = 1024 * 1024;
const CHUNK: usize = 64 * 1024;
/// Between two chunks.
const GAP: Duration = Duration::from_millis(1);
const TURNS: usize = 61;

type Streamed = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

/// Asks for a URL, and says after which time the first byte and the end were there.
type Miss<'a> = (&'a str, Box<dyn Fn(String) -> BoxFuture<'static, [f64; 2]>>);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cache = HttpCache::new(&Backend::memory());
    let all = CacheLayer::new(&cache).layer(CoalesceLayer::new(&cache).layer(service_fn(origin)));
    let all = TagInvalidationLayer::new(&cache).layer(SwrLayer::new(&cache).layer(all));
    let subjects: [Miss<'_>; 4] = [
        ("no cache", misses(service_fn(origin))),
        ("CacheLayer", misses(CacheLayer::new(&Backend::memory()).layer(service_fn(origin)))),
        ("CoalesceLayer", misses(CoalesceLayer::new(&Backend::memory()).layer(service_fn(origin)))),
        ("all four cache layers", misses(all)),
    ];
    let mut took = vec![Vec::with_capacity(TURNS); subjects.len()];
    for turn in 0..TURNS {
        for ((_, miss), took) in subjects.iter().zip(&mut took) {
            took.push(runtime.block_on(miss(format!("http://shop.example/{turn}"))));
        }
    }
    println!("A miss: an origin of {} ms, 1 MiB streamed", DELAY.as_millis());
    for (what, at) in [("first byte", 0), ("end", 1)] {
        for ((name, _), own) in subjects.iter().zip(&took) {
            let ratios = sorted(own.iter().zip(&took[0]).map(|(own, floor)| own[at] / floor[at]));
            println!(
                "  {what:<12} {name:<24} {:>8.2} ms   x {:.3}   ({:.3} to {:.3})",
                sorted(own.iter().map(|took| took[at]))[TURNS / 2] * 1000.0,
                ratios[TURNS / 2],
                ratios[TURNS / 10],
                ratios[TURNS - 1 - TURNS / 10],
            );
        }
    }
}

/// Takes its time, then sends chunk after chunk.
async fn origin(_: Request<Empty<Bytes>>) -> Result<Response<Streamed>, Infallible> {
    tokio::time::sleep(DELAY).await;
    let content = Bytes::from(vec![b'x'; CHUNK]);
    let frames = stream::iter(0..SIZE / CHUNK).then(move |_| {
        let content = content.clone();
        async move {
            tokio::time::sleep(GAP).await;
            Ok(Frame::data(content))
        }
    });
    let response = Response::builder().header(http::header::CACHE_CONTROL, "max-age=3600");
    Ok(response.body(StreamBody::new(frames.boxed())).unwrap())
}

fn misses<S, R>(service: S) -> Box<dyn Fn(String) -> BoxFuture<'static, [f64; 2]>>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<R>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
    R: Body<Data = Bytes, Error: std::fmt::Debug> + Send + 'static,
{
    Box::new(move |url| {
        let service = service.clone();
        Box::pin(async move {
            let start = Instant::now();
            let Ok(response) = service.oneshot(Request::get(url).body(Empty::new()).unwrap()).await;
            let mut body = pin!(response.into_body());
            let (mut first, mut received) = (None, 0);
            while let Some(frame) = body.frame().await {
                received += frame.unwrap().into_data().map_or(0, |data| data.len());
                first.get_or_insert_with(|| start.elapsed());
            }
            assert_eq!(received, SIZE);
            [first.unwrap_or_default(), start.elapsed()].map(|took| took.as_secs_f64())
        })
    })
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}
