use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tower_service::Service;

use super::{
    AggregateBuilder, AggregateError, answer::answer, blueprint::Blueprint, context::Head, gather::gather,
    path::Pattern,
};
use crate::Problem;

/// A service that asks several services and makes one JSON answer of theirs; see the [module](super).
///
/// It is always ready and never fails; clones share what they are made of. It takes requests with any body, which it
/// does not read. The answer to another path than its own is 404, to another method than GET or HEAD 405, both as
/// problem details (RFC 9457).
///
/// Dropping the future of a call drops the calls of all parts.
#[derive(Clone)]
pub struct Aggregate(Arc<Blueprint>);

impl Aggregate {
    /// How long a part may take, unless it is said otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
    /// How many parts there may be, unless it is said otherwise.
    pub const DEFAULT_MAX_PARTS: usize = 32;
    /// How long the content of a part may be in bytes, unless it is said otherwise: 1 MiB.
    pub const DEFAULT_MAX_PART_SIZE: usize = 1024 * 1024;

    /// An aggregate that answers at `pattern`, such as `/profile/{id}` or `/files/{*rest}`: the syntax of axum's
    /// routes. The path is matched as it reaches the aggregate, within axum's `nest` without the prefix.
    ///
    /// A capture with a dot segment (`..`, `%2E%2E`) does not match.
    ///
    /// # Errors
    /// The pattern is not valid.
    pub fn at(pattern: &str) -> Result<AggregateBuilder, AggregateError> {
        Ok(AggregateBuilder::new(Pattern::new(pattern)?))
    }

    pub(super) fn new(blueprint: Blueprint) -> Self {
        Self(Arc::new(blueprint))
    }
}

impl<B> Service<Request<B>> for Aggregate {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = AggregateFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, _) = request.into_parts();
        let without_content = head.method == Method::HEAD;
        let kind = match self.0.pattern.captures(head.uri.path()) {
            None => Kind::refused(Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path")),
            Some(_) if !matches!(head.method, Method::GET | Method::HEAD) => Kind::refused(
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here")
                    .header(header::ALLOW, HeaderValue::from_static("GET, HEAD")),
            ),
            Some(captures) => Kind::Running { run: Box::pin(run(self.0.clone(), Head::new(head, captures))) },
        };
        AggregateFuture { kind, without_content }
    }
}

impl fmt::Debug for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.pieces.iter().map(|piece| &*piece.name).collect();
        f.debug_struct("Aggregate")
            .field("pattern", &self.0.pattern)
            .field("parts", &names)
            .field("shape", &self.0.shape)
            .finish()
    }
}

async fn run(blueprint: Arc<Blueprint>, head: Head) -> Response<Bytes> {
    match gather(&blueprint, &head).await {
        Ok(outcomes) => answer(&blueprint, &head, &outcomes),
        Err((index, failure)) => failure.to_problem(&blueprint.pieces[index].name).into_response_with_bytes(),
    }
}

/// The future of an [`Aggregate`]'s answer.
///
/// # Panics
/// If it is polled again after it has given its answer.
pub struct AggregateFuture {
    kind: Kind,
    without_content: bool,
}

enum Kind {
    Running { run: Pin<Box<dyn Future<Output = Response<Bytes>> + Send>> },
    Refused { answer: Option<Response<Bytes>> },
}

impl Kind {
    fn refused(problem: Problem) -> Self {
        Self::Refused { answer: Some(problem.into_response_with_bytes()) }
    }
}

impl Future for AggregateFuture {
    type Output = Result<Response<Full<Bytes>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match &mut self.kind {
            Kind::Running { run } => std::task::ready!(run.as_mut().poll(cx)),
            Kind::Refused { answer } => answer.take().expect("not polled after it was ready"),
        };
        Poll::Ready(Ok(finish(response, self.without_content)))
    }
}

impl fmt::Debug for AggregateFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AggregateFuture").finish_non_exhaustive()
    }
}

/// The length is that of the content which a GET gets, also where a HEAD gets none (RFC 9110 §8.6).
fn finish(mut response: Response<Bytes>, without_content: bool) -> Response<Full<Bytes>> {
    let length = HeaderValue::from(response.body().len());
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response.map(|content| if without_content { Full::default() } else { Full::new(content) })
}
