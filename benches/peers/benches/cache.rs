//! Hits beside tower-http-cache: in memory, and on Redis (its backend uses the crate redis).
//!
//! ```text
//! cargo bench --manifest-path benches/peers/Cargo.toml --bench cache
//! ```

#[allow(dead_code)]
#[path = "../../support/mod.rs"]
mod bench;
mod redis;

use std::{convert::Infallible, future::Future, time::Duration};

use axum::{Router, routing::get};
use bench::{Subject, compare};
use bytes::Bytes;
use fred::prelude::{ClientLike, KeysInterface};
use futures_util::future::join_all;
use http::{Request, Response, Uri, header};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use redis::Redis;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_gatehouse::{Backend, CacheLayer};
use tower_http_cache::prelude as peer;

const SIZES: [usize; 2] = [2 * 1024, 64 * 1024];
/// How often each of many tasks asks: starting them is to cost nothing beside it.
const EACH: u64 = 8;
const DAY: Duration = Duration::from_hours(24);

fn main() {
    let (one, two) = (Builder::new_current_thread().enable_all().build().unwrap(), two_threads());
    for size in SIZES {
        in_memory(&one, 1, size);
        in_memory(&two, 64, size);
    }
    let server = Redis::start();
    for size in SIZES {
        on_redis(&two, &server, size);
    }
}

fn two_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn in_memory(runtime: &Runtime, tasks: usize, size: usize) {
    let load = Load { tasks, path: "/products/17", pages: 1, size };
    let theirs = peer::CacheLayer::builder(peer::InMemoryBackend::new(1000)).ttl(DAY).build().layer(origin("", size));
    let ours = CacheLayer::new(&Backend::memory()).layer(origin("", size));
    let content = content(size);
    let route = Router::new().route("/products/{id}", get(async move || (FIELDS, content))).with_state::<()>(());
    compare(
        &format!("A hit in memory, {size} bytes{}", at_once(tasks)),
        vec![
            asks(runtime, "tower-http-cache", load, theirs),
            asks(runtime, "CacheLayer", load, ours),
            asks(runtime, "no cache: a bare axum route", load, route),
        ],
    );
}

fn on_redis(runtime: &Runtime, server: &Redis, size: usize) {
    let (theirs, [layer, sent], fred) = runtime.block_on(async {
        // Without its timeouts, as it has no other.
        let config = ::redis::aio::ConnectionManagerConfig::new().set_response_timeout(None);
        let client = ::redis::Client::open(server.url()).unwrap();
        let connection = client.get_connection_manager_with_config(config).await.unwrap();
        let theirs = tower_http_cache::backend::redis::RedisBackend::new(connection).with_namespace(size.to_string());
        // A turn that the machine has interrupted must not open the breaker: what follows would be misses.
        let backend = Backend::redis(server.url()).namespace(format!("bench{size}")).operation_timeout(DAY);
        let sent = backend.clone().near_cache(0).connect().await.unwrap();
        let layers = [&backend.connect().await.unwrap(), &sent].map(CacheLayer::new);
        let config = fred::types::config::Config::from_url(&server.url()).unwrap();
        let fred = fred::clients::Client::new(config, None, None, None);
        fred.init().await.unwrap();
        let _: () = fred.set("bare", content(size), None, None, false).await.unwrap();
        (peer::CacheLayer::builder(theirs).ttl(DAY).build(), layers, fred)
    });
    for (tasks, pages) in [(1, 1), (64, 1), (64, 64)] {
        let load = Load { tasks, path: "/products/17", pages, size };
        let tagged = Load { path: "/tagged", ..load };
        let fred = fred.clone();
        let bare = service_fn(move |_: Request<Empty<Bytes>>| {
            let fred = fred.clone();
            async move {
                let content: Bytes = fred.get("bare").await.unwrap();
                Ok::<_, Infallible>(Response::new(Full::new(content)))
            }
        });
        compare(
            &format!("A hit on Redis, {size} bytes{}{}", at_once(tasks), of_pages(pages)),
            vec![
                asks(runtime, "tower-http-cache", load, theirs.layer(origin("", size))),
                asks(runtime, "CacheLayer", load, layer.layer(origin("", size))),
                asks(runtime, "CacheLayer, two tags", tagged, layer.layer(origin("a,b", size))),
                asks(runtime, "CacheLayer, two tags, near_cache(0)", tagged, sent.layer(origin("a,b", size))),
                asks(runtime, "no cache: a bare GET of the same bytes with fred", load, bare),
            ],
        );
    }
}

fn at_once(tasks: usize) -> String {
    if tasks == 1 { String::new() } else { format!(", {tasks} at once, each {EACH} times: all of them") }
}

fn of_pages(pages: usize) -> String {
    if pages == 1 { String::new() } else { format!(", of {pages} pages") }
}

/// What is asked for.
#[derive(Clone, Copy)]
struct Load {
    /// How many ask at the same time: each of many asks [`EACH`] times, one alone once.
    tasks: usize,
    path: &'static str,
    /// How many pages there are, which the tasks ask for in turn.
    pages: usize,
    /// Of a page, bytes.
    size: usize,
}

impl Load {
    fn uris(self) -> Vec<Uri> {
        let uri = |page| format!("http://shop.example{}?page={page}", self.path).parse().unwrap();
        (0..self.pages).map(uri).collect()
    }
}

const FIELDS: [(header::HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (header::CACHE_CONTROL, "max-age=86400"),
    (header::ETAG, "\"v17\""),
];

fn content(size: usize) -> Bytes {
    Bytes::from(vec![b'x'; size])
}

/// What both caches stand before: tower-http-cache wants bodies that are `Sync`, which those of axum are not.
fn origin(
    tags: &'static str,
    size: usize,
) -> impl Service<
    Request<Empty<Bytes>>,
    Response = Response<Full<Bytes>>,
    Error = Infallible,
    Future: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send,
> + Clone
+ Send
+ Sync
+ 'static {
    let content = content(size);
    service_fn(move |_: Request<Empty<Bytes>>| {
        let mut response = Response::new(Full::new(content.clone()));
        let fields = response.headers_mut();
        fields.extend(FIELDS.map(|(name, value)| (name, header::HeaderValue::from_static(value))));
        fields.insert("cache-tag", header::HeaderValue::from_static(tags));
        std::future::ready(Ok(response))
    })
}

fn request(uri: Uri) -> Request<Empty<Bytes>> {
    Request::get(uri)
        .header(header::ACCEPT, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
        .header(header::ACCEPT_ENCODING, "gzip, br")
        .header(header::ACCEPT_LANGUAGE, "de,en;q=0.7")
        .header(header::USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
        .body(Empty::new())
        .unwrap()
}

fn asks<'a, S, B>(runtime: &'a Runtime, name: &'a str, load: Load, service: S) -> Subject<'a>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Future: Send, Error: std::fmt::Debug>,
    S: Clone + Send + 'static,
    B: Body<Data = Bytes, Error: std::fmt::Debug> + Send + 'static,
{
    let Load { tasks, size, .. } = load;
    let uris = load.uris();
    for uri in &uris {
        // What is stored, is now.
        assert_eq!(runtime.block_on(ask(&mut service.clone(), uri)), size);
    }
    let many = move |times: u64| {
        let chain = |task: usize, times: u64| {
            let (mut service, uri) = (service.clone(), uris[task % uris.len()].clone());
            async move {
                for _ in 0..times {
                    assert_eq!(ask(&mut service, &uri).await, size);
                    if tasks > 1 {
                        // As a connection that waits for its next request.
                        tokio::task::yield_now().await;
                    }
                }
            }
        };
        if tasks == 1 {
            runtime.block_on(chain(0, times));
        } else {
            let all = async { join_all((0..tasks).map(|task| tokio::spawn(chain(task, times * EACH)))).await };
            runtime.block_on(all).into_iter().for_each(|task| task.unwrap());
        }
    };
    (name, Box::new(many))
}

/// How long the content is.
async fn ask<S, B>(service: &mut S, uri: &Uri) -> usize
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error: std::fmt::Debug>,
    B: Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let response = service.ready().await.unwrap().call(request(uri.clone())).await.unwrap();
    response.into_body().collect().await.unwrap().to_bytes().len()
}
