//! The future of a response.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{ConcurrencyLimitLayer, PermitBody, permits::Permit, service::Refusal};
use crate::{Identity, ProblemBody, backend::BackendError};

pin_project! {
    /// The response of a [`ConcurrencyLimit`](super::ConcurrencyLimit) service.
    ///
    /// # Panics
    /// If it is polled again after it has given its answer.
    pub struct ConcurrencyFuture<S, Q>
    where
        S: Service<Q>,
    {
        #[pin]
        state: State<S, Q, S::Future>,
    }
}

type Known = Result<Identity, BackendError>;
/// The permit of a request of a known identity.
type PermitKnown<Q> = fn(&ConcurrencyLimitLayer, Known, Q) -> Result<(Option<Permit>, Q), Refusal>;

pin_project! {
    #[project = StateProject]
    #[project_replace = StateReplace]
    enum State<S, Q, F> {
        /// Who is asking is looked up.
        Identifying {
            known: Pin<Box<dyn Future<Output = Known> + Send>>,
            config: ConcurrencyLimitLayer,
            permit: PermitKnown<Q>,
            inner: S,
            request: Q,
        },
        Admitted { #[pin] inner: F, permit: Option<Permit> },
        Refused { answer: Response<Bytes> },
        /// The response was handed out.
        Done,
    }
}

impl<S: Service<Q>, Q> ConcurrencyFuture<S, Q> {
    pub(super) fn identify(
        identity: Identity,
        config: ConcurrencyLimitLayer,
        permit: PermitKnown<Q>,
        inner: S,
        request: Q,
    ) -> Self {
        let known = Box::pin(async move { identity.known().await });
        Self { state: State::Identifying { known, config, permit, inner, request } }
    }

    pub(super) fn admitted(inner: S::Future, permit: Option<Permit>) -> Self {
        Self { state: State::Admitted { inner, permit } }
    }

    pub(super) fn refused(answer: Response<Bytes>) -> Self {
        Self { state: State::Refused { answer } }
    }
}

impl<S, Q, R> Future for ConcurrencyFuture<S, Q>
where
    S: Service<Q, Response = Response<R>>,
{
    type Output = Result<Response<PermitBody<ProblemBody<R>>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProject::Identifying { known, .. } => {
                    let known = ready!(known.as_mut().poll(cx));
                    let StateReplace::Identifying { config, permit, mut inner, request, .. } =
                        state.as_mut().project_replace(State::Done)
                    else {
                        unreachable!("the state was Identifying a moment ago")
                    };
                    match permit(&config, known, request) {
                        Ok((permit, request)) => State::Admitted { inner: inner.call(request), permit },
                        Err(answer) => State::Refused { answer: *answer },
                    }
                }
                StateProject::Admitted { inner, permit } => {
                    let result = ready!(inner.poll(cx));
                    // Comes back by itself after an error.
                    let permit = permit.take();
                    state.set(State::Done);
                    return Poll::Ready(
                        result.map(|response| response.map(|body| PermitBody::new(ProblemBody::inner(body), permit))),
                    );
                }
                StateProject::Refused { answer } => {
                    let answer = std::mem::take(answer);
                    state.set(State::Done);
                    return Poll::Ready(Ok(answer.map(|bytes| PermitBody::new(ProblemBody::full(bytes), None))));
                }
                StateProject::Done => panic!("polled after it was ready"),
            };
            state.set(next);
        }
    }
}

impl<S: Service<Q>, Q> fmt::Debug for ConcurrencyFuture<S, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyFuture").finish_non_exhaustive()
    }
}
