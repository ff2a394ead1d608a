//! The load under which faults happen, and what it counts.
//!
//! Three processes (each with a connection, a memory and a cache of its own) serve eight pages from all cache layers.
//! Readers check every answer against what an invalidation that had returned before they asked has promised. A writer
//! changes pages at the origin and invalidates them. A customer adds to a cart, and repeats each addition under its id
//! until it is told that it was done.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::Request,
    response::IntoResponse,
    routing::get,
};
use http_body_util::BodyExt as _;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;
use tower_gatehouse::{
    Backend, HttpCache, ResponseExt as _,
    backend::{MapChange, MapChanged, MapKey, MapOp, MapOwner, OpId, RedisBuilder, UserKey},
};

const PAGES: usize = 8;
const PROCESSES: usize = 3;
/// Readers in each process.
const READERS: usize = 4;
/// Long enough that a busy machine is not taken for an outage.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(300);

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: AtomicU64,
    pub(crate) hits: AtomicU64,
    /// Answers that the application alone would not have given.
    pub(crate) errors: AtomicU64,
    /// Answers older than what was promised.
    pub(crate) stale: AtomicU64,
    /// The slowest answer, in milliseconds.
    pub(crate) slowest: AtomicU64,
    pub(crate) invalidated: AtomicU64,
    /// Invalidations that said that they were not done.
    pub(crate) refused: AtomicU64,
    /// Additions to the cart that were acknowledged.
    pub(crate) added: AtomicU64,
}

impl Counts {
    pub(crate) fn of(counter: &AtomicU64) -> u64 {
        counter.load(SeqCst)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, hits, errors, stale, slowest, invalidated, refused, added } = self;
        let [requests, hits, errors, stale] = [requests, hits, errors, stale].map(Self::of);
        let [slowest, invalidated, refused, added] = [slowest, invalidated, refused, added].map(Self::of);
        write!(
            f,
            "{requests} requests, {hits} hits, {errors} errors, {stale} stale, slowest {slowest} ms, {invalidated} \
             invalidated, {refused} refused, {added} added"
        )
    }
}

/// What the pages hold at the origin, and what invalidations have promised.
#[derive(Debug, Default)]
struct Pages {
    content: [AtomicU64; PAGES],
    promised: [AtomicU64; PAGES],
}

pub(crate) struct Load {
    pub(crate) backends: Vec<Backend>,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
    customer: JoinHandle<()>,
}

const CART: &str = "cart";

fn cart() -> MapKey {
    MapKey { owner: MapOwner::User(UserKey::of("customer")), name: CART }
}

impl Load {
    /// Starts it.
    pub(crate) async fn start(connect: impl Fn() -> RedisBuilder) -> Self {
        let (counts, stop, pages) = (Arc::<Counts>::default(), Arc::<AtomicBool>::default(), Arc::<Pages>::default());
        let mut backends = Vec::new();
        for _ in 0..PROCESSES {
            let backend = connect().operation_timeout(TIMEOUT).connect().await.expect("a connection");
            backends.push(backend);
        }
        let mut tasks = Vec::new();
        for (n, backend) in backends.iter().enumerate() {
            let cache = HttpCache::new(backend).any_host();
            let app = Router::new().route("/{page}", get(page)).layer(cache.layers()).with_state(Arc::clone(&pages));
            for reader in 0..READERS {
                let (app, counts, stop, pages) =
                    (app.clone(), Arc::clone(&counts), Arc::clone(&stop), Arc::clone(&pages));
                tasks.push(tokio::spawn(async move {
                    let mut at = n + reader;
                    while !stop.load(SeqCst) {
                        at = (at * 5 + 3) % (PAGES * 64);
                        read(&app, at % PAGES, &counts, &pages).await;
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }));
            }
            let (counts, stop, pages) = (Arc::clone(&counts), Arc::clone(&stop), Arc::clone(&pages));
            tasks.push(tokio::spawn(async move {
                let mut at = n;
                while !stop.load(SeqCst) {
                    at = (at * 5 + 3) % (PAGES * 64);
                    write(&cache, at % PAGES, &counts, &pages).await;
                    tokio::time::sleep(Duration::from_millis(40)).await;
                }
            }));
        }
        let customer = tokio::spawn(shop(backends[0].clone(), Arc::clone(&counts), Arc::clone(&stop)));
        let load = Self { backends, counts, stop, tasks, customer };
        load.until("there are hits before the fault", |counts| Counts::of(&counts.hits) > 20).await;
        load
    }

    pub(crate) async fn run(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Waits until this many invalidations have said that they were not done.
    pub(crate) async fn until_refused(&self, more: u64) {
        let before = Counts::of(&self.counts.refused);
        self.until("invalidations are refused", |counts| Counts::of(&counts.refused) >= before + more).await;
    }

    async fn until(&self, what: &str, ready: impl Fn(&Counts) -> bool) {
        let start = Instant::now();
        while !ready(&self.counts) {
            assert!(start.elapsed() < Duration::from_mins(1), "{what}: not so after a minute: {}", self.counts);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until hits and invalidations work again.
    pub(crate) async fn recovered(&self) {
        let (hits, done) = (Counts::of(&self.counts.hits), Counts::of(&self.counts.invalidated));
        let recovered =
            |counts: &Counts| Counts::of(&counts.hits) >= hits + 50 && Counts::of(&counts.invalidated) >= done + 5;
        self.until("it recovers", recovered).await;
    }

    /// Ends it, and checks what holds in every row: no error, nothing stale.
    pub(crate) async fn end(self, row: &str) -> Arc<Counts> {
        self.finish(row).await.0
    }

    /// And that every addition that was acknowledged is in the cart, once.
    pub(crate) async fn end_without_loss(self, row: &str) -> Arc<Counts> {
        let (counts, backend) = self.finish(row).await;
        let map = backend.map(&cart()).await.expect("the cart");
        let there = map.fields.get("n").map_or("0", |n| std::str::from_utf8(n).expect("a number"));
        assert_eq!(there, Counts::of(&counts.added).to_string(), "{row}: the cart");
        counts
    }

    async fn finish(self, row: &str) -> (Arc<Counts>, Backend) {
        self.stop.store(true, SeqCst);
        for task in self.tasks {
            task.await.expect("no panic");
        }
        self.customer.await.expect("no panic");
        println!("{row}: {}", self.counts);
        assert_eq!(Counts::of(&self.counts.errors), 0, "{row}: {}", self.counts);
        assert_eq!(Counts::of(&self.counts.stale), 0, "{row}: {}", self.counts);
        (self.counts, self.backends[0].clone())
    }
}

/// The origin: reads what a page holds, and takes its time to answer.
async fn page(State(pages): State<Arc<Pages>>, Path(page): Path<usize>) -> impl IntoResponse {
    let content = pages.content[page].load(SeqCst);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let tag = format!("page{page}");
    ([("cache-control", "max-age=60".to_owned()), ("cache-tag", tag)], content.to_string())
}

async fn read(app: &Router, page: usize, counts: &Counts, pages: &Pages) {
    let least = pages.promised[page].load(SeqCst);
    let start = Instant::now();
    let request = Request::get(format!("http://shop.test/{page}")).body(Body::empty()).expect("a request");
    let Ok(response) = app.clone().oneshot(request).await;
    let is_hit = response.cache_status().is_some_and(|status| status.is_hit());
    let status = response.status();
    let body = response.into_body().collect().await.ok().map(http_body_util::Collected::to_bytes);
    counts.requests.fetch_add(1, SeqCst);
    counts.hits.fetch_add(is_hit.into(), SeqCst);
    counts.slowest.fetch_max(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX), SeqCst);
    match body.and_then(|body| std::str::from_utf8(&body).ok()?.parse::<u64>().ok()) {
        Some(content) if status == 200 => counts.stale.fetch_add((content < least).into(), SeqCst),
        _ => counts.errors.fetch_add(1, SeqCst),
    };
}

async fn write(cache: &HttpCache, page: usize, counts: &Counts, pages: &Pages) {
    let content = pages.content[page].fetch_add(1, SeqCst) + 1;
    match cache.invalidate().tag(format!("page{page}")).await {
        Ok(()) => {
            pages.promised[page].fetch_max(content, SeqCst);
            counts.invalidated.fetch_add(1, SeqCst);
        }
        Err(_) => {
            counts.refused.fetch_add(1, SeqCst);
        }
    }
}

async fn shop(backend: Backend, counts: Arc<Counts>, stop: Arc<AtomicBool>) {
    let mut n = 0_u128;
    while !stop.load(SeqCst) {
        n += 1;
        let (start, op) = (Instant::now(), MapOp::Add { field: "n", by: 1, range: 0..=i64::MAX });
        let once = Some((OpId(n.to_be_bytes()), Duration::from_mins(1)));
        let change = MapChange { key: cart(), op, expected: None, once, ttl: Duration::from_mins(10) };
        // Until it is told that it was done: an addition under one id counts once.
        while !matches!(backend.change_map(change.clone()).await, Ok(MapChanged::Added { .. })) {
            assert!(start.elapsed() < Duration::from_mins(1), "the cart does not come back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        counts.added.fetch_add(1, SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
