//! The demo's way in: anybody may be anybody. A real gateway leaves this to a service that checks passwords and has
//! the same session keys and store.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde::Deserialize;
use tower::Service;
use tower_gatehouse::{Problem, session::Session};

use crate::{Body, ingress::answer, layers::Stack, upstream::UpstreamError};

/// The longest body of a login, in bytes.
const MAX_BODY: usize = 4096;

/// Answers `POST /login` and `POST /logout`; all else is for the service within.
#[derive(Clone)]
pub(crate) struct Login(pub(crate) Stack);

#[derive(Deserialize)]
struct Credentials {
    user: String,
}

impl Service<Request<Body>> for Login {
    type Response = Response<Body>;
    type Error = UpstreamError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, UpstreamError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let done: Pin<Box<dyn Future<Output = Result<(), Problem>> + Send>> = match request.uri().path() {
            "/login" if request.method() == Method::POST => Box::pin(log_in(request)),
            "/logout" if request.method() == Method::POST => Box::pin(log_out(request)),
            _ => return self.0.call(request),
        };
        Box::pin(async move {
            Ok(done.await.map_or_else(answer, |()| {
                let mut response = Response::new(http_body_util::Empty::new().map_err(Into::into).boxed_unsync());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }))
        })
    }
}

async fn log_in(request: Request<Body>) -> Result<(), Problem> {
    let session = Session::<serde_json::Map<String, serde_json::Value>>::of(&request)?;
    let malformed = || Problem::new(StatusCode::BAD_REQUEST, r#"A login is such as {"user":"ann"}."#);
    let body = axum::body::Body::new(request.into_body());
    let body = axum::body::to_bytes(body, MAX_BODY).await.map_err(|_| malformed())?;
    let Credentials { user } = serde_json::from_slice(&body).map_err(|_| malformed())?;
    if user.is_empty() || user.len() > 256 {
        return Err(malformed());
    }
    Ok(session.login(user, |_| {}).await?)
}

async fn log_out(request: Request<Body>) -> Result<(), Problem> {
    Ok(Session::<()>::of(&request)?.destroy().await?)
}
