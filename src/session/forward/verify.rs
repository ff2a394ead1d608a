//! The layer in front of a service behind the gateway.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    ForwardedPath,
    audience::AudienceKeys,
    claims::Claims,
    codec::{Refusal, verify},
};
use crate::{
    Backend, Problem, ProblemBody, TestClock, Timestamp,
    http_cache::original_uri,
    refusal::Form,
    session::strip::{FORWARDED, is_look_alike},
};

/// Lets in what the gateway has signed for this service and this request, and nothing else; leaves [`Claims`] in the
/// request's extensions, and for the layers within an [`Identity`](crate::Identity) with the user and the session: a
/// limit by [`Key::user`](crate::rate_limit::Key::user) works as in the gateway.
///
/// Without a field, with a field of somebody else, and with two fields the answer is 401. Anonymous visitors have a
/// field too; use [`Authenticated`](super::Authenticated) where somebody must be logged in.
///
/// ```
/// use tower_gatehouse::session::{AudienceKeys, KeyRing, VerifySessionLayer};
///
/// # let secret = KeyRing::ephemeral().for_audience("orders").expose();
/// let keys: AudienceKeys = secret.parse()?;
/// let layer = VerifySessionLayer::new(keys);
/// # Ok::<(), tower_gatehouse::session::KeyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct VerifySessionLayer(Arc<Config>);

#[derive(Clone, Debug)]
struct Config {
    keys: AudienceKeys,
    backend: Option<Backend>,
    /// A test's.
    clock: Option<TestClock>,
}

impl VerifySessionLayer {
    /// For the service that these keys are for.
    pub fn new(keys: AudienceKeys) -> Self {
        Self(Arc::new(Config { keys, backend: None, clock: None }))
    }

    /// The gateway's session store: for shared maps, and for sessions that are too large for a field. Also the clock
    /// then; without it that of this machine, which must not be off by more than 5 seconds.
    #[must_use]
    pub fn backend(mut self, backend: &Backend) -> Self {
        Arc::make_mut(&mut self.0).backend = Some(backend.clone());
        self
    }

    /// A clock that a test turns.
    #[must_use]
    pub fn clock(mut self, clock: &TestClock) -> Self {
        Arc::make_mut(&mut self.0).clock = Some(clock.clone());
        self
    }
}

impl Config {
    fn now(&self) -> Timestamp {
        match (&self.clock, &self.backend) {
            (Some(clock), _) => clock.now(),
            (None, Some(backend)) => backend.now(),
            (None, None) => Timestamp::system(),
        }
    }

    fn admit(&self, parts: &http::request::Parts) -> Result<Claims, &'static str> {
        let mut fields = parts.headers.get_all(FORWARDED).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else {
            return Err("the request has not come through the gateway: it needs exactly one x-session field");
        };
        // Somebody between the gateway and here lets clients speak.
        if parts.headers.keys().any(|name| *name != FORWARDED && is_look_alike(name)) {
            return Err("the request has a field that looks like x-session");
        }
        // Where the gateway is in this process, what it has signed; else what the request came with.
        let forwarded = parts.extensions.get::<ForwardedPath>().map(|ForwardedPath(path)| &**path);
        let path = forwarded.unwrap_or_else(|| original_uri(&parts.uri, &parts.extensions).path());
        let payload = verify(field.as_bytes(), &self.keys, parts.method.as_str(), path, self.now());
        payload.map(|payload| Claims::new(payload, self.backend.clone())).map_err(|refusal| match refusal {
            Refusal::Malformed => "the x-session field is malformed",
            Refusal::Forged => "the x-session field is not signed by the gateway for this service",
            Refusal::Elsewhere => "the x-session field is for another service or another request",
            Refusal::Untimely => "the x-session field is not good at this time",
        })
    }
}

impl<S> Layer<S> for VerifySessionLayer {
    type Service = VerifySessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        VerifySessionService { inner, config: self.0.clone() }
    }
}

/// The service of a [`VerifySessionLayer`].
#[derive(Clone, Debug)]
pub struct VerifySessionService<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for VerifySessionService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes>,
{
    type Response = Response<ProblemBody<ResBody>>;
    type Error = S::Error;
    type Future = VerifyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        match self.config.admit(&parts) {
            Ok(claims) => {
                claims.leave(&mut parts.extensions);
                VerifyFuture { state: State::Inner { inner: self.inner.call(Request::from_parts(parts, body)) } }
            }
            Err(detail) => {
                tracing::debug!(detail, "a request was refused");
                VerifyFuture { state: State::Refused { detail, form: Form::of(&parts.method, &parts.headers) } }
            }
        }
    }
}

pin_project! {
    /// The future of a [`VerifySessionService`].
    #[derive(Debug)]
    pub struct VerifyFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProject]
    enum State<F> {
        Inner { #[pin] inner: F },
        Refused { detail: &'static str, form: Form },
    }
}

impl<F, B, E> Future for VerifyFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ProblemBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProject::Inner { inner } => Poll::Ready(Ok(ready!(inner.poll(cx))?.map(ProblemBody::inner))),
            StateProject::Refused { detail, form } => {
                let challenge = HeaderValue::from_static(r#"Bearer error="invalid_token""#);
                let problem = Problem::new(StatusCode::UNAUTHORIZED, *detail);
                let problem = problem.header(header::WWW_AUTHENTICATE, challenge);
                Poll::Ready(Ok(form.answer(problem).map(ProblemBody::full)))
            }
        }
    }
}
