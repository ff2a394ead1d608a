//! The response, with what the session has to say.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::{
    answer::{answer, write},
    core::Core,
};
use crate::ProblemBody;

pin_project! {
    /// The future of a [`SessionService`](super::SessionService).
    ///
    /// # Panics
    /// If it is polled again after it has given its answer.
    pub struct ResponseFuture<F, B, E> {
        #[pin]
        state: State<F, B, E>,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<F, B, E> {
        // Boxed: hardly any is.
        Refused { answer: Option<Box<Response<Bytes>>> },
        Passing { #[pin] inner: F },
        Inside { #[pin] inner: F, core: Arc<Core> },
        After { whole: Whole<B, E> },
    }
}

type Whole<B, E> = Pin<Box<dyn Future<Output = Result<Response<ProblemBody<B>>, E>> + Send>>;

impl<F, B, E> ResponseFuture<F, B, E> {
    /// The layer itself answers.
    pub(super) fn refused(answer: Response<Bytes>) -> Self {
        Self { state: State::Refused { answer: Some(Box::new(answer)) } }
    }

    /// Nothing is to be done.
    pub(super) fn passing(inner: F) -> Self {
        Self { state: State::Passing { inner } }
    }

    /// The session is looked after when the response comes.
    pub(super) fn inside(inner: F, core: Arc<Core>) -> Self {
        Self { state: State::Inside { inner, core } }
    }

    /// The session is loaded before the service is called.
    pub(super) fn after(whole: Whole<B, E>) -> Self {
        Self { state: State::After { whole } }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes> + Send + 'static,
    E: 'static,
{
    type Output = Result<Response<ProblemBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProject::Refused { answer } => {
                    let answer = answer.take().expect("polled after it was ready");
                    return Poll::Ready(Ok(answer.map(ProblemBody::full)));
                }
                StateProject::Passing { inner } => {
                    return Poll::Ready(ready!(inner.poll(cx)).map(|response| response.map(ProblemBody::inner)));
                }
                StateProject::After { whole } => return whole.as_mut().poll(cx),
                StateProject::Inside { inner, core } => {
                    // Written into where it is: a response is a few hundred bytes, and each move copies them.
                    let mut polled = inner.poll(cx);
                    if let Poll::Ready(Ok(response)) = &mut polled
                        && let Some(credential) = core.close_quietly()
                    {
                        write(response, credential, core, false);
                        return polled.map_ok(|response| response.map(ProblemBody::inner));
                    }
                    let response = ready!(polled)?;
                    let core = core.clone();
                    let whole = Box::pin(async move {
                        let finished = core.finish().await;
                        Ok(answer(response, finished, &core, false))
                    });
                    State::After { whole }
                }
            };
            state.set(next);
        }
    }
}

impl<F, B, E> fmt::Debug for ResponseFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
