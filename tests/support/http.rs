//! The smallest HTTP client that the tests need: one connection for each request, the whole answer in memory.

use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// How long an answer may take, body included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An answer with its whole body.
#[derive(Clone, Debug)]
pub struct Answered {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Answered {
    /// A header field as text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a field of text"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }
}

/// Sends a request without a body.
///
/// # Panics
/// Where the answer does not come whole; see [`send`].
pub async fn get(url: &str) -> Answered {
    let request = Request::get(url).body(Bytes::new()).expect("a request");
    send(request).await.unwrap_or_else(|error| panic!("GET {url}: {error}"))
}

/// Sends a request.
///
/// # Errors
/// Where the connection fails, the answer breaks off, or it is not complete after 30 s.
pub async fn send(request: Request<Bytes>) -> Result<Answered, Box<dyn std::error::Error + Send + Sync>> {
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http::<Full<Bytes>>();
    let exchange = async {
        let response: Response<_> = client.request(request.map(Full::new)).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        Ok(Answered { status: head.status, headers: head.headers, body: body.to_bytes(), trailers })
    };
    tokio::time::timeout(TIMEOUT, exchange).await?
}
