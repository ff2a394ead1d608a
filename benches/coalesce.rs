//! What coalescing costs who leads and who follows, beside a plain call of the service: in memory, and on Redis beside
//! a bare GET. Run with `cargo bench --all-features --bench coalesce`; needs a `redis-server`.

#[path = "../tests/support/mod.rs"]
mod servers;
mod support;

use std::{
    cell::Cell,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use fred::interfaces::{ClientLike as _, KeysInterface as _};
use futures_util::future::join_all;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use servers::RedisServer;
use support::{Subject, compare, each};
use tokio::runtime::Runtime;
use tower::{Layer as _, ServiceExt as _, util::BoxCloneSyncService};
use tower_gatehouse::{Backend, CacheLayer, CoalesceLayer, HttpCache};

const SIZE: usize = 2048;
const FOLLOWERS: u64 = 100;

/// A service whose answers have been read to their end.
type App = BoxCloneSyncService<Request<Full<Bytes>>, usize, Infallible>;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = Urls::default();
    let asked = Arc::new(AtomicU64::new(0));
    let plain = finish(origin(&asked));
    in_memory(&runtime, &plain, &asked, &url);

    let server = RedisServer::start();
    let fred = runtime.block_on(async {
        let config = fred::prelude::Config::from_url(&server.url()).unwrap();
        let client = fred::prelude::Builder::from_config(config).build().unwrap();
        client.init().await.unwrap();
        let () = client.set("bare", vec![b'x'; SIZE].as_slice(), None, None, false).await.unwrap();
        client
    });
    let backend = runtime.block_on(Backend::redis(server.url()).connect()).unwrap();
    let apps = Apps::new(&backend, &asked);
    compare(
        "On Redis, one request after the other",
        vec![
            each("fred: GET", || runtime.block_on(fred.get::<Bytes, _>("bare")).unwrap()),
            misses("CacheLayer: a miss", &runtime, &apps.cached, &url),
            misses("CoalesceLayer: a miss", &runtime, &apps.alone, &url),
            misses("CacheLayer and CoalesceLayer: a miss", &runtime, &apps.both, &url),
        ],
    );
}

fn in_memory(runtime: &Runtime, plain: &App, asked: &Arc<AtomicU64>, url: &Urls) {
    let apps = Apps::new(&Backend::memory(), asked);
    compare(
        "In memory, one request after the other",
        vec![
            misses("a plain call", runtime, plain, url),
            misses("CacheLayer: a miss", runtime, &apps.cached, url),
            misses("CoalesceLayer: a miss", runtime, &apps.alone, url),
            misses("CacheLayer and CoalesceLayer: a miss", runtime, &apps.both, url),
        ],
    );
    compare(
        &format!("In memory, {} requests at once for one URL", FOLLOWERS + 1),
        vec![
            flight("plain calls", runtime, plain, url, (asked, FOLLOWERS + 1)),
            flight("CoalesceLayer: a leader and its followers", runtime, &apps.alone, url, (asked, 1)),
            flight("CacheLayer and CoalesceLayer", runtime, &apps.both, url, (asked, 1)),
        ],
    );
}

struct Apps {
    cached: App,
    alone: App,
    both: App,
}

impl Apps {
    fn new(backend: &Backend, asked: &Arc<AtomicU64>) -> Self {
        let cache = HttpCache::new(backend);
        let coalesce = || CoalesceLayer::new(&cache).layer(origin(asked));
        Self {
            cached: finish(CacheLayer::new(&cache).layer(origin(asked))),
            alone: finish(coalesce()),
            both: finish(CacheLayer::new(&cache).layer(coalesce())),
        }
    }
}

/// Answers at once, and counts.
fn origin(
    asked: &Arc<AtomicU64>,
) -> impl tower::Service<
    Request<Full<Bytes>>,
    Response = Response<Full<Bytes>>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
> + Clone
+ Send
+ Sync
+ 'static {
    let asked = Arc::clone(asked);
    let body = Bytes::from(vec![b'x'; SIZE]);
    tower::service_fn(move |_: Request<Full<Bytes>>| {
        asked.fetch_add(1, Ordering::Relaxed);
        let mut response = Response::new(Full::new(body.clone()));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
        std::future::ready(Ok(response))
    })
}

fn finish<S, B>(service: S) -> App
where
    S: tower::Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Send + 'static,
{
    BoxCloneSyncService::new(service.and_then(async |response: Response<B>| {
        Ok(response.into_body().collect().await.expect("the body is read").to_bytes().len())
    }))
}

/// URLs that nobody has asked for yet.
#[derive(Default)]
struct Urls(Cell<u64>);

impl Urls {
    fn next(&self) -> String {
        self.0.set(self.0.get() + 1);
        format!("http://example.com/{}", self.0.get())
    }
}

fn get(app: &App, url: &str) -> impl Future<Output = Result<usize, Infallible>> + use<> {
    app.clone().oneshot(Request::get(url).body(Full::default()).expect("a request"))
}

fn misses<'a>(name: &'a str, runtime: &'a Runtime, app: &'a App, url: &'a Urls) -> Subject<'a> {
    each(name, move || {
        let answer = runtime.block_on(get(app, &url.next()));
        assert_eq!(answer, Ok(SIZE));
    })
}

/// So many requests at once, which must ask the origin so many times.
fn flight<'a>(
    name: &'a str,
    runtime: &'a Runtime,
    app: &'a App,
    url: &'a Urls,
    (asked, times): (&'a AtomicU64, u64),
) -> Subject<'a> {
    each(name, move || {
        let before = asked.load(Ordering::Relaxed);
        let url = url.next();
        let answers = runtime.block_on(join_all((0..=FOLLOWERS).map(|_| get(app, &url))));
        assert!(answers.iter().all(|answer| *answer == Ok(SIZE)));
        assert_eq!(asked.load(Ordering::Relaxed) - before, times);
    })
}
