//! The service.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::{BoxError, CacheBody, CacheFuture, HttpCache, http_cache::Role};

/// The service of [`CacheLayer`](super::CacheLayer). Always ready: readiness of the inner service is awaited only by
/// requests that need it.
#[derive(Clone, Debug)]
pub struct CacheService<S> {
    pub(super) cache: Arc<HttpCache>,
    pub(super) inner: S,
}

impl<S, B, R> Service<Request<B>> for CacheService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<CacheBody<R>>;
    type Error = S::Error;
    type Future = CacheFuture<S::Future, R, S::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.cache.serve(Role::Cache, &mut self.inner, request)
    }
}
