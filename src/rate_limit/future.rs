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

use super::engine::{Admission, Engine, Note, Plan, Refusal};
use crate::{Identity, ProblemBody, backend::BackendError, refusal::Form, unbroken::Unbroken};

pin_project! {
    /// The response of a [`RateLimit`](super::RateLimit) service.
    ///
    /// # Panics
    /// If it is polled again after it has given its answer.
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
    /// The request goes on.
    Admitted,
    Refused(Refusal),
    /// The store has to be asked.
    Ask {
        plan: Plan,
        form: Form,
    },
}

pub(super) type Known = Result<Identity, BackendError>;
/// Goes on with a request of a known identity.
type Identified<Q> = fn(&Engine, Known, Q, &mut Admission) -> (Next, Q);

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pin_project! {
    #[project = StateProject]
    #[project_replace = StateReplace]
    enum State<S, Q, F, R> {
        /// The request goes on. What was taken may have to be corrected: by the engine, if it is there.
        Admitted { #[pin] inner: F, admission: Admission, corrects: Option<Arc<Engine>> },
        /// Who is asking is looked up.
        Identifying { known: Boxed<Known>, identified: Identified<Q>, held: Box<Held<S, Q>> },
        /// The counters are asked.
        Deciding { decision: Boxed<Result<Admission, Refusal>>, held: Box<Held<S, Q>> },
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
    #[inline]
    pub(super) fn admitted(inner: S::Future, admission: Admission, corrects: Option<Arc<Engine>>) -> Self {
        Self { state: State::Admitted { inner, admission, corrects } }
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

    pub(super) fn decide(engine: Arc<Engine>, plan: Plan, form: Form, inner: S, request: Q) -> Self {
        Self { state: State::deciding(Box::new(Held { engine, inner, request }), plan, form) }
    }
}

impl<S, Q, F, R> State<S, Q, F, R> {
    fn admitted(engine: &Arc<Engine>, inner: F, admission: Admission) -> Self {
        let corrects = engine.corrects(&admission);
        Self::Admitted { inner, admission, corrects }
    }

    fn deciding(held: Box<Held<S, Q>>, plan: Plan, form: Form) -> Self {
        let engine = Arc::clone(&held.engine);
        Self::Deciding { decision: Box::pin(async move { engine.decide(plan, form).await }), held }
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
                StateProject::Identifying { known, .. } => {
                    let known = ready!(known.as_mut().poll(cx));
                    let StateReplace::Identifying { identified, held, .. } =
                        state.as_mut().project_replace(State::Done)
                    else {
                        unreachable!("the state was Identifying a moment ago")
                    };
                    let Held { engine, mut inner, request } = *held;
                    let mut admission = Admission::default();
                    let (next, request) = identified(&engine, known, request, &mut admission);
                    match next {
                        Next::Admitted => State::admitted(&engine, inner.call(request), admission),
                        Next::Refused(answer) => State::Refused { answer: *answer },
                        Next::Ask { plan, form } => {
                            State::deciding(Box::new(Held { engine, inner, request }), plan, form)
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
                        Ok(admission) => State::admitted(&engine, inner.call(request), admission),
                        Err(answer) => State::Refused { answer: *answer },
                    }
                }
                StateProject::Admitted { inner, admission, corrects: None } => {
                    // Written into where it is: a response is a few hundred bytes, and each move copies them.
                    let mut answer = inner.poll(cx);
                    if let Poll::Ready(Ok(response)) = &mut answer {
                        admission.note.write(response);
                    }
                    return answer.map_ok(|response| response.map(ProblemBody::inner));
                }
                StateProject::Admitted { inner, admission, corrects } => {
                    let (parts, body) = ready!(inner.poll(cx))?.into_parts();
                    let Admission { note, reserved } = std::mem::take(admission);
                    let corrections =
                        corrects.as_ref().map_or_else(Vec::new, |engine| engine.corrections(&reserved, &parts));
                    let response = Response::from_parts(parts, body);
                    let Some(engine) = corrects.take().filter(|_| !corrections.is_empty()) else {
                        return Poll::Ready(Ok(finish(note, response)));
                    };
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

fn finish<R>(mut note: Note, mut response: Response<R>) -> Response<ProblemBody<R>> {
    note.write(&mut response);
    response.map(ProblemBody::inner)
}

impl<S: Service<Q>, Q, R> fmt::Debug for ResponseFuture<S, Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
