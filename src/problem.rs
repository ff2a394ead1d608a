//! What clients are told where a layer refuses: problem details (RFC 9457).

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use serde_json::Value;

/// An answer of `application/problem+json` (RFC 9457), and the error type of handlers: the errors of this crate turn
/// into it with `?`.
///
/// It is never stored by caches: it carries `Cache-Control: no-store`.
///
/// ```
/// use http::StatusCode;
/// use tower_gatehouse::Problem;
///
/// let answer = Problem::new(StatusCode::CONFLICT, "the cart was changed meanwhile").into_response_with_bytes();
/// assert_eq!(answer.status(), 409);
/// assert_eq!(answer.headers()["content-type"], "application/problem+json");
/// assert!(answer.body().starts_with(br#"{"type":"about:blank","title":"Conflict","status":409"#));
/// ```
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    kind: Option<(&'static str, &'static str)>,
    members: Vec<(&'static str, Value)>,
}

impl Problem {
    /// A problem with one sentence about it, which the client gets to read.
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, detail: detail.into(), headers: Vec::new(), kind: None, members: Vec::new() }
    }

    /// A registered type of problem, with its URI and title; `about:blank` and the status' own phrase by default.
    #[must_use]
    pub(crate) fn kind(mut self, uri: &'static str, title: &'static str) -> Self {
        self.kind = Some((uri, title));
        self
    }

    /// One more member of the object.
    #[must_use]
    pub(crate) fn member(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    /// One more header field, such as `Retry-After`.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The sentence.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The header fields besides those that every problem has.
    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// As a response.
    pub fn into_response_with_bytes(self) -> Response<Bytes> {
        let of_status = || ("about:blank", self.status.canonical_reason().unwrap_or("Error"));
        let ((uri, title), detail) = (self.kind.unwrap_or_else(of_status), Value::from(&*self.detail));
        let status = self.status.as_u16();
        let mut content = format!(r#"{{"type":"{uri}","title":"{title}","status":{status},"detail":{detail}"#);
        for (name, value) in &self.members {
            let _ = write!(content, r#","{name}":{value}"#);
        }
        content.push('}');
        let mut response = Response::new(Bytes::from(content));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// As a response of a layer around a service with bodies of type `B` to a request with this method.
    pub fn into_answer<B>(self, method: &Method) -> Response<ProblemBody<B>> {
        answering(method, self.into_response_with_bytes()).map(ProblemBody::full)
    }
}

/// What a request with this method gets of an answer: a HEAD gets its fields and the length of its content, and none
/// of that (RFC 9110 §9.3.2). hyper sees to it over HTTP/1 only.
pub(crate) fn answering(method: &Method, mut answer: Response<Bytes>) -> Response<Bytes> {
    if *method == Method::HEAD {
        let content = std::mem::take(answer.body_mut());
        // Where there is none for a GET either, there is no length (RFC 9110 §8.6).
        if !content.is_empty() {
            answer.headers_mut().entry(header::CONTENT_LENGTH).or_insert_with(|| content.len().into());
        }
    }
    answer
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.detail)
    }
}

impl std::error::Error for Problem {}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        self.into_response_with_bytes().map(axum::body::Body::from)
    }
}

pin_project! {
    /// The body of the service within, or that of a [`Problem`]; what layers that may refuse answer with.
    #[derive(Debug)]
    pub struct ProblemBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = KindProject]
    enum Kind<B> {
        Inner { #[pin] body: B },
        Problem { bytes: Option<Bytes> },
    }
}

impl<B> ProblemBody<B> {
    /// The body of the service within.
    pub fn inner(body: B) -> Self {
        Self { kind: Kind::Inner { body } }
    }

    /// What a layer answers in place of the service.
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self { kind: Kind::Problem { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()) } }
    }
}

/// Without content, for layers around that answer by themselves, as `tower_http::cors` does.
impl<B> Default for ProblemBody<B> {
    fn default() -> Self {
        Self::full(Bytes::new())
    }
}

impl<B: Body<Data = Bytes>> Body for ProblemBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.project().kind.project() {
            KindProject::Inner { body } => body.poll_frame(cx),
            KindProject::Problem { bytes } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Problem { bytes } => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Problem { bytes } => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}
