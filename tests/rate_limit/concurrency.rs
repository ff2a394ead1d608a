//! The limit of requests in progress: when the permit comes back.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_gatehouse::rate_limit::{ConcurrencyLimitLayer, Key};

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// A body that ends when the sender is dropped.
fn open_body() -> (tokio::sync::mpsc::UnboundedSender<Bytes>, Body) {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let frames = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx).map(|b| b.map(|b| Ok(Frame::data(b)))));
    (sender, BodyExt::boxed(StreamBody::new(frames)))
}

macro_rules! status {
    ($service:expr) => {
        $service.clone().oneshot(Request::new(())).await.unwrap().status().as_u16()
    };
}

#[tokio::test]
async fn the_permit_comes_back_at_the_end_of_the_body_and_not_before() {
    let (sender, body) = open_body();
    let body = std::sync::Arc::new(std::sync::Mutex::new(Some(body)));
    let service = ConcurrencyLimitLayer::new("all", Key::global(), 1).layer(service_fn(move |_: Request<()>| {
        let body = body.lock().unwrap().take();
        let empty = || BodyExt::boxed(http_body_util::Empty::new());
        async move { Ok::<_, Infallible>(Response::new(body.unwrap_or_else(empty))) }
    }));
    let mut first = service.clone().oneshot(Request::new(())).await.unwrap();
    assert_eq!(status!(service), 429);
    sender.send(Bytes::from_static(b"part")).unwrap();
    assert!(first.body_mut().frame().await.is_some());
    assert_eq!(status!(service), 429, "the body goes on");
    drop(sender);
    assert!(first.body_mut().frame().await.is_none());
    assert_eq!(status!(service), 200, "the response is still there, but has ended");
    drop(first);
    assert_eq!(status!(service), 200);
}

#[tokio::test]
async fn the_permit_comes_back_when_the_client_leaves() {
    let service = ConcurrencyLimitLayer::new("all", Key::global(), 1)
        .layer(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(open_body().1))));
    let response = service.clone().oneshot(Request::new(())).await.unwrap();
    assert_eq!(status!(service), 429);
    drop(response);
    assert_eq!(status!(service), 200);
}

#[tokio::test]
async fn the_permit_comes_back_after_an_error_a_panic_and_a_timeout() {
    let service =
        ConcurrencyLimitLayer::new("all", Key::global(), 1).layer(service_fn(
            async |request: Request<()>| match request.uri().path() {
                "/error" => Err("an error"),
                "/panic" => panic!("the handler panics"),
                "/slow" => std::future::pending().await,
                _ => Ok(Response::new(String::new())),
            },
        ));
    let ask = |path: &'static str| {
        let service = service.clone();
        tokio::spawn(async move {
            let request = Request::builder().uri(path).body(()).unwrap();
            let answer = tokio::time::timeout(Duration::from_millis(20), service.oneshot(request)).await;
            answer.map(|answer| answer.map(|response| response.status().as_u16()))
        })
    };
    assert!(ask("/error").await.unwrap().unwrap().is_err());
    assert_eq!(ask("/").await.unwrap().unwrap(), Ok(200));
    assert!(ask("/panic").await.unwrap_err().is_panic());
    assert_eq!(ask("/").await.unwrap().unwrap(), Ok(200));
    assert!(ask("/slow").await.unwrap().is_err(), "it takes too long");
    assert_eq!(ask("/").await.unwrap().unwrap(), Ok(200));
}

#[tokio::test]
async fn each_key_has_its_own_permits() {
    let key = Key::header(http::HeaderName::from_static("x-user"));
    let mut service = ConcurrencyLimitLayer::new("user", key, 1)
        .layer(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(open_body().1))));
    let mut held = Vec::new();
    for (user, status) in [("a", 200), ("b", 200), ("a", 429), ("b", 429)] {
        let response = service.call(crate::with("x-user", user)).await.unwrap();
        assert_eq!(response.status(), status, "{user}");
        if status == 200 {
            held.push(response);
        }
    }
    assert_eq!(service.call(Request::new(())).await.unwrap().status(), 200, "nobody has no limit");
}
