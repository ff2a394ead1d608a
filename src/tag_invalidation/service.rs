//! The service and its future.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{layer::Shared, purge::Order};
use crate::{
    BoxError, Invalidate, InvalidateTags, Problem, body::CacheBody, exchange::InvalidatesTags, http_cache::target_uri,
    key::Target, policy,
};

/// The service of [`TagInvalidationLayer`](super::TagInvalidationLayer).
#[derive(Clone)]
pub struct TagInvalidation<S> {
    pub(super) shared: Arc<Shared>,
    pub(super) inner: S,
}

impl<S, B, R> Service<Request<B>> for TagInvalidation<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<CacheBody<R>>;
    type Error = S::Error;
    type Future = TagInvalidationFuture<S::Future, R, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(token) = &self.shared.purge
            && request.method().as_str() == "PURGE"
        {
            let (token, cache) = (token.clone(), self.shared.cache.clone());
            let (parts, _) = request.into_parts();
            let uri = target_uri(&parts.uri, &parts.extensions).into_owned();
            let answer = async move {
                token.check(&parts.headers)?;
                Order::purge(&parts.headers)?.carry_out(&cache, Some((&uri, &parts.headers))).await
            };
            return TagInvalidationFuture::apart(async move {
                Ok(answer.await.unwrap_or_else(Problem::into_response_with_bytes).map(CacheBody::stored))
            });
        }
        if policy::invalidation::is_safe(request.method()) {
            return TagInvalidationFuture { kind: Kind::Inner { future: self.inner.call(request) } };
        }
        let goes_on = request.extensions_mut().insert(InvalidatesTags).is_none();
        let shared = Arc::clone(&self.shared);
        let uri = target_uri(request.uri(), request.extensions()).into_owned();
        let (method, host) = (request.method().clone(), request.headers().get(http::header::HOST).cloned());
        let future = self.inner.call(request);
        let changed = Changed { method, uri, host };
        // The client may leave: what it changed is invalidated all the same.
        let (names, cache) = (changed.order(&shared, &mut Response::new(())), shared.cache.clone());
        let work = async move {
            let mut response = match future.await {
                Ok(response) => response,
                Err(error) => {
                    // It may have changed something by then, or not, like one that is broken off.
                    changed.order(&shared, &mut Response::new(())).soft().insist().await;
                    return Err(error);
                }
            };
            if response.status().is_success() || response.status().is_redirection() {
                changed.order(&shared, &mut response).insist().await;
            }
            if shared.cache.config.strip_tags {
                response.headers_mut().remove(policy::tags::CACHE_GROUP_INVALIDATION);
            }
            Ok(response.map(CacheBody::inner))
        };
        TagInvalidationFuture::apart(cache.finish(work, Some(names), goes_on))
    }
}

/// A request that may have changed something.
struct Changed {
    method: Method,
    uri: Uri,
    host: Option<http::HeaderValue>,
}

impl Changed {
    /// What it has made untrue if this is the answer.
    fn order<R>(&self, shared: &Shared, response: &mut Response<R>) -> Invalidate {
        let cache = &shared.cache;
        let mut headers = HeaderMap::new();
        headers.extend(self.host.clone().map(|host| (http::header::HOST, host)));
        let named = response.extensions_mut().remove::<InvalidateTags>().unwrap_or_default();
        let of_rules = shared.tags_for(&self.method, self.uri.path());
        let mut order = cache.invalidate().tags(named.0).tags(of_rules);
        if let Some(target) = Target::of(&self.uri, &headers) {
            for https in [false, true] {
                let target = Target { https, ..target.clone() };
                let origin = cache.config.keys.origin(&target);
                order = order.digests(policy::tags::invalidated_groups(response.headers(), origin));
            }
        }
        if cache.config.strip_tags {
            response.headers_mut().remove(policy::tags::CACHE_GROUP_INVALIDATION);
        }
        order
    }
}

type Boxed<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

pin_project! {
    /// The future of [`TagInvalidation`]. Dropped before the answer has come, it drops a request with a safe method; one
    /// that may change something goes on, at most for [`revalidation_timeout`](crate::HttpCache::revalidation_timeout) and
    /// where not [too many](crate::HttpCache::revalidations) go on already. What is broken off may have changed something:
    /// what carries the tags of its route becomes stale.
    ///
    /// # Panics
    /// If it is polled again after it has given its answer.
    pub struct TagInvalidationFuture<F, R, E> {
        #[pin]
        kind: Kind<F, R, E>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F, R, E> {
        Inner { #[pin] future: F },
        Apart { future: Boxed<Response<CacheBody<R>>, E> },
    }
}

impl<F, R, E> TagInvalidationFuture<F, R, E> {
    fn apart(future: impl Future<Output = Result<Response<CacheBody<R>>, E>> + Send + 'static) -> Self {
        Self { kind: Kind::Apart { future: Box::pin(future) } }
    }
}

impl<F, R, E> Future for TagInvalidationFuture<F, R, E>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<CacheBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProj::Inner { future } => future.poll(cx).map_ok(|response| response.map(CacheBody::inner)),
            KindProj::Apart { future } => future.as_mut().poll(cx),
        }
    }
}

impl<F, R, E> fmt::Debug for TagInvalidationFuture<F, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TagInvalidationFuture").finish_non_exhaustive()
    }
}

impl<S: fmt::Debug> fmt::Debug for TagInvalidation<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TagInvalidation").field("inner", &self.inner).finish_non_exhaustive()
    }
}
