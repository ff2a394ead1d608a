//! The service.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, request};
use tower_service::Service;

use super::{ConcurrencyFuture, ConcurrencyLimitLayer, PermitBody, permits::Permit};
use crate::{
    Identity, ProblemBody,
    backend::BackendError,
    rate_limit::{
        Reason, Rejection,
        count::{self, By, Decided},
        head::Head,
        reject::{self, Form},
    },
    ready::take_ready,
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

/// The answer to a request that is refused.
pub(super) type Refusal = Box<Response<Bytes>>;

impl ConcurrencyLimitLayer {
    /// The permit of a request; none where it has no key.
    fn permit(&self, parts: &request::Parts) -> Result<Option<Permit>, Refusal> {
        match self.key.of_request(Head::whole(parts), &[0; 16], true) {
            Err(unwired) => Err(Box::new(reject::unwired(unwired, Head::whole(parts)))),
            Ok(None) => Ok(None),
            Ok(Some(key)) => {
                let permit = self.permits.acquire(key, self.most);
                let decided = if permit.is_some() { Decided::Admitted } else { Decided::Denied };
                count::decided(&self.decisions, &self.name, decided, By::Process);
                permit.map(Some).ok_or_else(|| {
                    let policies = vec![self.name.clone()];
                    let rejection = Rejection { reason: Reason::Concurrency, policies, retry_after: None };
                    let form = Form::of(Head::whole(parts));
                    Box::new(form.cut(rejection.answer(form)))
                })
            }
        }
    }

    /// The same for a request whose identity was looked up meanwhile.
    fn permit_known<B>(
        &self,
        known: Result<Identity, BackendError>,
        request: Request<B>,
    ) -> Result<(Option<Permit>, Request<B>), Refusal> {
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(known.map_err(|error| Box::new(reject::unidentified(&error, Head::whole(&parts))))?);
        let permit = Identity::for_layers(&mut parts, |parts| self.permit(parts))?;
        Ok((permit, Request::from_parts(parts, body)))
    }
}

impl<S, B, R> Service<Request<B>> for ConcurrencyLimit<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
{
    type Response = Response<PermitBody<ProblemBody<R>>>;
    type Error = S::Error;
    type Future = ConcurrencyFuture<S, Request<B>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let unknown = || Identity::of(&parts.extensions).filter(Identity::needs_lookup);
        if let Some(unknown) = self.config.key.asks_who().then(unknown).flatten() {
            let inner = take_ready(&mut self.inner);
            let (config, request) = (self.config.clone(), Request::from_parts(parts, body));
            return ConcurrencyFuture::identify(
                unknown,
                config,
                ConcurrencyLimitLayer::permit_known::<B>,
                inner,
                request,
            );
        }
        match Identity::for_layers(&mut parts, |parts| self.config.permit(parts)) {
            Ok(permit) => ConcurrencyFuture::admitted(self.inner.call(Request::from_parts(parts, body)), permit),
            Err(answer) => ConcurrencyFuture::refused(*answer),
        }
    }
}
