//! The future of the cache layers.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;

use crate::CacheBody;

type Answer<R, E> = Result<Response<CacheBody<R>>, E>;

/// The future of the cache layers. Dropped before the answer has come, it drops the request to the inner service; a
/// request that others follow, one that may change something, and a validation in the background go on.
///
/// # Panics
/// If it is polled again after it has given its answer.
pub struct CacheFuture<R, E>(Kind<R, E>);

enum Kind<R, E> {
    /// A hit that nothing had to be waited for; `None` once it is given.
    Ready(Option<Response<CacheBody<R>>>),
    Waiting(Pin<Box<dyn Future<Output = Answer<R, E>> + Send>>),
}

impl<R, E> CacheFuture<R, E> {
    pub(crate) fn new(answer: impl Future<Output = Answer<R, E>> + Send + 'static) -> Self {
        Self(Kind::Waiting(Box::pin(answer)))
    }

    pub(crate) fn ready(answer: Response<CacheBody<R>>) -> Self {
        Self(Kind::Ready(Some(answer)))
    }
}

/// The answer is moved out and never pinned.
impl<R, E> Unpin for CacheFuture<R, E> {}

impl<R, E> Future for CacheFuture<R, E> {
    type Output = Answer<R, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Kind::Ready(answer) => Poll::Ready(Ok(answer.take().expect("polled after it was ready"))),
            Kind::Waiting(answer) => answer.as_mut().poll(cx),
        }
    }
}

impl<R, E> fmt::Debug for CacheFuture<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheFuture").finish_non_exhaustive()
    }
}
