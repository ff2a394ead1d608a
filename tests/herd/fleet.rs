//! Several caches on one backend, and herds of requests.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};
use tower::{Layer, Service, ServiceExt as _};
use tower_gatehouse::{Backend, BoxError, CacheLayer, CoalesceLayer, HttpCache, ResponseExt as _, SwrLayer};

use crate::{
    app::{Answer, App, Body, Origin, boxed, request},
    support::RedisServer,
};

/// A backend of its own for each test, and the server behind it.
pub(crate) struct Store {
    pub(crate) redis: Option<RedisServer>,
    memory: Option<Backend>,
}

impl Store {
    /// One in memory and one on Redis.
    pub(crate) fn both() -> [Self; 2] {
        [Self::memory(), Self::redis()]
    }

    pub(crate) fn memory() -> Self {
        Self { redis: None, memory: Some(Backend::memory()) }
    }

    pub(crate) fn redis() -> Self {
        Self { redis: Some(RedisServer::start()), memory: None }
    }

    pub(crate) fn name(&self) -> &'static str {
        if self.redis.is_some() { "redis" } else { "memory" }
    }

    /// What one more process sees of it.
    pub(crate) async fn process(&self) -> Backend {
        match (&self.redis, &self.memory) {
            // A herd in a debug build on a busy machine is no outage.
            (Some(redis), _) => {
                let patient = Backend::redis(redis.url()).operation_timeout(Duration::from_secs(5));
                patient.connect().await.expect("Redis answers")
            }
            (_, Some(memory)) => memory.clone(),
            _ => unreachable!("a store is one or the other"),
        }
    }

    /// So many processes with a cache each.
    pub(crate) async fn fleet(&self, processes: usize, set: impl Fn(HttpCache) -> HttpCache) -> Vec<HttpCache> {
        let mut fleet = Vec::new();
        for _ in 0..processes {
            fleet.push(set(patient(HttpCache::new(&self.process().await))));
        }
        fleet
    }
}

/// No busy machine makes a follower ask for itself, or ends a lease.
pub(crate) fn patient(cache: HttpCache) -> HttpCache {
    cache.lease(Duration::from_secs(15)).wait(Duration::from_secs(25))
}

/// An origin that takes its time.
#[derive(Clone)]
pub(crate) struct Slow(pub(crate) Origin, pub(crate) Duration);

impl Service<Request<Body>> for Slow {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (answer, delay) = (self.0.call(request), self.1);
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            answer.await
        })
    }
}

/// An origin whose answers wait until they are let go, so that a test says who has come by then.
#[derive(Clone)]
pub(crate) struct Held(pub(crate) Origin, Arc<Semaphore>);

impl Held {
    pub(crate) fn new(origin: Origin) -> Self {
        Self(origin, Arc::new(Semaphore::new(0)))
    }

    /// Lets one answer go.
    pub(crate) fn answer_one(&self) {
        self.1.add_permits(1);
    }

    /// Lets all go, and holds no more.
    pub(crate) fn open(&self) {
        self.1.close();
    }
}

impl Service<Request<Body>> for Held {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (answer, held) = (self.0.call(request), Arc::clone(&self.1));
        Box::pin(async move {
            // An error says that it holds no more.
            if let Ok(permit) = held.acquire().await {
                permit.forget();
            }
            answer.await
        })
    }
}

pub(crate) fn cached<S>(cache: &HttpCache, inner: S) -> App
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    boxed(CacheLayer::new(cache).layer(CoalesceLayer::new(cache).layer(inner)))
}

pub(crate) fn alone<S>(cache: &HttpCache, inner: S) -> App
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    boxed(CoalesceLayer::new(cache).layer(inner))
}

pub(crate) fn swr<S>(cache: &HttpCache, inner: S) -> App
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    boxed(SwrLayer::new(cache).layer(inner))
}

/// Boxed, because the compiler loses its way in the lifetimes of the service's type otherwise.
pub(crate) fn call(
    app: App,
    request: Request<Body>,
) -> Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>> {
    Box::pin(app.oneshot(request))
}

/// Like `try_send`, for tasks.
pub(crate) async fn fetch(app: App, request: Request<Body>) -> Result<Answer, BoxError> {
    let response = call(app, request).await?;
    let (status, headers, cache) = (response.status().as_u16(), response.headers().clone(), response.cache_status());
    let body = response.into_body().collect().await?.to_bytes();
    Ok(Answer { status, headers, body: String::from_utf8(body.to_vec())?, cache })
}

/// A GET in a task of its own.
pub(crate) fn spawn_get(app: &App, url: &str) -> JoinHandle<Answer> {
    let answer = fetch(app.clone(), request("GET", url, &[]));
    tokio::spawn(async move { answer.await.expect("the service answers") })
}

/// Requests under way, each in a task of its own.
pub(crate) struct Herd {
    tasks: JoinSet<Result<Answer, BoxError>>,
    steps: Steps,
}

impl Herd {
    /// Sends these at once.
    pub(crate) fn start(requests: impl IntoIterator<Item = (App, Request<Body>)>) -> Self {
        let (mut tasks, steps) = (JoinSet::new(), Steps::default());
        for (app, request) in requests {
            tasks.spawn(steps.clone().count(fetch(app, request)));
        }
        Self { tasks, steps }
    }

    /// Waits until all wait: for the origin, or for one another.
    pub(crate) async fn settled(&self) {
        settled(self.tasks.len(), async || self.steps.taken()).await;
    }

    /// Waits for all answers.
    pub(crate) async fn answers(mut self) -> Vec<Result<Answer, BoxError>> {
        let mut answers = Vec::new();
        while let Some(answer) = bounded(self.tasks.join_next()).await {
            answers.push(answer.expect("no task panics"));
        }
        answers
    }
}

/// How many requests have come, and how many steps they have taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps(Arc<(AtomicUsize, AtomicUsize)>);

impl Steps {
    /// Counts what this request does.
    pub(crate) async fn count<T>(self, request: impl Future<Output = T>) -> T {
        let (come, steps) = &*self.0;
        come.fetch_add(1, Ordering::SeqCst);
        let mut request = std::pin::pin!(request);
        std::future::poll_fn(|cx| {
            steps.fetch_add(1, Ordering::SeqCst);
            request.as_mut().poll(cx)
        })
        .await
    }

    pub(crate) fn taken(&self) -> (usize, usize) {
        (self.0.0.load(Ordering::SeqCst), self.0.1.load(Ordering::SeqCst))
    }
}

/// Waits until so many requests have come and none of them takes a step any more, at most 50 s.
pub(crate) async fn settled(requests: usize, taken: impl AsyncFn() -> (usize, usize)) {
    // Counted, not timed: while this process stands still, no time passes.
    let (mut before, mut still) = ((0, 0), 0);
    for _ in 0..1000 {
        let now = taken().await;
        still = if now == before && now.0 >= requests { still + 1 } else { 0 };
        if still == 30 {
            return;
        }
        before = now;
        tokio::time::sleep(50 * MS).await;
    }
    panic!("not within 50 s: {requests} requests have come and wait: {before:?}");
}

/// Sends these requests at once, and waits for all.
pub(crate) async fn herd(requests: impl IntoIterator<Item = (App, Request<Body>)>) -> Vec<Result<Answer, BoxError>> {
    Herd::start(requests).answers().await
}

/// Sends these requests at once, and lets the origin answer when all of them wait for it.
pub(crate) async fn herd_at(
    origin: &Held,
    requests: impl IntoIterator<Item = (App, Request<Body>)>,
) -> Vec<Result<Answer, BoxError>> {
    let herd = Herd::start(requests);
    herd.settled().await;
    origin.open();
    herd.answers().await
}

fn requests(apps: &[App], each: usize, url: &str) -> Vec<(App, Request<Body>)> {
    (0..each).flat_map(|_| apps.iter().map(|app| (app.clone(), request("GET", url, &[])))).collect()
}

fn answered(answers: Vec<Result<Answer, BoxError>>) -> Vec<Answer> {
    answers.into_iter().map(|answer| answer.expect("the request is answered")).collect()
}

/// So many GETs for one URL from each of these processes, all at once; all must be answered.
pub(crate) async fn gets(apps: &[App], each: usize, url: &str) -> Vec<Answer> {
    answered(herd(requests(apps, each, url)).await)
}

/// Likewise, and lets the origin answer when all of them wait for it.
pub(crate) async fn gets_at(origin: &Held, apps: &[App], each: usize, url: &str) -> Vec<Answer> {
    answered(herd_at(origin, requests(apps, each, url)).await)
}

/// No test waits longer than this for anything.
pub(crate) async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it does not hang")
}

/// Waits until it holds, at most 20 s.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..4000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not within 20 s: {what}");
}

/// Asks again and again until there is something, at most 20 s.
pub(crate) async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(something) = ask().await {
            return something;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 20 s");
}

pub(crate) const MS: Duration = Duration::from_millis(1);
