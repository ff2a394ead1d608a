//! The limit of requests in progress: when the permit comes back.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_gatehouse::rate_limit::{ConcurrencyLimitLayer, Key, Reason, RoutePattern};

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
    let body = Arc::new(std::sync::Mutex::new(Some(body)));
    let service = ConcurrencyLimitLayer::new("all", Key::global(), 1).layer(service_fn(move |_: Request<()>| {
        let body = body.lock().unwrap().take();
        let empty = || BodyExt::boxed(http_body_util::Empty::new());
        async move { Ok::<_, Infallible>(Response::new(body.unwrap_or_else(empty))) }
    }));
    let mut first = service.clone().oneshot(Request::new(())).await.unwrap();
    assert_eq!(status!(service), 503);
    sender.send(Bytes::from_static(b"part")).unwrap();
    assert!(first.body_mut().frame().await.is_some());
    assert_eq!(status!(service), 503, "the body goes on");
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
    assert_eq!(status!(service), 503);
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

/// A request of a client on a route.
fn of(client: &str) -> Request<()> {
    let mut request = crate::with("x-user", client);
    request.extensions_mut().insert(RoutePattern("/".into()));
    request
}

#[tokio::test]
async fn who_is_refused_by_a_key_that_is_everybody_s_learns_that_the_server_is_busy_and_when_to_come_back() {
    let by_user = || Key::header(http::HeaderName::from_static("x-user"));
    let by_other = || Key::header(http::HeaderName::from_static("x-other"));
    for (key, is_everybodys) in [
        (Key::global(), true),
        (Key::route(), true),
        (Key::from((Key::global(), Key::route())), true),
        (by_other().or(Key::route()), true),
        (by_user(), false),
        (by_user().or(Key::global()), false),
        (Key::from((by_user(), Key::route())), false),
        (by_other().or(by_user()), false),
    ] {
        let service = ConcurrencyLimitLayer::new("few", key.clone(), 0)
            .layer(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new()))));
        let answer = service.clone().oneshot(of("a")).await.unwrap();
        let (head, body) = answer.into_parts();
        let problem: serde_json::Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        let (status, kind, retry_after, grpc) = if is_everybodys {
            (503, "#temporary-reduced-capacity", Some("1"), ["14", "1000"])
        } else {
            (429, "#quota-exceeded", None, ["8", ""])
        };
        assert_eq!(head.status, status, "{key:?}");
        assert!(problem["type"].as_str().unwrap().ends_with(kind), "{key:?}: {problem}");
        assert_eq!(head.headers.get("retry-after").map(|value| value.to_str().unwrap()), retry_after, "{key:?}");
        let mut request = of("a");
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let answer = service.oneshot(request).await.unwrap();
        let told = |name| answer.headers().get(name).map_or("", |value| value.to_str().unwrap());
        assert_eq!([told("grpc-status"), told("grpc-retry-pushback-ms")], grpc, "{key:?}");
    }
}

#[tokio::test]
async fn preflights_are_not_limited_and_hold_no_permit() {
    let service = ConcurrencyLimitLayer::new("all", Key::global(), 1)
        .layer(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(open_body().1))));
    let preflight = || {
        let request = Request::builder().method("OPTIONS").header("origin", "https://a.example");
        request.header("access-control-request-method", "PUT").body(()).unwrap()
    };
    let mut held = Vec::new();
    for request in [preflight(), preflight(), Request::new(()), preflight()] {
        let answer = service.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        held.push(answer);
    }
    assert_eq!(status!(service), 503);
}

#[tokio::test]
async fn what_is_exempt_is_not_limited_and_what_is_refused_is_answered_as_one_likes() {
    let service = ConcurrencyLimitLayer::new("all", Key::global(), 1)
        .exempt(|parts| parts.uri.path() == "/health")
        .on_reject(|rejection, mut answer| {
            assert_eq!((rejection.reason, &*rejection.policies[0]), (Reason::Overload, "all"));
            assert_eq!((answer.status().as_u16(), rejection.retry_after), (503, Some(Duration::from_secs(1))));
            *answer.body_mut() = Bytes::from_static(b"busy");
            answer
        })
        .layer(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(open_body().1))));
    let ask = |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        service.clone().oneshot(request)
    };
    let mut held = Vec::new();
    for path in ["/health", "/", "/health"] {
        let answer = ask("GET", path).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        held.push(answer);
    }
    for (method, content) in [("GET", "busy"), ("HEAD", "")] {
        let answer = ask(method, "/").await.unwrap();
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), content, "{method}");
    }
}
