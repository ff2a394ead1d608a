//! Invalidation as an endpoint of its own, for a port that clients do not reach.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tower_service::Service;

use super::{purge::Order, token::PurgeToken};
use crate::{BoxError, HttpCache, Problem, problem::answering};

/// Answers `POST /invalidate` with the content
/// `{"tags":[],"urls":[],"prefixes":[],"all":false,"mode":"soft"}`, each part optional, `mode` `hard` unless given:
/// 200 with `{"invalidated":[…],"mode":"hard"}`; 400 for content that is not of this form, 401 without the token, 404
/// for other paths, 405 for other methods, 413 above 1 MiB, 503 with what was not reached where the backend failed.
#[derive(Clone, Debug)]
pub struct InvalidateService {
    cache: HttpCache,
    token: PurgeToken,
}

const MAX_CONTENT: usize = 1024 * 1024;

impl InvalidateService {
    /// For this cache, with this token.
    pub fn new(cache: impl Into<HttpCache>, token: PurgeToken) -> Self {
        Self { cache: cache.into(), token }
    }

    async fn answer<B>(self, request: Request<B>) -> Result<Response<Bytes>, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        if request.uri().path() != "/invalidate" {
            return Err(Problem::new(StatusCode::NOT_FOUND, "there is only POST /invalidate"));
        }
        if request.method() != Method::POST {
            return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "there is only POST /invalidate")
                .header(header::ALLOW, HeaderValue::from_static("POST")));
        }
        self.token.check(request.headers())?;
        let content = Limited::new(request.into_body(), MAX_CONTENT).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the content is larger than 1 MiB")
            } else {
                Problem::new(StatusCode::BAD_REQUEST, "the content could not be read")
            }
        })?;
        Order::parse(&content.to_bytes())?.carry_out(&self.cache, None).await
    }
}

impl<B> Service<Request<B>> for InvalidateService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (method, answer) = (request.method().clone(), self.clone().answer(request));
        Box::pin(async move {
            let answer = answer.await.unwrap_or_else(Problem::into_response_with_bytes);
            Ok(answering(&method, answer).map(Full::new))
        })
    }
}
