//! The outermost service: it refuses what cannot be passed on safely, cleans the rest, and turns errors into answers.

use std::{
    convert::Infallible,
    future::{self, Future},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use tower::{Service, ServiceExt};
use tower_gatehouse::Problem;

use crate::{Body, BoxError, fields, forwarded::Peer, layers::Stack, stats::Stats};

const MAX_FORWARDS: HeaderName = HeaderName::from_static("max-forwards");
/// Our name at the end of a member of `Via` (RFC 9110 §7.6.3), and how often one request may pass gateways: an origin
/// that leads back to us would otherwise take every connection there is.
const VIA: &str = " gatehouse";
const MAX_VISITS: usize = 10;

/// One for each connection.
#[derive(Clone)]
pub(crate) struct Ingress {
    pub(crate) stack: Stack,
    pub(crate) stats: Stats,
    pub(crate) peer: SocketAddr,
}

impl<B> Service<Request<B>> for Ingress
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let under_way = self.stats.request();
        match screen(request, self.peer) {
            Ok(request) => Box::pin(self.stack.clone().oneshot(request).map(move |result| {
                let response = result.unwrap_or_else(|error| answer(error.to_problem()));
                under_way.answered(response.status());
                Ok(response)
            })),
            Err(Refusal(refused)) => {
                under_way.answered(refused.status());
                Box::pin(future::ready(Ok(*refused)))
            }
        }
    }
}

/// A problem as an answer of the gateway.
pub(crate) fn answer(problem: Problem) -> Response<Body> {
    problem.into_response_with_bytes().map(|bytes| http_body_util::Full::new(bytes).map_err(Into::into).boxed_unsync())
}

/// The answer to a request that goes no further.
struct Refusal(Box<Response<Body>>);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(Box::new(answer(problem)))
    }
}

/// The request as the layers get it; or the answer to one that goes no further.
fn screen<B>(request: Request<B>, peer: SocketAddr) -> Result<Request<Body>, Refusal>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let websocket = fields::asks_for_websocket(&request);
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::CONNECT {
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "This is a reverse proxy; it opens no tunnels.").into());
    }
    if parts.method == Method::TRACE {
        // It would show the client what the gateway adds to requests, credentials for the origin among it.
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "TRACE is not passed on.");
        let allow = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, QUERY");
        return Err(problem.header(header::ALLOW, allow).into());
    }
    let host = host(&parts).map_err(|detail| Problem::new(StatusCode::BAD_REQUEST, detail))?;
    if parts.method == Method::OPTIONS && (parts.uri.path() == "*" || is_last_hop(&mut parts.headers)) {
        let mut response = Response::new(http_body_util::Empty::new().map_err(Into::into).boxed_unsync());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Err(Refusal(Box::new(response)));
    }
    if fields::tokens(&parts.headers, &header::VIA).filter(|member| member.ends_with(VIA)).count() >= MAX_VISITS {
        return Err(Problem::new(StatusCode::LOOP_DETECTED, "The request goes round in circles.").into());
    }
    let trailers = fields::has_token(&parts.headers, &header::TE, "trailers");
    fields::remove_hop_by_hop(&mut parts.headers);
    if trailers {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if websocket {
        fields::set_websocket(&mut parts.headers);
    }
    parts.extensions.insert(Peer(peer));
    parts.headers.insert(header::HOST, host);
    let via = if parts.version == Version::HTTP_2 { "2.0 gatehouse" } else { "1.1 gatehouse" };
    parts.headers.append(header::VIA, HeaderValue::from_static(via));
    // Layers and the origin get one form of the target, and the host in one place.
    parts.uri = parts.uri.into_parts().path_and_query.map_or_else(|| Uri::from_static("/"), Uri::from);
    Ok(Request::from_parts(parts, body.map_err(Into::into).boxed_unsync()))
}

/// Whom the request is for: the authority of the target where it has one (RFC 9112 §3.2.2, RFC 9113 §8.3.1), else
/// `Host`.
fn host(parts: &http::request::Parts) -> Result<HeaderValue, &'static str> {
    let mut lines = parts.headers.get_all(header::HOST).iter();
    let (first, second) = (lines.next(), lines.next());
    if second.is_some() {
        return Err("The request has two Host fields.");
    }
    if let Some(authority) = parts.uri.authority() {
        if authority.as_str().contains('@') {
            return Err("The target names a user.");
        }
        return HeaderValue::from_str(authority.as_str()).map_err(|_| "The target names no host.");
    }
    match first {
        Some(host) if host.as_bytes().iter().any(|byte| matches!(byte, b'/' | b'@' | b',' | b' ' | b'?' | b'#')) => {
            Err("The Host field is not a host.")
        }
        Some(host) => Ok(host.clone()),
        None if parts.version == Version::HTTP_10 => Ok(HeaderValue::from_static("")),
        None => Err("The request has no Host field."),
    }
}

/// Counts `Max-Forwards` down (RFC 9110 §7.6.2); whether it ends here.
fn is_last_hop(headers: &mut http::HeaderMap) -> bool {
    let left = headers.get(&MAX_FORWARDS).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    if let Some(next) = left.and_then(|left| left.checked_sub(1)) {
        headers.insert(MAX_FORWARDS, next.into());
    }
    left == Some(0)
}
