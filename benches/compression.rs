//! What compression in the store gains, and what it costs: bytes in Redis, and the time of a hit on Redis and in memory
//! beside the same without it. Run with `cargo bench --all-features --bench compression`; needs a `redis-server`.
//!
//! The pages are like those of a shop: HTML and JSON, each row different from the others.

mod support;

#[path = "../tests/support/mod.rs"]
#[allow(clippy::pedantic, missing_debug_implementations)]
mod servers;

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use servers::{Connection, RedisServer, Reply};
use support::{compare, each};
use tokio::runtime::Runtime;
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_gatehouse::{Backend, CacheBody, CacheLayer, Compression, HttpCache, ResponseExt};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = RedisServer::start();
    for (kind, content_type, row) in KINDS {
        for size in [8 << 10, 64 << 10, 512 << 10] {
            measure(&runtime, &server, kind, (content_type, content(size, row)));
        }
    }
}

type Service = BoxCloneSyncService<Request<Body>, Response<CacheBody<Body>>, Infallible>;

type Row = fn(usize) -> String;

const KINDS: [(&str, &str, Row); 2] = [("HTML", "text/html", html), ("JSON", "application/json", json)];

fn html(n: usize) -> String {
    let (price, stock) = (n * 7919 % 10_000, n * 104_729 % 500);
    format!(
        "<li class=\"product\"><a href=\"/products/{n}\"><img src=\"/images/{:x}.svg\" alt=\"\">Product {n}</a> \
         <span class=\"price\">{}.{:02} €</span> <span class=\"stock\">{stock} in stock</span></li>\n",
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        price / 100,
        price % 100,
    )
}

fn json(n: usize) -> String {
    let (price, stock) = (n * 7919 % 10_000, n * 104_729 % 500);
    format!(
        "{{\"id\":{n},\"sku\":\"{:x}\",\"name\":\"Product {n}\",\"price\":{price},\"currency\":\"EUR\",\"stock\":{stock}}},",
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
    )
}

fn content(size: usize, row: Row) -> Bytes {
    let mut content = (0..).map(row).scan(0, |all, row| {
        let begin = *all;
        *all += row.len();
        (begin < size).then_some(row)
    });
    let mut content: String = content.by_ref().collect();
    while !content.is_char_boundary(size) {
        content.insert(0, ' ');
    }
    content.truncate(size);
    content.into()
}

fn measure(runtime: &Runtime, server: &RedisServer, kind: &str, (content_type, content): (&'static str, Bytes)) {
    let size = content.len();
    for place in ["Redis", "memory"] {
        let mut held = [0; 2];
        let services = [false, true].map(|compress| {
            let backend = match place {
                "Redis" => runtime
                    .block_on(Backend::redis(server.url()).namespace(format!("{kind}{size}{compress}")).connect())
                    .unwrap(),
                _ => Backend::memory(),
            };
            let cache = HttpCache::new(&backend);
            let cache = if compress { cache.compress(Compression::default()) } else { cache };
            let content = content.clone();
            let origin = service_fn(move |_: Request<Body>| {
                let response = Response::builder().header("content-type", content_type);
                let response = response.header("cache-control", "max-age=3600");
                let response = response.body(Body::from(content.clone())).unwrap();
                async move { Ok::<_, Infallible>(response) }
            });
            let service: Service = BoxCloneSyncService::new(CacheLayer::new(&cache).layer(origin));
            // Redis is asked what it holds before and after.
            let before = bytes_in(server);
            runtime.block_on(ask(&service));
            held[usize::from(compress)] = bytes_in(server) - before;
            assert!(runtime.block_on(ask(&service)), "a hit");
            service
        });
        let [plain, packed] = &services;
        compare(
            &format!("A hit on {place}, {} KiB of {kind}", size >> 10),
            vec![
                each("as it is", || runtime.block_on(ask(plain))),
                each("compressed", || runtime.block_on(ask(packed))),
            ],
        );
        if place == "Redis" {
            let ratio = held[0] as f64 / held[1] as f64;
            println!("  bytes in Redis: {} and {}: one {ratio:.1}th", held[0], held[1]);
        }
    }
}

/// Asks, reads to the end, and tells whether it was a hit.
async fn ask(service: &Service) -> bool {
    let request = Request::get("http://shop.example/").body(Body::empty()).unwrap();
    let Ok(response) = service.clone().oneshot(request).await;
    let hit = response.cache_status().unwrap().is_hit();
    response.into_body().collect().await.unwrap();
    hit
}

/// The lengths of all values.
fn bytes_in(server: &RedisServer) -> i64 {
    let mut connection = Connection::open(server.port()).unwrap();
    let Reply::Array(keys) = connection.call(&["KEYS", "*"]).unwrap() else { panic!("no list of keys") };
    let keys = keys.iter().filter_map(Reply::bytes);
    keys.map(|key| match connection.call(&[b"STRLEN".as_slice(), key]).unwrap() {
        Reply::Integer(length) => length,
        // No string.
        _ => 0,
    })
    .sum()
}
