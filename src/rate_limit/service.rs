//! The service.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use tower_service::Service;

use super::{
    ResponseFuture,
    engine::{Engine, Plan},
    reject,
};
use crate::{Identity, ProblemBody, backend::BackendError};

/// Refuses requests that are beyond a limit; made by a [`RateLimitLayer`](super::RateLimitLayer).
///
/// Cancel safe: a request whose future is dropped while the limit is asked has been counted or not.
#[derive(Clone, Debug)]
pub struct RateLimit<S> {
    pub(super) inner: S,
    pub(super) engine: Arc<Engine>,
}

impl<S, B, R> Service<Request<B>> for RateLimit<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
{
    type Response = Response<ProblemBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, Request<B>, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (parts, body) = request.into_parts();
        if self.engine.config.is_exempt(&parts) {
            return ResponseFuture::bypass(self.inner.call(Request::from_parts(parts, body)));
        }
        if let Some(identity) = self.engine.unknown_identity(&parts) {
            let clone = self.inner.clone();
            let inner = std::mem::replace(&mut self.inner, clone);
            let request = Request::from_parts(parts, body);
            return ResponseFuture::identify(Arc::clone(&self.engine), identity, identified, inner, request);
        }
        match self.engine.plan(&parts) {
            Ok(plan) if plan.is_empty() => ResponseFuture::bypass(self.inner.call(Request::from_parts(parts, body))),
            Ok(plan) => {
                // The clone is not ready; the service that was polled is.
                let clone = self.inner.clone();
                let inner = std::mem::replace(&mut self.inner, clone);
                ResponseFuture::decide(Arc::clone(&self.engine), plan, inner, Request::from_parts(parts, body))
            }
            Err(unwired) => ResponseFuture::refused(reject::unwired(unwired, &parts)),
        }
    }
}

/// The plan for a request now that it is known who asks, or the answer.
fn identified<B>(
    engine: &Engine,
    known: Result<Identity, BackendError>,
    request: Request<B>,
) -> Result<(Plan, Request<B>), Box<Response<Bytes>>> {
    let (mut parts, body) = request.into_parts();
    let identity = known.map_err(|error| reject::unidentified(&error, &parts))?;
    parts.extensions.insert(identity);
    let plan = engine.plan(&parts).map_err(|unwired| reject::unwired(unwired, &parts))?;
    Ok((plan, Request::from_parts(parts, body)))
}
