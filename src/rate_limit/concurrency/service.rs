//! The service.

use std::{
    task::{Context, Poll},
    time::Duration,
};

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
        reject,
    },
    ready::take_ready,
};

/// Refuses requests while too many are in progress; made by a [`ConcurrencyLimitLayer`].
///
/// Requests without a key pass. Who is refused gets a 429; under a key that is everybody's, as [`Key::global`](crate::rate_limit::Key::global), a 503.
/// A permit comes back at the end of the body and when the body or the future is dropped,
/// so also after a panic, an error and a timeout.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit<S> {
    pub(super) inner: S,
    pub(super) config: ConcurrencyLimitLayer,
}

/// The answer to a request that is refused.
pub(super) type Refusal = Box<Response<Bytes>>;

/// After what time who was refused by a key that is everybody's may try again: when a request ends, nobody knows.
const BUSY: Duration = Duration::from_secs(1);

impl ConcurrencyLimitLayer {
    /// What is done with a request; `Err` is one of whom it has to be found out who asks.
    fn begin(&self, parts: &request::Parts) -> Result<Result<Option<Permit>, Refusal>, Identity> {
        if self.hooks.is_exempt(Head::whole(parts)) {
            return Ok(Ok(None));
        }
        let unknown = || Identity::of(&parts.extensions).filter(Identity::needs_lookup);
        self.key.asks_who().then(unknown).flatten().map_or_else(|| Ok(self.permit(parts)), Err)
    }

    /// The permit of a request; none where it has no key.
    fn permit(&self, parts: &request::Parts) -> Result<Option<Permit>, Refusal> {
        let head = Head::whole(parts);
        match self.key.of_request(head, true, &mut || [0; 16]) {
            Err(unwired) => Err(Box::new(reject::unwired(unwired, head))),
            Ok(None) => Ok(None),
            Ok(Some(key)) => {
                let permit = self.permits.acquire(key, self.most);
                let decided = if permit.is_some() { Decided::Admitted } else { Decided::Denied };
                count::decided(&self.decisions, &self.name, decided, By::Process);
                permit.map(Some).ok_or_else(|| self.refuse(head))
            }
        }
    }

    /// Where the key is everybody's, the server is what has too much to do, and not the client.
    fn refuse(&self, head: Head<'_>) -> Refusal {
        let (reason, retry_after) =
            if self.key.is_everybodys(head) { (Reason::Overload, Some(BUSY)) } else { (Reason::Concurrency, None) };
        let rejection = Rejection { reason, policies: vec![self.name.clone()], retry_after };
        let form = head.form();
        Box::new(self.hooks.answer(&rejection, rejection.answer(form), form))
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
        let begun = Identity::for_layers(&mut parts, |parts| self.config.begin(parts));
        let request = Request::from_parts(parts, body);
        match begun {
            Ok(Ok(permit)) => ConcurrencyFuture::admitted(self.inner.call(request), permit),
            Ok(Err(answer)) => ConcurrencyFuture::refused(*answer),
            Err(identity) => {
                let (config, inner) = (self.config.clone(), take_ready(&mut self.inner));
                ConcurrencyFuture::identify(identity, config, ConcurrencyLimitLayer::permit_known::<B>, inner, request)
            }
        }
    }
}
