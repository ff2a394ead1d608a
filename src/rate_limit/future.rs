//! The future of a response.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::engine::{Admission, Decision, Engine, Plan};
use crate::{Identity, ProblemBody, backend::BackendError};

pin_project! {
    /// The response of a [`RateLimit`](super::RateLimit) service.
    pub struct ResponseFuture<S, Q, R>
    where
        S: Service<Q>,
    {
        #[pin]
        state: State<S, Q, S::Future, R>,
    }
}

type Known = Result<Identity, BackendError>;
/// Plans anew for a request of a known identity.
type Identified<Q> = fn(&Engine, Known, Q) -> Result<(Plan, Q), Box<Response<Bytes>>>;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pin_project! {
    #[project = StateProject]
    #[project_replace = StateReplace]
    enum State<S, Q, F, R> {
        /// No limit applies.
        Bypass { #[pin] inner: F },
        /// Who is asking is looked up.
        Identifying { known: Boxed<Known>, identified: Identified<Q>, engine: Arc<Engine>, inner: S, request: Q },
        /// The counters are asked.
        Deciding { decision: Boxed<Decision>, engine: Arc<Engine>, inner: S, request: Q },
        /// The request is admitted.
        Admitted { #[pin] inner: F, engine: Arc<Engine>, admission: Admission },
        /// What was reserved is corrected.
        Correcting { corrected: Boxed<()>, engine: Arc<Engine>, admission: Admission, response: Response<R> },
        /// The request is refused.
        Refused { answer: Response<Bytes> },
        /// The response was handed out.
        Done,
    }
}

impl<S: Service<Q>, Q, R> ResponseFuture<S, Q, R> {
    pub(super) fn bypass(inner: S::Future) -> Self {
        Self { state: State::Bypass { inner } }
    }

    pub(super) fn refused(answer: Response<Bytes>) -> Self {
        Self { state: State::Refused { answer } }
    }

    pub(super) fn identify(
        engine: Arc<Engine>,
        identity: Identity,
        identified: Identified<Q>,
        inner: S,
        request: Q,
    ) -> Self {
        let known = Box::pin(async move { identity.known().await });
        Self { state: State::Identifying { known, identified, engine, inner, request } }
    }

    pub(super) fn decide(engine: Arc<Engine>, plan: Plan, inner: S, request: Q) -> Self {
        Self { state: State::deciding(engine, plan, inner, request) }
    }
}

impl<S, Q, F, R> State<S, Q, F, R> {
    fn deciding(engine: Arc<Engine>, plan: Plan, inner: S, request: Q) -> Self {
        let decision = {
            let engine = Arc::clone(&engine);
            Box::pin(async move { engine.decide(plan).await })
        };
        Self::Deciding { decision, engine, inner, request }
    }
}

impl<S, Q, R> Future for ResponseFuture<S, Q, R>
where
    S: Service<Q, Response = Response<R>>,
{
    type Output = Result<Response<ProblemBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProject::Bypass { inner } => {
                    let response = ready!(inner.poll(cx))?;
                    return Poll::Ready(Ok(response.map(ProblemBody::inner)));
                }
                StateProject::Identifying { known, .. } => {
                    let known = ready!(known.as_mut().poll(cx));
                    let StateReplace::Identifying { identified, engine, mut inner, request, .. } =
                        state.as_mut().project_replace(State::Done)
                    else {
                        unreachable!("the state was Identifying a moment ago")
                    };
                    match identified(&engine, known, request) {
                        Ok((plan, request)) if plan.is_empty() => State::Bypass { inner: inner.call(request) },
                        Ok((plan, request)) => State::deciding(engine, plan, inner, request),
                        Err(answer) => State::Refused { answer: *answer },
                    }
                }
                StateProject::Deciding { decision, .. } => {
                    let decision = ready!(decision.as_mut().poll(cx));
                    let StateReplace::Deciding { engine, mut inner, request, .. } =
                        state.as_mut().project_replace(State::Done)
                    else {
                        unreachable!("the state was Deciding a moment ago")
                    };
                    match decision {
                        Decision::Admitted(admission) => {
                            State::Admitted { inner: inner.call(request), engine, admission }
                        }
                        Decision::Refused(answer) => State::Refused { answer },
                    }
                }
                StateProject::Admitted { inner, engine, admission } => {
                    let (parts, body) = ready!(inner.poll(cx))?.into_parts();
                    let corrections = engine.corrections(admission, &parts);
                    let response = Response::from_parts(parts, body);
                    let (engine, admission) = (Arc::clone(engine), std::mem::take(admission));
                    if corrections.is_empty() {
                        state.set(State::Done);
                        return Poll::Ready(Ok(finish(&engine, admission, response)));
                    }
                    let corrected = {
                        let engine = Arc::clone(&engine);
                        Box::pin(async move { engine.correct(corrections).await })
                    };
                    State::Correcting { corrected, engine, admission, response }
                }
                StateProject::Correcting { corrected, .. } => {
                    ready!(corrected.as_mut().poll(cx));
                    let StateReplace::Correcting { engine, admission, response, .. } =
                        state.as_mut().project_replace(State::Done)
                    else {
                        unreachable!("the state was Correcting a moment ago")
                    };
                    return Poll::Ready(Ok(finish(&engine, admission, response)));
                }
                StateProject::Refused { answer } => {
                    let answer = std::mem::take(answer);
                    state.set(State::Done);
                    return Poll::Ready(Ok(answer.map(ProblemBody::full)));
                }
                StateProject::Done => panic!("polled after it was ready"),
            };
            state.set(next);
        }
    }
}

fn finish<R>(engine: &Engine, admission: Admission, response: Response<R>) -> Response<ProblemBody<R>> {
    let (mut parts, body) = response.into_parts();
    engine.finish(admission, &mut parts.headers, &mut parts.extensions);
    Response::from_parts(parts, ProblemBody::inner(body))
}

impl<S: Service<Q>, Q, R> fmt::Debug for ResponseFuture<S, Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
