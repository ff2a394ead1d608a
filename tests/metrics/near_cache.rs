//! What the near cache counts.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_gatehouse::{Backend, CacheLayer, HttpCache, Tag};

use crate::{
    recorder::{Recorder, counts},
    support::RedisServer,
};

const NEAR: &str = "gatehouse_near_cache_total";
const LENGTH: usize = 10_000;

/// A gateway that keeps what is as long as that.
async fn gateway(server: &RedisServer) -> HttpCache {
    let redis = Backend::redis(server.url()).operation_timeout(Duration::from_secs(10)).near_cache_from(LENGTH as u64);
    HttpCache::new(&redis.connect().await.expect("a connection"))
}

async fn ask(cache: &HttpCache) {
    let origin = service_fn(|_: Request<Full<Bytes>>| async {
        let head = Response::builder().header(header::CACHE_CONTROL, "max-age=60").header("cache-tag", "page");
        Ok::<_, Infallible>(head.body(Full::from(vec![b'x'; LENGTH])).expect("a response"))
    });
    let request = Request::get("http://shop.example/page").body(Full::default()).expect("a request");
    let answer = CacheLayer::new(cache).layer(origin).oneshot(request).await.expect("an answer");
    assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes().len(), LENGTH);
}

#[tokio::test]
async fn whether_redis_had_the_same_is_counted_and_what_is_kept_is_told() {
    let server = RedisServer::start();
    let recorder = Recorder::new();
    let _guard = recorder.install();
    let (here, there) = (gateway(&server).await, gateway(&server).await);
    // Stored, and read twice.
    for _ in 0..3 {
        ask(&here).await;
    }
    assert_eq!(recorder.counts(NEAR), counts(&[]));
    for _ in 0..5 {
        ask(&here).await;
    }
    assert_eq!(recorder.counts(NEAR), counts(&[("same", 5)]));
    let kept = recorder.gauge("gatehouse_memory_bytes", "near_cache").expect("the gauge");
    assert!((LENGTH as f64..2.0 * LENGTH as f64).contains(&kept), "{kept} bytes of one page");
    // Another process stores another one.
    there.invalidate().tag(Tag::new("page").expect("a tag")).await.expect("invalidated");
    ask(&there).await;
    ask(&here).await;
    assert_eq!(recorder.counts(NEAR), counts(&[("other", 1), ("same", 5)]));
    ask(&here).await;
    assert_eq!(recorder.counts(NEAR), counts(&[("other", 1), ("same", 6)]));
}
