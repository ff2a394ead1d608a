//! The future of the cache layers.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use pin_project_lite::pin_project;

use super::pass::Passing;
use crate::CacheBody;

type Answer<R, E> = Result<Response<CacheBody<R>>, E>;

pin_project! {
    /// The future of the cache layers. Dropped before the answer has come, it drops the request to the inner service; a
    /// request that others follow, one that may change something, and a validation in the background go on, within the
    /// limits of [`revalidations`](crate::HttpCache::revalidations) and
    /// [`revalidation_timeout`](crate::HttpCache::revalidation_timeout).
    ///
    /// # Panics
    /// If it is polled again after it has given its answer.
    pub struct CacheFuture<F, R, E> {
        #[pin]
        kind: Kind<F, R, E>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F, R, E> {
        /// A hit that nothing had to be waited for; `None` once it is given.
        Ready { answer: Option<Response<CacheBody<R>>> },
        /// None of this layer's business, but for what is left to do when the answer comes.
        ///
        /// Boxed, so that hits have no room for it, through every layer around.
        Passed { #[pin] future: F, passing: Option<Box<Passing>> },
        Waiting { future: Pin<Box<dyn Future<Output = Answer<R, E>> + Send>> },
    }
}

impl<F, R, E> CacheFuture<F, R, E> {
    pub(crate) fn new(answer: impl Future<Output = Answer<R, E>> + Send + 'static) -> Self {
        Self { kind: Kind::Waiting { future: Box::pin(answer) } }
    }

    pub(crate) fn ready(answer: Response<CacheBody<R>>) -> Self {
        Self { kind: Kind::Ready { answer: Some(answer) } }
    }

    pub(super) fn passed(future: F, passing: Option<Box<Passing>>) -> Self {
        Self { kind: Kind::Passed { future, passing } }
    }
}

impl<F, R, E> Future for CacheFuture<F, R, E>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Answer<R, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProj::Ready { answer } => Poll::Ready(Ok(answer.take().expect("polled after it was ready"))),
            KindProj::Passed { future, passing: None } => future.poll(cx).map_ok(|answer| answer.map(CacheBody::inner)),
            KindProj::Passed { future, passing: Some(passing) } => {
                let entered = passing.span().enter();
                let mut answer = future.poll(cx);
                drop(entered);
                if let Poll::Ready(outcome) = &mut answer {
                    passing.ended(outcome);
                }
                answer.map_ok(|answer| answer.map(CacheBody::inner))
            }
            KindProj::Waiting { future } => future.as_mut().poll(cx),
        }
    }
}

impl<F, R, E> fmt::Debug for CacheFuture<F, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheFuture").finish_non_exhaustive()
    }
}
