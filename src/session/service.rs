//! The service.

use std::{
    any::Any,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use tower_service::Service;

use super::{
    Session, SessionError,
    answer::{answer, guard, refuse},
    config::Config,
    core::Core,
    future::ResponseFuture,
    source::{self, Presented, Source},
    strip::{Credentials, strip},
};
use crate::{
    Identity, Personal, Problem, ProblemBody,
    backend::{BackendError, ErrorKind},
    caller::Caller,
    exchange::{Mark, Marked},
    http_cache::original_uri,
    ready::take_ready,
};

/// The service of a [`SessionLayer`](super::SessionLayer).
#[derive(Clone, Debug)]
pub struct SessionService<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> SessionService<S> {
    pub(super) fn new(inner: S, config: Arc<Config>) -> Self {
        Self { inner, config }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for SessionService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: 'static,
    ReqBody: Send + 'static,
    ResBody: Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<ProblemBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResBody, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let credentials = strip(request.headers_mut());
        if let Some(outer) = Core::of(request.extensions()) {
            return self.call_within(request, outer);
        }
        let config = &self.config;
        let presented = match credentials {
            Credentials::Some => match config.presented(request.headers()) {
                Ok(presented) => presented,
                Err(detail) => {
                    return ResponseFuture::refused(refuse(
                        bad_request(detail),
                        request,
                        config.on_reject.as_deref(),
                        None,
                    ));
                }
            },
            Credentials::None => Presented::Nothing,
        };
        let demand = config.demand(&request);
        let at_once = demand.is_some() || (config.eager && presented.source().is_some());
        let core = Core::new(config, presented, request.method(), Personal::is_asked_for(request.extensions()));
        let extensions = request.extensions_mut();
        if extensions.is_empty() {
            *extensions = config.extensions.clone();
        } else if extensions.get::<Identity>().is_some() {
            // The nearest is believed: what a layer outside has found is not who the session says it is.
            extensions.remove::<Identity>();
        }
        extensions.insert::<Session>(Session::new(core.clone()));
        if !at_once {
            return ResponseFuture::inside(self.inner.call(request), core);
        }
        // The clone is not ready, the one that was asked is.
        let mut inner = take_ready(&mut self.inner);
        ResponseFuture::after(Box::pin(async move {
            if let Err(problem) = core.admit(demand).await {
                return Ok(
                    refuse(problem, request, core.config.on_reject.as_deref(), Some(&core)).map(ProblemBody::full)
                );
            }
            let response = inner.call(request).await?;
            let finished = core.finish().await;
            Ok(answer(response, finished, &core, demand.is_some()))
        }))
    }
}

impl<S> SessionService<S> {
    /// Installed again: the outer one does it all, but this one may require more.
    fn call_within<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
        outer: Arc<Core>,
    ) -> ResponseFuture<S::Future, ResBody, S::Error>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: 'static,
        ReqBody: Send + 'static,
        ResBody: Body<Data = Bytes> + Send + 'static,
    {
        if !self.config.shares_sessions_with(&outer.config) {
            tracing::error!("{OTHER_SESSIONS}");
            let problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, OTHER_SESSIONS);
            return ResponseFuture::refused(refuse(problem, request, self.config.on_reject.as_deref(), None));
        }
        let Some(demand) = self.config.demand(&request) else {
            return ResponseFuture::passing(self.inner.call(request));
        };
        let (mut inner, on_reject) = (take_ready(&mut self.inner), self.config.on_reject.clone());
        ResponseFuture::after(Box::pin(async move {
            let mut response = match outer.admit(Some(demand)).await {
                // The outer one expires the cookie.
                Err(problem) => refuse(problem, request, on_reject.as_deref(), None).map(ProblemBody::full),
                Ok(()) => inner.call(request).await?.map(ProblemBody::inner),
            };
            guard(&mut response, &outer.config.sources);
            Ok(response)
        }))
    }
}

const OTHER_SESSIONS: &str = "a SessionLayer with another backend or another key stands inside of a SessionLayer; \
                              make both from clones of one, or put them beside each other, each with a cookie name of its own";

/// What a request must have to be let in.
#[derive(Clone, Copy, Debug)]
struct Demand {
    /// A user who is logged in, not only a session.
    user: bool,
}

impl Config {
    fn presented(&self, headers: &HeaderMap) -> Result<Presented, &'static str> {
        source::read(headers, &self.sources, &self.cookie, &self.keys, self.resolver.is_some())
    }

    fn demand<B>(&self, request: &Request<B>) -> Option<Demand> {
        if self.required.is_nowhere() {
            return None;
        }
        let (path, original) = (request.uri().path(), original_uri(request.uri(), request.extensions()).path());
        let concerned = self.required.concerns(path) || (original != path && self.required.concerns(original));
        concerned.then_some(Demand { user: self.required.user })
    }
}

impl Core {
    /// That of a session layer outside.
    fn of(extensions: &Extensions) -> Option<Arc<Self>> {
        let caller: Arc<dyn Any + Send + Sync> = extensions.get::<Session>()?.caller().clone();
        caller.downcast().ok()
    }

    /// Loads the session, and says no where one is required and there is none.
    async fn admit(&self, demand: Option<Demand>) -> Result<(), Problem> {
        let open = self.loaded().await.map_err(Problem::from)?;
        let met = |demand: Demand| open.is_known() && (!demand.user || open.user().is_some());
        if demand.is_none_or(met) { Ok(()) } else { Err(self.unauthorized()) }
    }

    /// RFC 6750 §3: the reason only if the request had a credential.
    fn unauthorized(&self) -> Problem {
        let presented = self.presented.source().is_some();
        let detail = if presented { "the session has ended, or the token is not good" } else { "log in first" };
        let challenge = match (self.config.sources.contains(&Source::Bearer), presented) {
            (true, true) => HeaderValue::from_static(r#"Bearer error="invalid_token""#),
            (true, false) => HeaderValue::from_static("Bearer"),
            (false, _) => HeaderValue::from_static("Cookie"),
        };
        Problem::new(StatusCode::UNAUTHORIZED, detail).header(header::WWW_AUTHENTICATE, challenge)
    }
}

impl Marked for Core {
    fn mark(&self) -> &Mark {
        &self.mark
    }
}

impl Caller for Core {
    /// Costs a look-up only if the request has a token and somebody asks.
    fn needs_lookup(&self) -> bool {
        match &self.presented {
            Presented::Nothing | Presented::Bad(_) => false,
            Presented::Foreign(_) => self.config.resolver.is_some(),
            Presented::Token(..) => true,
        }
    }

    fn identity(&self) -> Pin<Box<dyn Future<Output = Result<Identity, BackendError>> + Send + '_>> {
        Box::pin(async move {
            let open = self.loaded().await.map_err(|error| match error {
                SessionError::Backend(error) => error,
                error => BackendError::new(ErrorKind::Unavailable, error.to_string()),
            })?;
            let mut identity = Identity::anonymous();
            if let Some(user) = open.user() {
                identity = identity.with_user(user);
            }
            // As it began: another token does not make it another session.
            if let Some(began_as) = open.live().and_then(|_| open.maps_of()) {
                identity = identity.with_session(*began_as.as_bytes());
            }
            Ok(identity)
        })
    }
}

fn bad_request(detail: &'static str) -> Problem {
    // RFC 6750 §3.1: "invalid_request".
    let challenge = HeaderValue::from_static(r#"Bearer error="invalid_request""#);
    Problem::new(StatusCode::BAD_REQUEST, detail).header(header::WWW_AUTHENTICATE, challenge)
}
