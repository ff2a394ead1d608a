//! The innermost service: it sends a request to its origin and brings the answer back, body by body as it comes.

mod connector;
mod error;
mod expect;
mod origin;
mod progress;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, uri::Scheme};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::{
    client::legacy::{Client, connect::capture_connection},
    rt::{TokioExecutor, TokioTimer},
};
use tokio_util::task::TaskTracker;
use tower::Service;
use tower_gatehouse::Problem;
use tracing::warn;

use crate::{Body, cli::Args, fields, ingress, stats::Stats, tunnel};
use connector::{Connector, Served};
use progress::Progress;

pub(crate) use error::UpstreamError;
pub(crate) use origin::{Origin, Route};

/// How many times a request that is safe to repeat meets a kept connection that its origin has just closed.
const ATTEMPTS: usize = 3;

/// All origins, by prefix.
#[derive(Clone)]
pub(crate) struct Upstream(Arc<Shared>);

struct Shared {
    /// The longest prefix first.
    routes: Vec<Route>,
    client: Client<Connector, Body>,
    head_timeout: Duration,
    stats: Stats,
    tunnels: TaskTracker,
}

impl Upstream {
    pub(crate) fn new(mut routes: Vec<Route>, args: &Args, stats: Stats, tunnels: TaskTracker) -> Self {
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix().len()));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_mins(1))
            .pool_max_idle_per_host(256)
            .set_host(false)
            .build(Connector::new(args.connect_timeout));
        Self(Arc::new(Shared { routes, client, head_timeout: args.head_timeout, stats, tunnels }))
    }

    /// All of them, the longest prefix first.
    pub(crate) fn routes(&self) -> &[Route] {
        &self.0.routes
    }
}

impl Service<Request<Body>> for Upstream {
    type Response = Response<Body>;
    type Error = UpstreamError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, UpstreamError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move { shared.forward(request).await })
    }
}

impl Shared {
    async fn forward(&self, mut request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
        let Some(route) = self.routes.iter().find(|route| route.covers(request.uri().path())) else {
            return Ok(ingress::answer(Problem::new(StatusCode::NOT_FOUND, "No service has this path.")));
        };
        let switches = request.headers().contains_key(header::UPGRADE);
        let client = request.extensions_mut().remove::<OnUpgrade>().filter(|_| switches);
        let result = match self.send(direct(request, route.origin())).await {
            Ok(response) => self.receive(response, client),
            Err(error) => Err(error),
        };
        result.inspect_err(|error| {
            self.stats.origin_error(error.kind());
            warn!(origin = %route.origin(), error = %error.with_source(), "no answer");
        })
    }

    /// One request, and where it is safe again, on a new connection.
    async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, UpstreamError> {
        for _ in 1..ATTEMPTS {
            // An origin may close a kept connection in the moment in which it is used again (RFC 9112 §9.3.1).
            let Some(copy) = copy(&request) else { break };
            let connection = capture_connection(&mut request);
            match self.attempt(request).await {
                Err(error) if error.is_closed() && Served::is_kept(&connection) => request = copy,
                result => return result,
            }
        }
        self.attempt(request).await
    }

    async fn attempt(&self, request: Request<Body>) -> Result<Response<Incoming>, UpstreamError> {
        self.stats.origin_request();
        let (progress, request) = Progress::watch(request);
        let request = expect::hold(request);
        let response = tokio::select! {
            biased;
            response = self.client.request(request) => response,
            error = progress.stalled(self.head_timeout) => return Err(error),
        };
        let response = response.map_err(|error| progress.blame(error))?;
        Served::count(&response);
        Ok(response)
    }

    fn receive(
        &self,
        mut response: Response<Incoming>,
        client: Option<OnUpgrade>,
    ) -> Result<Response<Body>, UpstreamError> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = client.filter(|_| fields::is_websocket(response.headers())) else {
                return Err(UpstreamError::malformed("switches to a protocol that was not asked for"));
            };
            self.stats.tunnel();
            tunnel::join(client, hyper::upgrade::on(&mut response), &self.tunnels);
            fields::remove_hop_by_hop(response.headers_mut());
            fields::set_websocket(response.headers_mut());
        } else {
            let headers = response.headers_mut();
            if headers.contains_key(header::TRANSFER_ENCODING) {
                // hyper has taken the chunks apart; a length beside them does not count (RFC 9112 §6.3).
                headers.remove(header::CONTENT_LENGTH);
                if !fields::tokens(headers, &header::TRANSFER_ENCODING).eq(["chunked"]) {
                    return Err(UpstreamError::malformed("uses a transfer coding that was not asked for"));
                }
            }
            fields::remove_hop_by_hop(headers);
        }
        Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
    }
}

/// The request as the origin gets it.
fn direct(request: Request<Body>, origin: &Origin) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    let mut uri = parts.uri.into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(origin.authority().clone());
    parts.uri = uri.try_into().expect("a scheme, an authority and a path make a URI");
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    if !body.is_end_stream() && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        // Said explicitly, because hyper takes a GET without it for one without a body.
        parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Request::from_parts(parts, body)
}

/// The same request again, where it may be repeated (RFC 9110 §9.2.2) and nothing of it is used up.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let repeatable = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !repeatable || !request.body().is_end_stream() || request.headers().contains_key(header::UPGRADE) {
        return None;
    }
    let mut copy = Request::new(http_body_util::Empty::new().map_err(Into::into).boxed_unsync());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
