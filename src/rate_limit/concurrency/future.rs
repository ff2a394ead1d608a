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

use super::{PermitBody, permits::Permit};
use crate::ProblemBody;

pin_project! {
    /// The response of a [`ConcurrencyLimit`](super::ConcurrencyLimit) service.
    pub struct ConcurrencyFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<F> {
        Admitted { #[pin] inner: F, permit: Option<Permit> },
        Refused { answer: Response<Bytes> },
    }
}

impl<F> ConcurrencyFuture<F> {
    pub(super) fn admitted(inner: F, permit: Option<Permit>) -> Self {
        Self { state: State::Admitted { inner, permit } }
    }

    pub(super) fn refused(answer: Response<Bytes>) -> Self {
        Self { state: State::Refused { answer } }
    }
}

impl<F, R, E> Future for ConcurrencyFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<PermitBody<ProblemBody<R>>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().state.project() {
            StateProject::Admitted { inner, permit } => match ready!(inner.poll(cx)) {
                Ok(response) => Ok(response.map(|body| PermitBody::new(ProblemBody::inner(body), permit.take()))),
                Err(error) => {
                    *permit = None;
                    Err(error)
                }
            },
            StateProject::Refused { answer } => {
                Ok(std::mem::take(answer).map(|bytes| PermitBody::new(ProblemBody::full(bytes), None)))
            }
        })
    }
}

impl<F> fmt::Debug for ConcurrencyFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyFuture").finish_non_exhaustive()
    }
}
