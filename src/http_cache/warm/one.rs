//! The way of one request.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::Instant;
use tower_service::Service;

use super::{Terms, Warmed};
use crate::{
    BoxError, CacheFuture, CacheStatus,
    backend::PrimaryKey,
    body::CacheBody,
    http_cache::{
        HttpCache,
        judge::Failure,
        serve::{Content, Origin, Role},
        visit::Bypass,
    },
};

pub(super) struct One {
    pub(super) cache: HttpCache,
    pub(super) terms: Terms,
}

impl One {
    /// What it comes to, and how long that took.
    pub(super) async fn warm<S, B, R>(self, service: S, request: Request<B>) -> (Warmed, Duration)
    where
        S: Origin<B, R>,
        S::Error: Into<BoxError> + 'static,
        B: Content,
        R: Content,
    {
        let start = Instant::now();
        let bypassed = |bypass: Bypass| (Warmed::Bypassed { reason: bypass.as_str() }, start.elapsed());
        // A HEAD fills nothing.
        let admitted = match self.cache.admit(&request) {
            Ok(_) if *request.method() == Method::HEAD => return bypassed(Bypass::Method),
            Ok(_) if self.lacks_host(&request) => return bypassed(Bypass::Host),
            Ok((admitted, _)) => admitted,
            Err(bypass) => return bypassed(bypass),
        };
        let headers = request.headers().clone();
        match self.is_fresh(&admitted.key, &headers).await {
            Ok(true) => return (Warmed::Fresh, start.elapsed()),
            Ok(false) => {}
            // Its answer would not be stored.
            Err(failed) => return (failed, start.elapsed()),
        }
        let looked = start.elapsed();
        tokio::select! {
            biased;
            () = self.terms.stop.cancelled() => return (Warmed::Stopped, looked),
            () = self.terms.pace.turn() => {}
        }
        if self.cache.state.tasks.is_closed() {
            return (Warmed::Stopped, looked);
        }
        let start = Instant::now();
        let asked = Arc::new(AtomicBool::new(false));
        let noticing = Noticing { inner: service, asked: Arc::clone(&asked) };
        let fetched = tokio::time::timeout(self.terms.timeout, fetch(&self.cache, noticing, request)).await;
        let elapsed = || looked + start.elapsed();
        let answer = match fetched {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return (Warmed::Failed { reason: error.to_string() }, elapsed()),
            Err(_) => {
                let reason = format!("no answer within {:?}", self.terms.timeout);
                return (Warmed::Failed { reason }, elapsed());
            }
        };
        let warmed = match self.is_fresh(&admitted.key, &headers).await {
            Ok(true) if asked.load(Ordering::Acquire) => Warmed::Stored { status: answer.status, bytes: answer.bytes },
            // Somebody else has fetched it meanwhile.
            Ok(true) => Warmed::Fresh,
            Ok(false) => match answer.failure.and_then(Failure::standing_in) {
                Some(reason) => Warmed::Failed { reason },
                None => Warmed::NotStored { status: answer.status, reason: answer.detail },
            },
            Err(failed) => failed,
        };
        (warmed, elapsed())
    }

    /// Whether no client can ask like this.
    fn lacks_host<B>(&self, request: &Request<B>) -> bool {
        !self.cache.config.keys.any_host
            && request.uri().authority().is_none()
            && !request.headers().contains_key(header::HOST)
    }

    async fn is_fresh(&self, key: &PrimaryKey, headers: &HeaderMap) -> Result<bool, Warmed> {
        match self.cache.look_up(key, headers).await {
            Some(lookup) => Ok(self.cache.is_hit(&lookup, headers)),
            None => Err(Warmed::Failed { reason: "the store is out of reach".into() }),
        }
    }
}

/// What matters of an answer.
struct Answer {
    status: http::StatusCode,
    bytes: u64,
    detail: Option<String>,
    /// Why it is a stale one.
    failure: Option<Failure>,
}

/// Asks as a client would, through a cache layer and a coalescing one, and reads to the end.
async fn fetch<S, B, R>(cache: &HttpCache, service: S, request: Request<B>) -> Result<Answer, BoxError>
where
    S: Origin<B, R>,
    S::Error: Into<BoxError> + 'static,
    B: Content,
    R: Content,
{
    let mut collapsing = Collapsing { cache: cache.clone(), inner: service };
    let response = cache.serve(Role::Cache, &mut collapsing, request).await.map_err(Into::into)?;
    let detail = CacheStatus::from_headers(response.headers()).and_then(|status| status.detail().map(str::to_owned));
    let (status, failure) = (response.status(), response.extensions().get().copied());
    let mut body = pin!(response.into_body());
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        // Read and forgotten: the cache keeps what it keeps.
        bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(Answer { status, bytes, detail, failure })
}

/// The coalescing layer, without its module.
#[derive(Clone)]
struct Collapsing<S> {
    cache: HttpCache,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Collapsing<S>
where
    S: Service<Request<B>, Response = Response<R>, Future: Send, Error: Send> + Clone + Send + 'static,
    S::Error: 'static,
    B: Content,
    R: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<CacheBody<R>>;
    type Error = S::Error;
    type Future = CacheFuture<S::Future, R, S::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.cache.collapse(&mut self.inner, request)
    }
}

/// Notices whether a service is asked.
#[derive(Clone)]
struct Noticing<S> {
    inner: S,
    asked: Arc<AtomicBool>,
}

impl<S: Service<Q>, Q> Service<Q> for Noticing<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Q) -> S::Future {
        self.asked.store(true, Ordering::Release);
        self.inner.call(request)
    }
}
