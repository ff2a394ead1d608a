//! Several caches on one backend, and herds of requests.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::task::{JoinHandle, JoinSet};
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
            fleet.push(set(HttpCache::new(&self.process().await)));
        }
        fleet
    }
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

/// Sends these requests at once, and waits for all.
pub(crate) async fn herd(requests: impl IntoIterator<Item = (App, Request<Body>)>) -> Vec<Result<Answer, BoxError>> {
    let mut tasks = JoinSet::new();
    for (app, request) in requests {
        tasks.spawn(fetch(app, request));
    }
    let mut answers = Vec::new();
    while let Some(answer) = bounded(tasks.join_next()).await {
        answers.push(answer.expect("no task panics"));
    }
    answers
}

/// So many GETs for one URL from each of these processes, all at once; all must be answered.
pub(crate) async fn gets(apps: &[App], each: usize, url: &str) -> Vec<Answer> {
    let requests = (0..each).flat_map(|_| apps.iter().map(|app| (app.clone(), request("GET", url, &[]))));
    herd(requests).await.into_iter().map(|answer| answer.expect("the request is answered")).collect()
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
