//! The service.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, request};
use tower_service::Service;

use super::{ConcurrencyFuture, ConcurrencyLimitLayer, PermitBody, permits::Permit};
use crate::{
    ProblemBody,
    rate_limit::{Reason, Rejection, reject},
};

/// Refuses requests while too many are in progress; made by a [`ConcurrencyLimitLayer`].
///
/// Requests without a key pass. A permit comes back at the end of the body and when the body or the future is dropped,
/// so also after a panic, an error and a timeout.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit<S> {
    pub(super) inner: S,
    pub(super) config: ConcurrencyLimitLayer,
}

impl<S> ConcurrencyLimit<S> {
    fn permit(&self, parts: &request::Parts) -> Result<Option<Permit>, Box<Response<Bytes>>> {
        let ConcurrencyLimitLayer { name, key, most, permits } = &self.config;
        match key.of_request(parts, &[0; 16]) {
            Err(unwired) => Err(Box::new(reject::unwired(unwired, parts))),
            Ok(None) => Ok(None),
            Ok(Some(key)) => permits.acquire(key, *most).map(Some).ok_or_else(|| {
                let policies = vec![name.clone()];
                let rejection = Rejection { reason: Reason::Concurrency, policies, retry_after: None };
                Box::new(rejection.answer(reject::is_grpc(parts)))
            }),
        }
    }
}

impl<S, B, R> Service<Request<B>> for ConcurrencyLimit<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<PermitBody<ProblemBody<R>>>;
    type Error = S::Error;
    type Future = ConcurrencyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (parts, body) = request.into_parts();
        match self.permit(&parts) {
            Ok(permit) => ConcurrencyFuture::admitted(self.inner.call(Request::from_parts(parts, body)), permit),
            Err(answer) => ConcurrencyFuture::refused(*answer),
        }
    }
}
