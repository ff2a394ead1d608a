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

use super::{
    engine::{Admission, Decision, Engine, Note, Plan},
    settle::Reserved,
};
use crate::{Identity, ProblemBody, backend::BackendError, unbroken::Unbroken};

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

/// What is done with a request.
pub(super) enum Next {
    /// No limit applies.
    Pass,
    Admitted(Admission),
    Refused(Box<Response<Bytes>>),
    /// The store has to be asked.
    Ask {
        plan: Plan,
        is_grpc: bool,
    },
}

pub(super) type Known = Result<Identity, BackendError>;
/// Goes on with a request of a known identity.
type Identified<Q> = fn(&Engine, Known, Q) -> (Next, Q);

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pin_project! {
    #[project = StateProject]
    #[project_replace = StateReplace]
    enum State<S, Q, F, R> {
        /// Nothing is left to do.
        Bypass { #[pin] inner: F },
        /// Who is asking is looked up.
        Identifying { known: Boxed<Known>, identified: Identified<Q>, held: Box<Held<S, Q>> },
        /// The counters are asked.
        Deciding { decision: Boxed<Decision>, held: Box<Held<S, Q>> },
        /// The request is admitted; there is something to tell.
        Noted { #[pin] inner: F, note: Note },
        /// The request is admitted; what was taken may have to be corrected.
        Reserved { #[pin] inner: F, engine: Arc<Engine>, note: Note, reserved: Vec<Reserved> },
        /// What was reserved is corrected.
        Correcting { corrected: Unbroken<()>, answer: Option<Box<(Note, Response<R>)>> },
        /// The request is refused.
        Refused { answer: Response<Bytes> },
        /// The response was handed out.
        Done,
    }
}

/// A request that something is waited for, and the service that was ready for it. Apart, so that the futures of
/// requests that wait for nothing are small.
struct Held<S, Q> {
    engine: Arc<Engine>,
    inner: S,
    request: Q,
}

impl<S: Service<Q>, Q, R> ResponseFuture<S, Q, R> {
    pub(super) fn bypass(inner: S::Future) -> Self {
        Self { state: State::Bypass { inner } }
    }

    pub(super) fn admitted(engine: &Arc<Engine>, inner: S::Future, admission: Admission) -> Self {
        Self { state: State::admitted(engine, inner, admission) }
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
        Self { state: State::Identifying { known, identified, held: Box::new(Held { engine, inner, request }) } }
    }

    pub(super) fn decide(engine: Arc<Engine>, plan: Plan, is_grpc: bool, inner: S, request: Q) -> Self {
        Self { state: State::deciding(Box::new(Held { engine, inner, request }), plan, is_grpc) }
    }
}

impl<S, Q, F, R> State<S, Q, F, R> {
    fn admitted(engine: &Arc<Engine>, inner: F, Admission { note, reserved }: Admission) -> Self {
        if !reserved.is_empty() {
            Self::Reserved { inner, engine: Arc::clone(engine), note, reserved }
        } else if !note.is_empty() {
            Self::Noted { inner, note }
        } else {
            Self::Bypass { inner }
        }
    }

    fn deciding(held: Box<Held<S, Q>>, plan: Plan, is_grpc: bool) -> Self {
        let engine = Arc::clone(&held.engine);
        Self::Deciding { decision: Box::pin(async move { engine.decide(plan, is_grpc).await }), held }
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
                    return Poll::Ready(Ok(ready!(inner.poll(cx))?.map(ProblemBody::inner)));
                }
                StateProject::Identifying { known, .. } => {
                    let known = ready!(known.as_mut().poll(cx));
                    let StateReplace::Identifying { identified, held, .. } =
                        state.as_mut().project_replace(State::Done)
                    else {
                        unreachable!("the state was Identifying a moment ago")
                    };
                    let Held { engine, mut inner, request } = *held;
                    let (next, request) = identified(&engine, known, request);
                    match next {
                        Next::Pass => State::Bypass { inner: inner.call(request) },
                        Next::Admitted(admission) => State::admitted(&engine, inner.call(request), admission),
                        Next::Refused(answer) => State::Refused { answer: *answer },
                        Next::Ask { plan, is_grpc } => {
                            State::deciding(Box::new(Held { engine, inner, request }), plan, is_grpc)
                        }
                    }
                }
                StateProject::Deciding { decision, .. } => {
                    let decision = ready!(decision.as_mut().poll(cx));
                    let StateReplace::Deciding { held, .. } = state.as_mut().project_replace(State::Done) else {
                        unreachable!("the state was Deciding a moment ago")
                    };
                    let Held { engine, mut inner, request } = *held;
                    match decision {
                        Decision::Admitted(admission) => State::admitted(&engine, inner.call(request), admission),
                        Decision::Refused(answer) => State::Refused { answer: *answer },
                    }
                }
                StateProject::Noted { inner, note } => {
                    let response = ready!(inner.poll(cx))?;
                    let note = std::mem::take(note);
                    state.set(State::Done);
                    return Poll::Ready(Ok(finish(note, response)));
                }
                StateProject::Reserved { inner, engine, note, reserved } => {
                    let (parts, body) = ready!(inner.poll(cx))?.into_parts();
                    let corrections = engine.corrections(reserved, &parts);
                    let response = Response::from_parts(parts, body);
                    let (engine, note) = (Arc::clone(engine), std::mem::take(note));
                    if corrections.is_empty() {
                        state.set(State::Done);
                        return Poll::Ready(Ok(finish(note, response)));
                    }
                    // All of it, also when the client leaves meanwhile.
                    let corrected = Unbroken::begin(async move { engine.correct(corrections).await });
                    State::Correcting { corrected, answer: Some(Box::new((note, response))) }
                }
                StateProject::Correcting { corrected, answer } => {
                    ready!(corrected.poll_end(cx));
                    let (note, response) = *answer.take().expect("polled after it was ready");
                    return Poll::Ready(Ok(finish(note, response)));
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

fn finish<R>(note: Note, response: Response<R>) -> Response<ProblemBody<R>> {
    let (mut parts, body) = response.into_parts();
    note.write(&mut parts.headers, &mut parts.extensions);
    Response::from_parts(parts, ProblemBody::inner(body))
}

impl<S: Service<Q>, Q, R> fmt::Debug for ResponseFuture<S, Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
