//! A counted origin behind layers, driven in process.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::sync::watch;
use tower::{Service, ServiceExt, util::BoxCloneSyncService};
use tower_gatehouse::{BoxError, CacheStatus, ResponseExt};

pub(crate) type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;
pub(crate) type App = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

pub(crate) fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

type Handler = dyn Fn(&Request<Body>, usize) -> Response<Body> + Send + Sync;

/// An origin that answers by a function of the request and how many have come before it, and remembers what it was
/// asked.
#[derive(Clone)]
pub(crate) struct Origin {
    handler: Arc<Handler>,
    pub(crate) seen: Arc<Mutex<Vec<(Method, String, HeaderMap)>>>,
    /// Opens for answers with the field `x-wait`.
    pub(crate) gate: Arc<watch::Sender<bool>>,
}

impl Origin {
    pub(crate) fn new(handler: impl Fn(&Request<Body>, usize) -> Response<Body> + Send + Sync + 'static) -> Self {
        Self { handler: Arc::new(handler), seen: Arc::default(), gate: Arc::new(watch::channel(false).0) }
    }

    /// Answers with these header fields and the number of the request as content.
    pub(crate) fn with(headers: &'static [(&'static str, &'static str)]) -> Self {
        Self::new(move |_, n| respond(200, headers, format!("answer {n}")))
    }

    /// Answers with these, one after the other, then with the last again and again.
    pub(crate) fn script(
        answers: impl IntoIterator<Item = (u16, &'static [(&'static str, &'static str)], &'static str)>,
    ) -> Self {
        let answers = Mutex::new(answers.into_iter().collect::<VecDeque<_>>());
        Self::new(move |_, _| {
            let mut answers = answers.lock().unwrap();
            let (status, headers, body) = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0] };
            respond(status, headers, body)
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) fn last(&self) -> (Method, String, HeaderMap) {
        self.seen.lock().unwrap().last().expect("the origin was asked").clone()
    }
}

pub(crate) fn respond(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        response.headers_mut().append(name, value.parse().unwrap());
    }
    response
}

impl Service<Request<Body>> for Origin {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let n = {
            let mut seen = self.seen.lock().unwrap();
            seen.push((request.method().clone(), request.uri().to_string(), request.headers().clone()));
            seen.len()
        };
        let response = (self.handler)(&request, n);
        let mut gate = self.gate.subscribe();
        Box::pin(async move {
            if response.headers().contains_key("x-wait") {
                gate.wait_for(|open| *open).await?;
            }
            // The marker for "does not answer".
            if response.headers().contains_key("x-refuse") { Err("connection refused".into()) } else { Ok(response) }
        })
    }
}

/// Boxes a service, so that layers in any order have one type.
pub(crate) fn boxed<S, R>(service: S) -> App
where
    S: Service<Request<Body>, Response = Response<R>, Error = BoxError> + Clone + Send + Sync + 'static,
    S::Future: Send,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    BoxCloneSyncService::new(
        service.map_response(|response: Response<R>| response.map(|body| body.map_err(Into::into).boxed_unsync())),
    )
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) cache: Option<CacheStatus>,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn x_cache(&self) -> &str {
        self.field("x-cache")
    }

    pub(crate) fn detail(&self) -> &str {
        self.cache.as_ref().and_then(CacheStatus::detail).unwrap_or("")
    }
}

pub(crate) fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(uri).body(full("")).unwrap();
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request
}

pub(crate) async fn send(app: &App, request: Request<Body>) -> Answer {
    try_send(app, request).await.expect("the service answers")
}

pub(crate) async fn try_send(app: &App, request: Request<Body>) -> Result<Answer, BoxError> {
    let response = app.clone().oneshot(request).await?;
    let (status, headers, cache) = (response.status().as_u16(), response.headers().clone(), response.cache_status());
    let body = response.into_body().collect().await?.to_bytes();
    Ok(Answer { status, headers, body: String::from_utf8(body.to_vec()).unwrap(), cache })
}

pub(crate) async fn get(app: &App, uri: &str) -> Answer {
    send(app, request("GET", uri, &[])).await
}

pub(crate) async fn get_with(app: &App, uri: &str, headers: &[(&str, &str)]) -> Answer {
    send(app, request("GET", uri, headers)).await
}
