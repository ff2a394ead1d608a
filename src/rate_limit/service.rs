//! The service.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, request::Parts};
use tower_service::Service;

use super::{
    ResponseFuture,
    engine::{Decision, Engine},
    future::{Known, Next},
    reject,
};
use crate::{Identity, ProblemBody, ready::take_ready};

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
        let engine = &self.engine;
        let (parts, body) = request.into_parts();
        if engine.config.is_exempt(&parts) {
            return ResponseFuture::bypass(self.inner.call(Request::from_parts(parts, body)));
        }
        if let Some(identity) = engine.unknown_identity(&parts) {
            let inner = take_ready(&mut self.inner);
            let request = Request::from_parts(parts, body);
            return ResponseFuture::identify(Arc::clone(engine), identity, identified, inner, request);
        }
        let next = next(engine, &parts);
        // Put together once, after all that only reads it: a head is a few hundred bytes, and each move copies them.
        let request = Request::from_parts(parts, body);
        match next {
            Next::Pass => ResponseFuture::bypass(self.inner.call(request)),
            Next::Admitted(admission) => ResponseFuture::admitted(engine, self.inner.call(request), admission),
            Next::Refused(answer) => ResponseFuture::refused(*answer),
            Next::Ask { plan, is_grpc } => {
                ResponseFuture::decide(Arc::clone(engine), plan, is_grpc, take_ready(&mut self.inner), request)
            }
        }
    }
}

/// What is done with a request of which all is known that keys may need.
fn next(engine: &Engine, parts: &Parts) -> Next {
    let plan = match engine.plan(parts) {
        Ok(plan) if plan.is_empty() => return Next::Pass,
        Ok(plan) => plan,
        Err(unwired) => return Next::Refused(Box::new(reject::unwired(unwired, parts))),
    };
    match engine.decide_now(&plan, parts) {
        Some(Decision::Admitted(admission)) => Next::Admitted(admission),
        Some(Decision::Refused(answer)) => Next::Refused(answer),
        None => Next::Ask { plan, is_grpc: reject::is_grpc(parts) },
    }
}

/// The same for a request now that it is known who asks, or that nobody can tell.
fn identified<B>(engine: &Engine, known: Known, request: Request<B>) -> (Next, Request<B>) {
    let (mut parts, body) = request.into_parts();
    let next = match known {
        Ok(identity) => {
            parts.extensions.insert(identity);
            next(engine, &parts)
        }
        Err(error) if engine.config.denies_unknown() => Next::Refused(Box::new(reject::unidentified(&error, &parts))),
        Err(error) => {
            tracing::debug!(%error, "a request is limited as one of nobody");
            // For us alone: whoever is within asks for himself, and learns of the outage.
            let asking = parts.extensions.insert(Identity::anonymous());
            let next = next(engine, &parts);
            match asking {
                Some(asking) => parts.extensions.insert(asking),
                None => parts.extensions.remove::<Identity>(),
            };
            next
        }
    };
    (next, Request::from_parts(parts, body))
}
