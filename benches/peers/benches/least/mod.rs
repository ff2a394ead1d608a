//! The least that a session in memory can cost whose token carries a MAC and whose record is JSON: written for the
//! purpose, without anything else that makes a session, so that nobody can use it. There is one cookie, of one name, a
//! record is never changed and never ends, and every answer is private.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use axum::extract::FromRequestParts;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderValue, Request, Response, StatusCode, header, request::Parts};
use pin_project_lite::pin_project;
use serde::{Serialize, de::DeserializeOwned};
use tower::{Layer, Service};

const NAME: &[u8] = b"sid=";
const KEY: [u8; 32] = [7; 32];
/// The token: so many bytes, then the MAC.
const SIGNED: usize = 24;

type Records = Mutex<HashMap<[u8; 16], Arc<[u8]>, foldhash::fast::FixedState>>;

/// The layer.
#[derive(Clone, Default)]
pub struct Least(Arc<Records>);

impl Least {
    /// Makes a session, and the cookie that leads to it.
    pub fn begin(&self, data: &impl Serialize) -> String {
        let mut token = [1; 32];
        let hash = blake3::keyed_hash(&KEY, &token[..SIGNED]);
        token[SIGNED..].copy_from_slice(&hash.as_bytes()[..8]);
        let json = serde_json::to_vec(data).unwrap();
        self.0.lock().unwrap().insert(record_key(&hash), json.into());
        [std::str::from_utf8(NAME).unwrap(), &URL_SAFE_NO_PAD.encode(token)].concat()
    }
}

fn record_key(hash: &blake3::Hash) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&hash.as_bytes()[8..24]);
    key
}

fn check(cookie: &[u8]) -> Option<[u8; 16]> {
    let mut token = [0; 32];
    let length = URL_SAFE_NO_PAD.decode_slice(cookie.strip_prefix(NAME)?, &mut token).ok()?;
    let hash = blake3::keyed_hash(&KEY, &token[..SIGNED]);
    (length == token.len() && hash.as_bytes()[..8] == token[SIGNED..]).then(|| record_key(&hash))
}

/// The session of a request.
#[derive(Clone)]
pub struct Session(Arc<Records>, [u8; 16]);

impl Session {
    /// Reads it.
    pub fn load<T: DeserializeOwned>(&self) -> Result<T, StatusCode> {
        let record = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&self.1).cloned();
        serde_json::from_slice(&record.ok_or(StatusCode::UNAUTHORIZED)?).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        parts.extensions.get::<Self>().cloned().ok_or(StatusCode::UNAUTHORIZED)
    }
}

impl<S> Layer<S> for Least {
    type Service = LeastService<S>;

    fn layer(&self, inner: S) -> LeastService<S> {
        LeastService { inner, records: self.0.clone() }
    }
}

/// The layer's service.
#[derive(Clone)]
pub struct LeastService<S> {
    inner: S,
    records: Arc<Records>,
}

impl<S, B, R> Service<Request<B>> for LeastService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = LeastFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(key) = request.headers().get(header::COOKIE).and_then(|cookie| check(cookie.as_bytes())) {
            request.extensions_mut().insert(Session(self.records.clone(), key));
        }
        LeastFuture { inner: self.inner.call(request) }
    }
}

pin_project! {
    /// The future of its answer.
    pub struct LeastFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F: Future<Output = Result<Response<R>, E>>, R, E> Future for LeastFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(self.project().inner.poll(cx))?;
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
        Poll::Ready(Ok(response))
    }
}
