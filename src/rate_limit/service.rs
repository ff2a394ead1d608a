//! The service.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{
    ResponseFuture,
    engine::{Admission, Engine, Plan},
    future::{Known, Next},
    head::Head,
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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let engine = &self.engine;
        // Written into where it is: each move of it costs more than what is written.
        let mut admission = Admission::default();
        let next = if engine.config.reads_whole {
            let (mut parts, body) = request.into_parts();
            let next = Identity::for_layers(&mut parts, |parts| begin(engine, Head::whole(parts), &mut admission));
            request = Request::from_parts(parts, body);
            next
        } else {
            begin(engine, Head::of(&request), &mut admission)
        };
        match next {
            Ok(Next::Admitted) => {}
            Ok(Next::Refused(answer)) => return ResponseFuture::refused(*answer),
            Ok(Next::Ask { plan, form }) => {
                let inner = take_ready(&mut self.inner);
                return ResponseFuture::decide(Arc::clone(engine), plan, form, inner, request);
            }
            Err(identity) => {
                let inner = take_ready(&mut self.inner);
                return ResponseFuture::identify(Arc::clone(engine), identity, identified, inner, request);
            }
        }
        let corrects = engine.corrects(&admission);
        ResponseFuture::admitted(self.inner.call(request), admission, corrects)
    }
}

/// What is done with a request; `Err` is one of whom it has to be found out who asks.
fn begin(engine: &Engine, head: Head<'_>, admission: &mut Admission) -> Result<Next, Identity> {
    if engine.config.hooks.is_exempt(head) {
        return Ok(Next::Admitted);
    }
    match engine.unknown_identity(head) {
        Some(identity) => Err(identity),
        None => Ok(next(engine, head, admission)),
    }
}

/// What is done with a request of which all is known that keys may need.
fn next(engine: &Engine, head: Head<'_>, admission: &mut Admission) -> Next {
    let mut plan = Plan::default();
    if let Err(unwired) = engine.plan(head, &mut plan) {
        return Next::Refused(Box::new(reject::unwired(unwired, head)));
    }
    if plan.is_empty() {
        return Next::Admitted;
    }
    match engine.decide_now(&plan, head, admission) {
        Some(Ok(())) => Next::Admitted,
        Some(Err(answer)) => Next::Refused(answer),
        None => Next::Ask { plan, form: head.form() },
    }
}

/// The same for a request now that it is known who asks, or that nobody can tell.
fn identified<B>(engine: &Engine, known: Known, request: Request<B>, admission: &mut Admission) -> (Next, Request<B>) {
    let (mut parts, body) = request.into_parts();
    let next = match known {
        Ok(identity) => {
            parts.extensions.insert(identity);
            Identity::for_layers(&mut parts, |parts| next(engine, Head::whole(parts), admission))
        }
        Err(error) => {
            if let Some(answer) = engine.refuse_unknown(&error, Head::whole(&parts).form()) {
                return (Next::Refused(answer), Request::from_parts(parts, body));
            }
            tracing::debug!(%error, "a request is limited as one of nobody");
            // For us alone: whoever is within asks for himself, and learns of the outage.
            let asking = parts.extensions.insert(Identity::anonymous());
            let next = next(engine, Head::whole(&parts), admission);
            match asking {
                Some(asking) => parts.extensions.insert(asking),
                None => parts.extensions.remove::<Identity>(),
            };
            next
        }
    };
    (next, Request::from_parts(parts, body))
}
