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
pub struct CacheFuture<R, E>(Pin<Box<dyn Future<Output = Answer<R, E>> + Send>>);

impl<R, E> CacheFuture<R, E> {
    pub(crate) fn new(answer: impl Future<Output = Answer<R, E>> + Send + 'static) -> Self {
        Self(Box::pin(answer))
    }
}

impl<R, E> Future for CacheFuture<R, E> {
    type Output = Answer<R, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<R, E> fmt::Debug for CacheFuture<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheFuture").finish_non_exhaustive()
    }
}
