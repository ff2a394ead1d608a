//! Rate limits: the layer in memory, and a fleet of processes on Redis.
#![cfg(feature = "memory")]

mod answers;
mod concurrency;
mod dropped;
#[cfg(feature = "redis")]
mod fleet;
mod limiter;
#[cfg(feature = "redis")]
mod outage;
mod policies;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod same_key;
#[cfg(feature = "redis")]
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "redis")]
mod together;
#[cfg(feature = "redis")]
mod trace;
mod wiring;

use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Request, Response};
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_gatehouse::{ProblemBody, rate_limit::RateLimitLayer};

pub(crate) type Answer = Response<ProblemBody<String>>;

/// A handler behind the layer, which counts how many requests reach it.
#[derive(Clone)]
pub(crate) struct App {
    service: BoxCloneSyncService<Request<()>, Answer, Infallible>,
    reached: Arc<AtomicUsize>,
}

impl App {
    pub(crate) fn new(layer: &RateLimitLayer) -> Self {
        Self::with(layer, async |_| Response::new(String::from("hello")))
    }

    pub(crate) fn with<F>(
        layer: &RateLimitLayer,
        handler: impl Fn(Request<()>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<String>> + Send + 'static,
    {
        let reached = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reached);
        let handler = service_fn(move |request| {
            count.fetch_add(1, Ordering::SeqCst);
            let response = handler(request);
            async move { Ok(response.await) }
        });
        Self { service: BoxCloneSyncService::new(layer.layer(handler)), reached }
    }

    pub(crate) async fn ask(&self, request: Request<()>) -> Answer {
        let mut service = self.service.clone();
        let Ok(answer) = service.ready().await.unwrap().call(request).await;
        answer
    }

    /// The status of a request without anything particular.
    pub(crate) async fn get(&self) -> u16 {
        self.ask(Request::new(())).await.status().as_u16()
    }

    /// How many of so many requests are admitted.
    pub(crate) async fn admits(&self, attempts: usize) -> usize {
        let mut admitted = 0;
        for _ in 0..attempts {
            admitted += usize::from(self.get().await == 200);
        }
        admitted
    }

    /// How many requests reached the handler.
    pub(crate) fn reached(&self) -> usize {
        self.reached.load(Ordering::SeqCst)
    }
}

/// A Redis that is waited for: on a busy machine a call may take longer than the 50 ms that limits have, and what each
/// process then decides for itself is not what these tests are about.
#[cfg(feature = "redis")]
pub(crate) async fn patient(url: impl Into<String>) -> tower_gatehouse::Backend {
    const LONG: std::time::Duration = std::time::Duration::from_secs(30);
    tower_gatehouse::Backend::redis(url).operation_timeout(LONG).limit_timeout(LONG).connect().await.unwrap()
}

/// A request with one header field.
pub(crate) fn with(name: &'static str, value: &str) -> Request<()> {
    Request::builder().header(name, value).body(()).unwrap()
}

pub(crate) fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

pub(crate) async fn json(answer: Answer) -> serde_json::Value {
    use http_body_util::BodyExt;
    serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
}
