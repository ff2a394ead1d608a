//! What clients are told where a limit refuses them.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, Response, StatusCode, header};

use super::{
    fields::{visible, whole_seconds},
    head::Head,
    key::Unwired,
};
use crate::{Problem, backend::BackendError, refusal::Form};

/// A refusal, for those who shape the answer ([`RateLimitLayer::on_reject`](super::RateLimitLayer::on_reject),
/// [`ConcurrencyLimitLayer::on_reject`](super::ConcurrencyLimitLayer::on_reject)).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejection {
    /// Why.
    pub reason: Reason,
    /// The names of the policies that refused.
    pub policies: Vec<Arc<str>>,
    /// When the same request passes, if nothing else is asked for meanwhile; `None` if it never does or nobody knows.
    /// With [`Overload`](Reason::Overload) and [`Unavailable`](Reason::Unavailable), 1 s: a guess.
    pub retry_after: Option<Duration>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A quota is used up: 429.
    Quota,
    /// The client has too many requests in progress: 429.
    Concurrency,
    /// Too many requests are in progress under a key that is everybody's ([`Key::global`](super::Key::global),
    /// [`Key::route`](super::Key::route)): 503.
    Overload,
    /// The backend cannot be asked, and the policy says [`OnError::Deny`](super::OnError::Deny): 503.
    Unavailable,
}

impl Rejection {
    /// Of policies that refuse while the backend cannot be asked. When it can nobody knows.
    pub(super) fn unavailable(policies: Vec<Arc<str>>) -> Self {
        Self { reason: Reason::Unavailable, policies, retry_after: Some(Duration::from_secs(1)) }
    }

    /// The answer unless the user shapes it: problem details with the types that
    /// draft-ietf-httpapi-ratelimit-headers registers, or a gRPC status.
    pub(super) fn answer(&self, form: Form) -> Response<Bytes> {
        let mut answer = form.write(self.problem());
        if let Some(retry_after) = self.retry_after.filter(|_| form.is_grpc()) {
            // How long clients with a retry policy wait (gRFC A6).
            let millis = i32::try_from(retry_after.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
            answer.headers_mut().insert(HeaderName::from_static("grpc-retry-pushback-ms"), millis.into());
        }
        answer
    }

    fn problem(&self) -> Problem {
        let (status, uri, title) = match self.reason {
            Reason::Quota | Reason::Concurrency => (
                StatusCode::TOO_MANY_REQUESTS,
                "https://iana.org/assignments/http-problem-types#quota-exceeded",
                "Request cannot be satisfied as assigned quota has been exceeded",
            ),
            Reason::Overload | Reason::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
                "Request cannot be satisfied due to temporary server capacity constraints",
            ),
        };
        // As the header fields name them.
        let policies: Vec<String> = self.policies.iter().map(|name| visible(name).map(char::from).collect()).collect();
        let problem = Problem::new(status, self.detail()).kind(uri, title).member("violated-policies", policies);
        match self.retry_after {
            Some(retry_after) => problem.header(header::RETRY_AFTER, whole_seconds(retry_after).into()),
            None => problem,
        }
    }

    fn detail(&self) -> &'static str {
        match (self.reason, self.retry_after) {
            (Reason::Quota, Some(_)) => "Too many requests; try again after the time in Retry-After.",
            (Reason::Quota, None) => "The request costs more than its quota allows at once.",
            (Reason::Concurrency, _) => "Too many requests are in progress; try again when one of them has ended.",
            (Reason::Overload, _) => "The server is busy with other requests; try again after the time in Retry-After.",
            (Reason::Unavailable, _) => "The limit of requests cannot be checked at present.",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for Rejection {}

/// The answer of a handler that a [`Limiter`](super::Limiter) has refused.
impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        rejection.problem()
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for Rejection {
    fn into_response(self) -> axum::response::Response {
        Problem::from(self).into_response()
    }
}

/// The answer where something is not wired up.
pub(super) fn unwired(Unwired(message): Unwired, head: Head<'_>) -> Response<Bytes> {
    tracing::error!("{message}");
    head.form().answer(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, message))
}

/// The answer where it cannot be told who is asking. Whoever let the request pass would let everybody pass.
pub(super) fn unidentified(error: &BackendError, head: Head<'_>) -> Response<Bytes> {
    tracing::debug!(%error, "a request could not be identified");
    head.form().answer(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the session store is not available"))
}
