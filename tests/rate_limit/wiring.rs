//! What is not wired up is told at the first request.

use http::Request;
use tower_gatehouse::{
    Backend, Identity,
    rate_limit::{ClientIp, Key, PeerAddr, Quota, RateLimitLayer},
};

use crate::{App, header, json, with};

fn app(key: Key) -> App {
    App::new(&RateLimitLayer::new(&Backend::memory(), "x", key, Quota::per_hour(1)))
}

#[tokio::test]
async fn what_is_missing_is_a_500_that_names_the_fix_in_every_request() {
    let networks = Key::ip(ClientIp::trusting("10.0.0.0/8").unwrap());
    for (key, fix) in [
        (Key::peer_ip(), "into_make_service_with_connect_info"),
        (Key::forwarded_ip(1), "into_make_service_with_connect_info"),
        (networks, "PeerAddr"),
        (Key::user(), "SessionLayer"),
        (Key::session(), "SessionLayer"),
        (Key::user().or(Key::global()), "SessionLayer"),
        (Key::route(), "RoutePattern"),
    ] {
        let app = app(key.clone());
        for _ in 0..3 {
            let answer = app.ask(Request::new(())).await;
            assert_eq!(answer.status(), 500, "{key:?}");
            assert_eq!(header(&answer, "content-type"), "application/problem+json");
            let problem = json(answer).await;
            assert!(problem["detail"].as_str().unwrap().contains(fix), "{problem}");
        }
        assert_eq!(app.reached(), 0);
        assert_eq!(header(&app.ask(with("content-type", "application/grpc")).await, "grpc-status"), "13");
    }
}

#[tokio::test]
async fn what_is_legitimately_absent_is_skipped() {
    let app = app(Key::user());
    let ask = |identity: Identity| {
        let mut request = Request::new(());
        request.extensions_mut().insert(identity);
        app.ask(request)
    };
    for _ in 0..3 {
        assert_eq!(ask(Identity::anonymous()).await.status(), 200);
    }
    assert_eq!(ask(Identity::anonymous().with_user("a")).await.status(), 200);
    assert_eq!(ask(Identity::anonymous().with_user("a")).await.status(), 429);
    assert_eq!(ask(Identity::anonymous().with_user("b")).await.status(), 200);
}

#[tokio::test]
async fn a_peer_that_a_server_left_is_found() {
    let app = app(Key::peer_ip());
    for (address, status) in [("192.0.2.1:1", 200), ("192.0.2.1:2", 429), ("192.0.2.2:1", 200)] {
        let mut request = Request::new(());
        request.extensions_mut().insert(PeerAddr(address.parse().unwrap()));
        assert_eq!(app.ask(request).await.status(), status, "{address}");
    }
}

#[tokio::test]
async fn clients_of_one_nat64_are_told_apart() {
    let app = app(Key::peer_ip());
    for (address, status) in [
        ("[64:ff9b::192.0.2.1]:1", 200),
        ("[64:ff9b::198.51.100.7]:1", 200),
        ("192.0.2.1:1", 429),
        ("[64:ff9b:0:1::192.0.2.1]:1", 200),
        ("[64:ff9b:0:1::192.0.2.9]:1", 429),
    ] {
        let mut request = Request::new(());
        request.extensions_mut().insert(PeerAddr(address.parse().unwrap()));
        assert_eq!(app.ask(request).await.status(), status, "{address}");
    }
}

/// Over real connections, in an axum router: with connect info, without, with CORS outside, and by route.
#[cfg(feature = "axum")]
mod axum {
    use std::{net::SocketAddr, time::Duration};

    use ::axum::{
        Router,
        body::{Body, to_bytes},
        routing::get,
    };
    use http::StatusCode;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tower::{Layer, ServiceBuilder, ServiceExt};
    use tower_gatehouse::{
        Backend, HttpCache,
        rate_limit::{ConcurrencyLimitLayer, Key, Quota, RateLimitLayer},
        session::{KeyRing, SessionLayer},
    };
    use tower_http::{cors::CorsLayer, csrf::CsrfLayer, timeout::TimeoutLayer};

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: a\r\norigin: https://a.example\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn status(answer: &str) -> &str {
        &answer[9..12]
    }

    fn by_ip() -> Router {
        let limit = RateLimitLayer::new(&Backend::memory(), "ip", Key::peer_ip(), Quota::per_hour(2));
        // CORS stands outside, so that a script may read the refusal.
        let fields = ["ratelimit", "ratelimit-policy", "retry-after"].map(::axum::http::HeaderName::from_static);
        let cors = CorsLayer::new().allow_origin(["https://a.example".parse().unwrap()]).expose_headers(fields);
        Router::new().route("/", get(async || "hello")).layer(limit).layer(cors)
    }

    #[tokio::test]
    async fn connect_info_is_the_peer_and_cors_outside_applies_to_refusals() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = by_ip().into_make_service_with_connect_info::<SocketAddr>();
        let server = tokio::spawn(async move { ::axum::serve(listener, service).await.unwrap() });
        for expected in ["200", "200", "429"] {
            let answer = ask(address, "/").await;
            assert_eq!(status(&answer), expected, "{answer}");
            assert!(answer.contains("access-control-allow-origin: https://a.example\r\n"), "{answer}");
            assert!(
                answer.contains("access-control-expose-headers: ratelimit,ratelimit-policy,retry-after"),
                "{answer}"
            );
            assert_eq!(answer.contains("\r\nretry-after: "), expected == "429", "{answer}");
        }
        server.abort();
    }

    #[tokio::test]
    async fn a_server_without_connect_info_says_so_at_the_first_request() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { ::axum::serve(listener, by_ip()).await.unwrap() });
        let answer = ask(address, "/").await;
        assert_eq!(status(&answer), "500");
        assert!(answer.contains("into_make_service_with_connect_info::<SocketAddr>()"), "{answer}");
        server.abort();
    }

    #[tokio::test]
    async fn each_route_has_its_own_quota_and_the_layer_s_state_is_one() {
        let limit = RateLimitLayer::new(&Backend::memory(), "route", Key::route(), Quota::per_hour(2));
        let handler = || get(async || "hello");
        let app = Router::new().route("/a/{id}", handler()).route("/b", handler()).layer(limit);
        for (path, expected) in
            [("/a/1", 200), ("/a/2", 200), ("/a/3", 429), ("/b", 200), ("/b", 200), ("/b", 429), ("/a/4", 429)]
        {
            let request = http::Request::builder().uri(path).body(Body::empty()).unwrap();
            assert_eq!(app.clone().oneshot(request).await.unwrap().status(), expected, "{path}");
        }
    }

    /// No router, and no route: what a router has not found is limited, all of it together.
    #[tokio::test]
    async fn by_route_around_a_router_nothing_is_known_of_routes_and_every_request_says_so() {
        let limit = || RateLimitLayer::new(&Backend::memory(), "route", Key::route(), Quota::per_hour(2));
        let routes = || Router::new().route("/a", get(async || "a")).nest("/in", Router::new().route("/b", get("b")));
        let ask = async |app: &Router, path: &str| {
            let request = http::Request::builder().uri(path).body(Body::empty()).unwrap();
            app.clone().oneshot(request).await.unwrap()
        };
        let around = limit().layer(routes());
        for path in ["/a", "/a", "/in/b", "/c"] {
            let request = http::Request::builder().uri(path).body(Body::empty()).unwrap();
            let answer = around.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), 500, "{path}");
            let problem = to_bytes(Body::new(answer.into_body()), 1000).await.unwrap();
            assert!(String::from_utf8_lossy(&problem).contains("Router::layer"), "{problem:?}");
        }
        let within = routes().layer(limit());
        for (path, expected) in
            [("/c", 404), ("/in/d", 404), ("/e", 429), ("/in/f", 429), ("/a", 200), ("/in/b", 200), ("/a", 200)]
        {
            assert_eq!(ask(&within, path).await.status(), expected, "{path}");
        }
        // A service of its own below a path.
        let below = Router::new().nest_service("/in", limit().layer(routes()));
        assert_eq!(ask(&below, "/in/a").await.status(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn layers_of_tower_http_stand_around_all_layers_in_one_stack() {
        let backend = Backend::memory();
        let app = Router::new()
            .route("/", get(async || "hello").post(async || "done"))
            .route("/slow", get(std::future::pending::<()>))
            .layer(
                ServiceBuilder::new()
                    .layer(CorsLayer::permissive())
                    .layer(CsrfLayer::new())
                    .layer(RateLimitLayer::new(&backend, "all", Key::global(), Quota::per_minute(100)))
                    .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(20)))
                    .layer(ConcurrencyLimitLayer::new("in progress", Key::global(), 100))
                    .layer(SessionLayer::new(&backend, KeyRing::ephemeral()))
                    .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(10)))
                    .layer(HttpCache::new(&backend).layers()),
            );
        for (method, path, field, expected) in [
            ("GET", "/", ("origin", "https://a.example"), (200, "hello")),
            ("POST", "/", ("sec-fetch-site", "same-origin"), (200, "done")),
            ("POST", "/", ("sec-fetch-site", "cross-site"), (403, "")),
            ("OPTIONS", "/", ("access-control-request-method", "GET"), (200, "")),
            ("GET", "/slow", ("accept", "*/*"), (504, "")),
        ] {
            let request = http::Request::builder().method(method).uri(path).header(field.0, field.1);
            let answer = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(answer.headers()["access-control-allow-origin"], "*", "{method} {path}");
            let status = answer.status().as_u16();
            let content = to_bytes(answer.into_body(), 100).await.unwrap();
            assert_eq!((status, &content[..]), (expected.0, expected.1.as_bytes()), "{method} {path} {field:?}");
        }
    }
}
