//! The service.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use tower_service::Service;

use super::{
    SessionError,
    answer::{answer, refuse},
    config::Config,
    core::Core,
    future::ResponseFuture,
    handle::Session,
    source::{self, Presented, Source},
    strip::strip,
};
use crate::{
    Identity, Personal, Problem, ProblemBody,
    backend::{BackendError, ErrorKind},
    identity::Lookup,
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
        strip(request.headers_mut());
        if request.extensions().get::<Session>().is_some() {
            // Installed twice: the outer one does it all.
            return ResponseFuture::passing(self.inner.call(request));
        }
        let config = &self.config;
        let presented = match source::read(request.headers(), &config.sources, &config.cookie, &config.keys) {
            Ok(presented) => presented,
            Err(detail) => return ResponseFuture::refused(bad_request(detail)),
        };
        let required = config.required.concerns(request.uri().path());
        let at_once = required || (config.eager && presented.source().is_some());
        let personal = Personal::default();
        let core = Arc::new(Core::new(config.clone(), presented, personal.clone()));
        let extensions = request.extensions_mut();
        extensions.insert(personal);
        extensions.insert(core.identity());
        extensions.insert(Session::new(core.clone()));
        if !at_once {
            return ResponseFuture::inside(self.inner.call(request), core);
        }
        // The clone is not ready, the one that was asked is.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        ResponseFuture::after(Box::pin(async move {
            if let Err(problem) = core.admit(required).await {
                return Ok(refuse(problem, &core));
            }
            let response = inner.call(request).await?;
            let finished = core.finish().await;
            Ok(answer(response, finished, &core, required))
        }))
    }
}

impl Core {
    /// Who is asking, for layers within. Costs a look-up only if the request has a token and somebody asks.
    fn identity(self: &Arc<Self>) -> Identity {
        match &self.presented {
            Presented::Nothing | Presented::Bad(_) => Identity::anonymous(),
            Presented::Foreign(_) if self.config.resolver.is_none() => Identity::anonymous(),
            Presented::Token(..) | Presented::Foreign(_) => Identity::looked_up_by(self.clone()),
        }
    }

    /// Loads the session, and says no where one is required and there is none.
    async fn admit(&self, required: bool) -> Result<(), Problem> {
        let open = self.loaded().await.map_err(Problem::from)?;
        let needs_user = self.config.required.user;
        if !required || (open.is_known() && (!needs_user || open.user().is_some())) {
            return Ok(());
        }
        Err(self.unauthorized())
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

impl Lookup for Core {
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
            if let Some(live) = open.live() {
                identity = identity.with_session(*live.key.as_bytes());
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
