//! What the layers themselves answer to a HEAD, over HTTP/2, where hyper sends whatever content there is and a client
//! takes that for a broken stream (RFC 9110 §9.3.2).
#![cfg(all(feature = "memory", feature = "axum"))]

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tower::{Layer, Service, service_fn};
use tower_gatehouse::{
    Backend, BoxError, CacheLayer,
    rate_limit::{ConcurrencyLimitLayer, Key, Quota, RateLimitLayer},
    session::{ForwardSessionLayer, KeyRing, SessionLayer, VerifySessionLayer},
};

type Client = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

/// A client of the service, over a connection in memory.
async fn client<S, B>(service: S) -> Client
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let (here, there) = tokio::io::duplex(64 << 10);
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    tokio::spawn(server.serve_connection(TokioIo::new(there), TowerToHyperService::new(service)));
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(here));
    let (client, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    client
}

async fn ask(client: &mut Client, method: Method) -> (Response<()>, Bytes) {
    let request = Request::builder().method(method).uri("http://h/a").header("cache-control", "only-if-cached");
    let request = request.version(Version::HTTP_2).body(Empty::new()).unwrap();
    let (head, body) = client.send_request(request).await.unwrap().into_parts();
    (Response::from_parts(head, ()), body.collect().await.unwrap().to_bytes())
}

/// A HEAD gets the head of what a GET gets.
async fn refuses<S, B>(status: StatusCode, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut client = client(service).await;
    let (whole, content) = ask(&mut client, Method::GET).await;
    let (head, nothing) = ask(&mut client, Method::HEAD).await;
    assert_eq!((whole.status(), head.status()), (status, status));
    assert!(!content.is_empty() && nothing.is_empty());
    assert_eq!(whole.headers()[header::CONTENT_LENGTH], content.len().to_string());
    let known = |response: &Response<()>| {
        let mut headers = response.headers().clone();
        // What goes by the clock.
        for name in ["date", "retry-after", "ratelimit"] {
            headers.remove(name);
        }
        headers
    };
    assert_eq!(known(&head), known(&whole), "{status}");
}

async fn hello<B: Send>(_: Request<B>) -> Result<Response<String>, BoxError> {
    Ok(Response::new("hello".to_owned()))
}

#[tokio::test]
async fn a_head_that_is_refused_has_no_content() {
    let (backend, keys) = (Backend::memory(), KeyRing::ephemeral());
    let inner = service_fn(hello);

    let limit = RateLimitLayer::new(&backend, "few", Key::global(), Quota::per_hour(1)).layer(inner);
    let mut first = client(limit.clone()).await;
    assert_eq!(ask(&mut first, Method::GET).await.0.status(), 200);
    refuses(StatusCode::TOO_MANY_REQUESTS, limit).await;

    let unwired = RateLimitLayer::new(&backend, "user", Key::user(), Quota::per_hour(1));
    refuses(StatusCode::INTERNAL_SERVER_ERROR, unwired.layer(inner)).await;

    let slow = service_fn(async |request: Request<Incoming>| {
        if request.uri().path() == "/slow" {
            std::future::pending::<()>().await;
        }
        hello(request).await
    });
    let one = ConcurrencyLimitLayer::new("one", Key::global(), 1).layer(slow);
    let mut busy = client(one.clone()).await;
    let request = Request::builder().uri("http://h/slow").version(Version::HTTP_2).body(Empty::new()).unwrap();
    let _slow = tokio::spawn(busy.send_request(request));
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    refuses(StatusCode::SERVICE_UNAVAILABLE, one).await;

    let sessions = SessionLayer::new(&backend, keys.clone());
    refuses(StatusCode::UNAUTHORIZED, sessions.clone().required().layer(inner)).await;
    let within = sessions.clone().required().layer(inner);
    refuses(StatusCode::UNAUTHORIZED, sessions.layer(within)).await;

    let forward = ForwardSessionLayer::new("orders", &keys).layer(service_fn(hello));
    refuses(StatusCode::INTERNAL_SERVER_ERROR, forward).await;
    refuses(StatusCode::UNAUTHORIZED, VerifySessionLayer::new(keys.for_audience("orders")).layer(inner)).await;

    refuses(StatusCode::GATEWAY_TIMEOUT, CacheLayer::new(&backend).layer(inner)).await;
}
