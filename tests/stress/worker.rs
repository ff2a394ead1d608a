//! One process: readers, who also fill, and an invalidator.

use std::{
    convert::Infallible,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use http_body_util::BodyExt;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_gatehouse::{
    Backend, BoxError, CacheLayer, CoalesceLayer, HttpCache, InvalidationError, ResponseExt, SwrLayer,
    TagInvalidationLayer,
};

use crate::{
    faulty::{Fault, Faulty},
    oracle::{Done, Oracle},
    origin::{self, Body, CHANGED, VERSIONS, full},
    pages::{Content, LANGUAGES, Mode, ORIGIN, Page, TAGS},
    random::Random,
    tally::Tally,
};

/// The argument that makes this program a worker.
pub(crate) const ARGUMENT: &str = "stress-worker";

const READERS: u64 = 6;

/// The layers around the origin.
#[derive(Clone, Debug)]
struct App(BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>);

impl App {
    fn send(&self, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, Infallible>> {
        self.0.clone().oneshot(request).boxed()
    }
}

/// What a worker is told, as one argument.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) redis: String,
    pub(crate) oracle: u16,
    pub(crate) mode: Mode,
    pub(crate) fault: Fault,
    pub(crate) time: Duration,
    pub(crate) seed: u64,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { redis, oracle, mode, fault, time, seed } = self;
        write!(f, "{redis} {oracle} {} {fault:?} {} {seed}", mode.as_str(), time.as_millis())
    }
}

impl Task {
    fn parse(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let [redis, oracle, mode, fault, time, seed] = *words else { panic!("not a task: {text}") };
        Self {
            redis: redis.to_owned(),
            oracle: oracle.parse().expect("a port"),
            mode: Mode::parse(mode),
            fault: Fault::parse(fault),
            time: Duration::from_millis(time.parse().expect("a time")),
            seed: seed.parse().expect("a seed"),
        }
    }
}

/// Does its task, and prints what it has counted.
pub(crate) fn main(task: &str) {
    let task = Task::parse(task);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(work(task));
}

async fn work(task: Task) {
    let until = Instant::now() + task.time;
    // So generous that a busy machine is not taken for a Redis that does not answer.
    let timeout = Duration::from_secs(20);
    // Three buckets: what concerns several is carried out in each.
    // Every other process has a near cache of all that it reads.
    let redis = Backend::redis(&task.redis).buckets(3).operation_timeout(timeout);
    let redis = redis.near_cache(if task.seed.is_multiple_of(2) { 1 << 20 } else { 0 }).near_cache_from(0);
    let redis = redis.connect().await.expect("Redis");
    let backend = match task.fault {
        Fault::None => redis,
        fault => Faulty::backend(redis, fault),
    };
    let oracle = Oracle::new(task.oracle);
    let cache = HttpCache::new(&backend).tag_path_prefixes();
    let tally = Tally::default();
    let app = app(&task, &cache, &oracle, &tally);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..READERS {
        let (app, oracle, tally) = (app.clone(), oracle.clone(), tally.clone());
        let random = Random::new(task.seed << 8 | n);
        tasks.spawn(async move { read(&app, &oracle, &tally, random, until).await });
    }
    let invalidator = Invalidator { mode: task.mode, cache: cache.clone(), app, oracle, tally: tally.clone() };
    tasks.spawn(invalidator.work(Random::new(task.seed << 8 | READERS), until));
    tasks.join_all().await;
    cache.shutdown(Duration::from_secs(5)).await;
    tally.print();
}

fn app(task: &Task, cache: &HttpCache, oracle: &Oracle, tally: &Tally) -> App {
    let (mode, oracle, tally) = (task.mode, oracle.clone(), tally.clone());
    let seeds = Arc::new(AtomicU64::new(task.seed << 32));
    let origin = service_fn(move |request: Request<Body>| {
        let random = Random::new(seeds.fetch_add(1, Ordering::Relaxed));
        let answer = origin::answer(oracle.clone(), tally.clone(), mode, random, request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    match mode {
        Mode::Cache => boxed(CacheLayer::new(cache).layer(origin)),
        Mode::All => boxed(
            ServiceBuilder::new()
                .layer(TagInvalidationLayer::new(cache).on("POST /change/{tag}", ["{tag}"]).expect("a rule"))
                .layer(SwrLayer::new(cache))
                .layer(CacheLayer::new(cache))
                .layer(CoalesceLayer::new(cache))
                .service(origin),
        ),
    }
}

fn boxed<S, R>(service: S) -> App
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
    R: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    App(BoxCloneSyncService::new(
        service.map_response(|response: Response<R>| response.map(|body| body.map_err(Into::into).boxed_unsync())),
    ))
}

async fn read(app: &App, oracle: &Oracle, tally: &Tally, mut random: Random, until: Instant) {
    while Instant::now() < until {
        let page = Page(random.below(Page::COUNT));
        let language = if random.once_in(2) { LANGUAGES[0] } else { LANGUAGES[1] };
        let request = Request::get(page.url()).header("accept-language", language).body(full("")).expect("a request");
        let (hard, soft) = oracle.required(&page.parts());
        let asking = app.send(request);
        let response = if random.once_in(60) {
            // Its client goes away.
            let patience = Duration::from_micros(random.below(8_000));
            let Ok(response) = tokio::time::timeout(patience, asking).await else {
                tally.count("left");
                continue;
            };
            response
        } else {
            asking.await
        };
        let Ok(response) = response;
        let (head, body) = response.into_parts();
        // The origin breaks off now and then.
        let Ok(body) = body.collect().await else {
            tally.count("broken_off");
            continue;
        };
        let field = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let x_cache = field("x-cache");
        tally.count(match x_cache {
            "HIT" => "hit",
            "STALE" => "stale_while_revalidate",
            "REVALIDATED" => "validated",
            _ => "from_origin",
        });
        let status = Response::from_parts(head.clone(), ()).cache_status();
        if status.is_some_and(|status| status.is_collapsed()) {
            tally.count("collapsed");
        }
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        let trace = |what: &str| {
            format!("{what}: {page:?} {language}, required {hard:?} {soft:?}, got {:?} with {:?}", text, head.headers)
        };
        let expected = if page.varies() { language } else { "none" };
        match Content::parse(&text) {
            Some(content)
                if content.page == page
                    && content.language == expected
                    && content.versions_field() == field(VERSIONS)
                    && content.etag() == field("etag") =>
            {
                let below = |required: &[u64]| content.versions.iter().zip(required).any(|(had, least)| had < least);
                if below(&hard) {
                    tally.trace("stale", &trace("older than what was invalidated"));
                } else if below(&soft) && x_cache != "STALE" {
                    tally.trace("stale", &trace("as fresh after it was softly invalidated"));
                }
            }
            _ => tally.trace("torn", &trace("not one page")),
        }
    }
}

struct Invalidator {
    mode: Mode,
    cache: HttpCache,
    app: App,
    oracle: Oracle,
    tally: Tally,
}

impl Invalidator {
    async fn work(self, mut random: Random, until: Instant) {
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(random.below(300))).await;
            let page = Page(random.below(Page::COUNT));
            let tag = format!("tag{}", random.below(TAGS));
            let start = || self.cache.invalidate();
            let everything = "everything".to_owned();
            match random.below(20) {
                0 => self.invalidate(start().all(), everything, &mut random).await,
                1..=2 => self.invalidate(start().prefix(&page.prefix()), page.prefix(), &mut random).await,
                3..=6 => self.invalidate(start().url(&page.url()), page.path(), &mut random).await,
                7..=9 => self.send("PUT", &page.url(), &page.path()).await,
                10..=12 if self.mode == Mode::All => {
                    self.send("POST", &format!("{ORIGIN}/change/{tag}"), &tag).await;
                }
                _ => self.invalidate(start().tag(&*tag), tag, &mut random).await,
            }
        }
    }

    async fn invalidate(&self, what: tower_gatehouse::Invalidate, part: String, random: &mut Random) {
        let soft = random.once_in(3);
        // Nothing has changed; then a validation says so.
        let changed = !(soft && random.once_in(2));
        let version = if changed { self.oracle.change(&part) } else { 0 };
        let (what, done) = if soft { (what.soft(), Done::Soft) } else { (what, Done::Hard) };
        let outcome: Result<(), InvalidationError> = what.await;
        match outcome {
            Ok(()) => {
                self.tally.count(if soft { "soft" } else { "hard" });
                self.oracle.done(done, &part, version);
            }
            Err(error) => self.tally.trace("failed", &format!("an invalidation has failed: {error}")),
        }
    }

    /// An unsafe request that changes something; its answer has come when it is invalidated.
    async fn send(&self, method: &str, url: &str, part: &str) {
        let request = Request::builder().method(method).uri(url).body(full("")).expect("a request");
        let Ok(response) = self.app.send(request).await;
        let version = response.headers().get(CHANGED).and_then(|version| version.to_str().ok()?.parse().ok());
        self.oracle.done(Done::Hard, part, version.expect("what the origin has changed"));
        self.tally.count("unsafe");
    }
}
