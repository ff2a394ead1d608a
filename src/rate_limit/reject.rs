//! What clients are told where a limit refuses them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::{fields::whole_seconds, head::Head, key::Unwired};
use crate::{Problem, backend::BackendError, problem::answering};

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
    /// The answer unless the user shapes it: problem details with the types that
    /// draft-ietf-httpapi-ratelimit-headers registers, or a gRPC status.
    pub(super) fn answer(&self, form: Form) -> Response<Bytes> {
        let mut answer = if form.is_grpc { self.grpc() } else { self.problem() };
        if let Some(retry_after) = self.retry_after {
            answer.headers_mut().insert(header::RETRY_AFTER, whole_seconds(retry_after).into());
        }
        answer
    }

    fn problem(&self) -> Response<Bytes> {
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
        let policies: Vec<&str> = self.policies.iter().map(|name| &**name).collect();
        let problem = Problem::new(status, self.detail()).kind(uri, title);
        problem.member("violated-policies", policies).into_response_with_bytes()
    }

    /// A response of trailers only (gRPC over HTTP/2, "Responses"), with which no client takes the body of another
    /// type for a broken connection.
    fn grpc(&self) -> Response<Bytes> {
        let code = match self.reason {
            Reason::Quota | Reason::Concurrency => 8,     // RESOURCE_EXHAUSTED
            Reason::Overload | Reason::Unavailable => 14, // UNAVAILABLE
        };
        let mut answer = grpc_status(code, self.detail());
        if let Some(retry_after) = self.retry_after {
            // How long clients with a retry policy wait (gRFC A6).
            let millis = i32::try_from(retry_after.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
            answer.headers_mut().insert(HeaderName::from_static("grpc-retry-pushback-ms"), millis.into());
        }
        answer
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

/// The answer where something is not wired up.
pub(super) fn unwired(Unwired(message): Unwired, head: Head<'_>) -> Response<Bytes> {
    tracing::error!("{message}");
    if is_grpc(head) {
        return grpc_status(13, message); // INTERNAL
    }
    answering(head.method, Problem::new(StatusCode::INTERNAL_SERVER_ERROR, message).into_response_with_bytes())
}

/// The answer where it cannot be told who is asking. Whoever let the request pass would let everybody pass.
pub(super) fn unidentified(error: &BackendError, head: Head<'_>) -> Response<Bytes> {
    const MESSAGE: &str = "the session store is not available";

    tracing::debug!(%error, "a request could not be identified");
    if is_grpc(head) {
        return grpc_status(14, MESSAGE); // UNAVAILABLE
    }
    answering(head.method, Problem::new(StatusCode::SERVICE_UNAVAILABLE, MESSAGE).into_response_with_bytes())
}

/// What kind of answer a request gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    is_grpc: bool,
    is_head: bool,
}

impl Form {
    pub(super) fn of(head: Head<'_>) -> Self {
        Self { is_grpc: is_grpc(head), is_head: *head.method == Method::HEAD }
    }

    /// What of the answer is sent.
    pub(super) fn cut(self, answer: Response<Bytes>) -> Response<Bytes> {
        if self.is_head { answering(&Method::HEAD, answer) } else { answer }
    }
}

/// Whether the client speaks gRPC (also gRPC-Web), and so looks for its status in other fields.
fn is_grpc(head: Head<'_>) -> bool {
    let content_type = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type
        .is_some_and(|value| value.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc")))
}

fn grpc_status(code: u32, message: &'static str) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(HeaderName::from_static("grpc-status"), code.into());
    headers.insert(HeaderName::from_static("grpc-message"), HeaderValue::from_static(message));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
