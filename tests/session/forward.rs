//! What services behind the gateway are told.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::Request,
    routing::{any, get},
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};
use tower_gatehouse::{
    Backend, Identity, Personal, Problem, TestClock,
    rate_limit::{Key, Quota, RateLimitLayer},
    session::{
        Authenticated, Claims, ForwardSessionLayer, KeyRing, SessionLayer, SharedData, SharedMap, Source,
        VerifySessionLayer,
    },
};

use crate::app::{App, backends, routes};

/// An upstream that keeps what it was sent.
#[derive(Clone, Default)]
struct Upstream(Arc<Mutex<Vec<HeaderMap>>>);

impl Upstream {
    fn router(&self, forward: ForwardSessionLayer) -> Router {
        let seen = self.clone();
        let handler = any(async move |request: Request| {
            seen.0.lock().unwrap().push(request.headers().clone());
            let status = match request.uri().path() {
                "/up/error" => StatusCode::BAD_GATEWAY,
                "/up/upgrade" => StatusCode::SWITCHING_PROTOCOLS,
                _ => StatusCode::OK,
            };
            (status, "")
        });
        Router::new().route("/up/{*rest}", handler).route_layer(forward)
    }

    fn last(&self) -> HeaderMap {
        self.0.lock().unwrap().pop().expect("a request")
    }
}

fn keys() -> KeyRing {
    KeyRing::new([5; 32]).unwrap()
}

/// A gateway with a login, in front of a router.
fn gateway(backend: &Backend, behind: Router) -> App {
    App(routes().merge(behind).layer(SessionLayer::new(backend, keys()).sources([Source::Bearer, Source::Cookie])))
}

fn request(path: &str, fields: &[(&str, &str)]) -> http::Request<axum::body::Body> {
    let mut request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
    }
    request
}

fn payload(field: &HeaderValue) -> Value {
    use base64::Engine as _;
    let payload = field.to_str().unwrap().split('.').nth(2).unwrap().to_owned();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn a_service_sees_exactly_one_field_and_it_is_ours_whatever_the_client_sent() {
    let upstream = Upstream::default();
    let app = gateway(&Backend::memory(), upstream.router(ForwardSessionLayer::new("orders", &keys())));
    let client = app.client();
    client.ok("POST", "/login/ann").await;
    let cookie = format!("a=1; __Host-sid={}; b=2", client.token().unwrap());
    for path in ["/up/public", "/up/error", "/up/upgrade"] {
        for cookie in [None, Some(&*cookie)] {
            let mut sent = vec![
                ("x-session", "forged"),
                ("X-SESSION", "forged"),
                ("X_Session", "forged"),
                ("x_session", "forged"),
                ("connection", "close, X-Session, x_session, upgrade"),
            ];
            sent.extend(cookie.map(|cookie| ("cookie", cookie)));
            app.send(request(path, &sent)).await;
            let seen = upstream.last();
            let like: Vec<_> = seen.keys().filter(|name| name.as_str().replace('_', "-") == "x-session").collect();
            assert_eq!(like, ["x-session"], "{path}");
            assert_eq!(seen.get_all("x-session").iter().count(), 1);
            assert_ne!(seen["x-session"], "forged");
            assert_eq!(seen[header::CONNECTION], "close, upgrade");
            let payload = payload(&seen["x-session"]);
            assert_eq!(payload["sub"], cookie.map_or(Value::Null, |_| "ann".into()));
            assert_eq!((&payload["aud"], &payload["m"]), (&json!("orders"), &json!("GET")));
            // Our cookie is not for services; others are.
            assert_eq!(seen.get(header::COOKIE).map(|value| value.to_str().unwrap()), cookie.map(|_| "a=1; b=2"));
        }
    }
    let bearer = format!("Bearer {}", client.token().unwrap());
    app.send(request("/up/x", &[("authorization", &bearer)])).await;
    let seen = upstream.last();
    assert!(!seen.contains_key(header::AUTHORIZATION));
    assert_eq!(payload(&seen["x-session"])["sub"], "ann");
    app.send(request("/up/x", &[("authorization", "Basic dTpw")])).await;
    assert_eq!(upstream.last()[header::AUTHORIZATION], "Basic dTpw", "what is not ours goes on");
}

#[tokio::test]
async fn a_handler_of_the_gateway_never_sees_the_client_s_field_either() {
    let seen = Upstream::default();
    let keep = seen.clone();
    let handler = get(async move |headers: HeaderMap| keep.0.lock().unwrap().push(headers));
    let app = gateway(&Backend::memory(), Router::new().route("/local", handler));
    app.send(request("/local", &[("x_session", "forged"), ("x-session", "forged"), ("x-sessions", "kept")])).await;
    let seen = seen.last();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen["x-sessions"], "kept");
}

#[tokio::test]
async fn our_bearer_token_stays_here_also_where_the_cookie_decides() {
    let upstream = Upstream::default();
    let layer = SessionLayer::new(&Backend::memory(), keys()).sources([Source::Cookie, Source::Bearer]);
    let app = App(routes().merge(upstream.router(ForwardSessionLayer::new("orders", &keys()))).layer(layer));
    let client = app.client();
    client.ok("POST", "/login/ann").await;
    let token = client.token().unwrap();
    for (bearer, stays) in [(&*token, false), ("abc.def", true)] {
        let fields = [("cookie", &*format!("__Host-sid={token}")), ("authorization", &*format!("Bearer {bearer}"))];
        assert_eq!(app.send(request("/up/x", &fields)).await.status(), StatusCode::OK);
        assert_eq!(upstream.last().contains_key(header::AUTHORIZATION), stays, "{bearer}");
    }
}

#[tokio::test]
async fn without_the_session_layer_the_answer_names_it() {
    let upstream = Upstream::default();
    let app = App(upstream.router(ForwardSessionLayer::new("orders", &keys())));
    let response = app.send(request("/up/x", &[])).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(response.body().contains("SessionLayer"), "{}", response.body());
    assert!(upstream.0.lock().unwrap().is_empty());
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Roles {
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    notes: String,
}

struct Cart;

impl SharedData for Cart {
    const NAME: &'static str = "cart";
    type Value = u32;
}

/// A service behind the gateway, and the gateway's layer in front of it, in one process.
fn service(name: &str, backend: &Backend, verify: VerifySessionLayer) -> Router {
    let routes = Router::new()
        .route("/{service}/who", any(async |claims: Claims| claims.user().unwrap_or("nobody").to_owned()))
        .route(
            "/{service}/roles",
            get(async |who: Authenticated<Roles>| Json(json!([who.user, who.data.roles, who.data.notes.len()]))),
        )
        .route(
            "/{service}/cart",
            get(async |cart: SharedMap<Cart>| Ok::<_, Problem>(Json(cart.incr("mug", 1, 0..=99).await?))),
        );
    let _ = (name, backend);
    routes.layer(verify)
}

#[tokio::test(flavor = "multi_thread")]
async fn services_know_who_is_asking_and_share_carts() {
    for backend in backends().await {
        let mut behind = Router::new();
        for name in ["orders", "shop"] {
            let verify = VerifySessionLayer::new(keys().for_audience(name)).backend(&backend);
            let forward = ForwardSessionLayer::new(name, &keys()).fields(["roles", "notes"]);
            let service = service(name, &backend, verify);
            let service = ServiceBuilder::new().layer(forward).service(service);
            behind = behind.route(&format!("/{name}/{{*rest}}"), axum::routing::any_service(service));
        }
        let behind = behind.route(
            "/grant",
            axum::routing::post(async |s: tower_gatehouse::session::Session| {
                s.insert("roles", ["admin"]).await?;
                s.insert("notes", "n".repeat(4000)).await?;
                s.insert("private", "not for services").await
            }),
        );
        let app = gateway(&backend, behind);
        let client = app.client();
        assert_eq!(client.ok("GET", "/orders/who").await, "nobody");
        assert_eq!(client.get("/orders/roles").await.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(client.get("/orders/cart").await.status(), StatusCode::UNAUTHORIZED, "no session, no cart");
        client.ok("POST", "/visit").await;
        assert_eq!(client.ok("GET", "/orders/cart").await, "1", "an anonymous session has one");
        client.ok("POST", "/cycle").await;
        assert_eq!(client.ok("GET", "/shop/cart").await, "2");
        client.ok("POST", "/login/ann").await;
        assert_eq!(client.ok("GET", "/orders/who").await, "ann");
        assert_eq!(client.ok("GET", "/orders/roles").await, r#"["ann",[],0]"#);
        client.ok("POST", "/grant").await;
        // More than 4 KiB: by reference, and the service loads it.
        assert_eq!(client.ok("GET", "/orders/roles").await, r#"["ann",["admin"],4000]"#, "{}", backend.name());
        for n in 1..5 {
            let cart = client.ok("GET", if n % 2 == 0 { "/orders/cart" } else { "/shop/cart" }).await;
            assert_eq!(cart, n.to_string());
        }
        assert_eq!(SharedMap::<Cart>::open(&backend, "ann").get("mug").await.unwrap(), Some(4));
    }
}

#[tokio::test]
async fn the_field_of_a_large_session_stays_below_4_kib_and_names_what_is_to_be_loaded() {
    let upstream = Upstream::default();
    let forward = ForwardSessionLayer::new("orders", &keys()).fields(["a", "b", "theme"]);
    let app = gateway(&Backend::memory(), upstream.router(forward));
    let client = app.client();
    client.ok("POST", "/theme/dark").await;
    client.ok("GET", "/up/x").await;
    assert_eq!(payload(&upstream.last()["x-session"])["d"], json!({"theme": "dark"}), "what is allowed, and no more");
    client.ok("POST", &format!("/put/a/{}", "x".repeat(2000))).await;
    client.ok("POST", &format!("/put/b/{}", "x".repeat(2000))).await;
    client.ok("GET", "/up/x").await;
    let field = &upstream.last()["x-session"];
    assert!(field.len() < 4096);
    let payload = payload(field);
    assert_eq!((payload.get("d"), &payload["r"]), (None, &json!(["a", "b", "theme"])));
}

#[tokio::test]
async fn what_is_tampered_with_expired_from_the_future_or_for_others_is_refused() {
    let clock = TestClock::new();
    let backend = Backend::memory_with(&clock);
    let upstream = Upstream::default();
    let client = gateway(&backend, upstream.router(ForwardSessionLayer::new("up", &keys()))).client();
    client.ok("POST", "/login/ann").await;
    client.ok("GET", "/up/who").await;
    let field = upstream.last()["x-session"].to_str().unwrap().to_owned();
    let verify = |name: &str| VerifySessionLayer::new(keys().for_audience(name)).clock(&clock);
    let (up, other) = (service("up", &backend, verify("up")), service("other", &backend, verify("other")));
    let ask = async |service: &Router, path: &str, fields: &[(&str, &str)]| -> Response<axum::body::Body> {
        service.clone().oneshot(request(path, fields)).await.unwrap()
    };
    let status =
        async |service: &Router, path: &str, fields: &[(&str, &str)]| ask(service, path, fields).await.status();
    let good = [("x-session", &*field)];
    assert_eq!(status(&up, "/up/who", &good).await, StatusCode::OK);
    assert_eq!(status(&up, "/up/who?with=query", &good).await, StatusCode::OK);

    assert_eq!(status(&other, "/up/who", &good).await, StatusCode::UNAUTHORIZED, "another service");
    assert_eq!(status(&up, "/up/roles", &good).await, StatusCode::UNAUTHORIZED, "another path");
    let mut post = request("/up/who", &good);
    *post.method_mut() = http::Method::POST;
    assert_eq!(up.clone().oneshot(post).await.unwrap().status(), StatusCode::UNAUTHORIZED, "another method");
    let doubled = [("x-session", &*field), ("x-session", &*field)];
    assert_eq!(status(&up, "/up/who", &doubled).await, StatusCode::UNAUTHORIZED, "twice");
    let alike = [("x-session", &*field), ("x_session", "forged")];
    assert_eq!(status(&up, "/up/who", &alike).await, StatusCode::UNAUTHORIZED, "with a look-alike");
    assert_eq!(status(&up, "/up/who", &[]).await, StatusCode::UNAUTHORIZED, "not through the gateway");
    for at in (0..field.len()).step_by(7) {
        let mut tampered = field.clone().into_bytes();
        tampered[at] = if tampered[at] == b'A' { b'B' } else { b'A' };
        let tampered = String::from_utf8(tampered).unwrap();
        assert_eq!(status(&up, "/up/who", &[("x-session", &tampered)]).await, StatusCode::UNAUTHORIZED, "byte {at}");
    }
    let now = clock.now();
    clock.set(now.minus(Duration::from_secs(7)));
    assert_eq!(status(&up, "/up/who", &good).await, StatusCode::UNAUTHORIZED, "from the future");
    clock.set(now.plus(Duration::from_secs(36)));
    let late = ask(&up, "/up/who", &good).await;
    assert_eq!(late.status(), StatusCode::UNAUTHORIZED, "expired");
    assert_eq!(late.headers()[header::WWW_AUTHENTICATE], r#"Bearer error="invalid_token""#);
}

/// A router of the gateway strips a prefix, and the service is in the same process.
#[tokio::test]
async fn a_service_in_the_gateways_process_knows_who_is_asking_under_a_prefix_too() {
    let handler = any(async |claims: Claims| claims.user().unwrap_or("nobody").to_owned());
    let service = Router::new().route("/orders/{id}", handler);
    let service = service.layer(VerifySessionLayer::new(keys().for_audience("orders")));
    let service = ForwardSessionLayer::new("orders", &keys()).layer(service);
    let client = gateway(&Backend::memory(), Router::new().nest_service("/api", service)).client();
    client.ok("POST", "/login/ann").await;
    assert_eq!(client.ok("GET", "/api/orders/1").await, "ann");
}

/// In front of a service that is a process of its own: what travels is a request's head and body.
fn travels() -> tower::util::MapRequestLayer<impl Fn(Forwarded) -> Request + Clone> {
    tower::util::MapRequestLayer::new(|mut request: Forwarded| {
        request.extensions_mut().clear();
        request.map(axum::body::Body::new)
    })
}

type Forwarded = http::Request<tower_gatehouse::session::ForwardedBody<axum::body::Body>>;

#[tokio::test]
async fn a_service_in_a_process_of_its_own_can_limit_by_user_and_by_session() {
    for key in [Key::user(), Key::session()] {
        let limit = RateLimitLayer::new(&Backend::memory(), "few", key.clone(), Quota::per_hour(2).burst(2));
        let service = Router::new().route("/up/x", get(async || "hello")).layer(limit);
        let service = service.layer(VerifySessionLayer::new(keys().for_audience("up")));
        let service =
            ServiceBuilder::new().layer(ForwardSessionLayer::new("up", &keys())).layer(travels()).service(service);
        let app = gateway(&Backend::memory(), Router::new().route_service("/up/x", service));
        let (ann, bob, nobody) = (app.client(), app.client(), app.client());
        for (client, login) in [(&ann, "/login/ann"), (&bob, "/login/bob")] {
            client.ok("POST", login).await;
        }
        for status in [StatusCode::OK, StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
            assert_eq!(ann.get("/up/x").await.status(), status, "{key:?}");
            // Another token does not make it another session.
            ann.ok("POST", "/cycle").await;
            assert_eq!(nobody.get("/up/x").await.status(), StatusCode::OK);
        }
        assert_eq!(bob.get("/up/x").await.status(), StatusCode::OK, "{key:?}");
    }
}

#[tokio::test]
async fn who_is_asking_marks_the_answer_of_a_service_for_those_who_read_it_and_not_for_layers() {
    for is_apart in [false, true] {
        let seen = Arc::new(Mutex::new(None));
        let keep = seen.clone();
        let looks = tower::util::MapRequestLayer::new(move |request: Request| {
            *keep.lock().unwrap() = Personal::of(request.extensions());
            request
        });
        let who = async |request: Request| {
            let identity = Identity::of(request.extensions()).unwrap().known().await.unwrap();
            identity.user().unwrap_or("nobody").to_owned()
        };
        let limit = RateLimitLayer::new(&Backend::memory(), "many", Key::user(), Quota::per_hour(100));
        let service = Router::new().route("/up/who", get(who)).route("/up/news", get(async || "news"));
        let service = service.layer(limit).layer(looks).layer(VerifySessionLayer::new(keys().for_audience("up")));
        let forward = ServiceBuilder::new().layer(ForwardSessionLayer::new("up", &keys()));
        let behind = Router::new();
        let behind = if is_apart {
            behind.route_service("/up/{*rest}", forward.layer(travels()).service(service))
        } else {
            behind.route_service("/up/{*rest}", forward.service(service))
        };
        let app = gateway(&Backend::memory(), behind);
        let is_marked = || seen.lock().unwrap().as_ref().is_some_and(Personal::is_marked);
        let (ann, nobody) = (app.client(), app.client());
        assert_eq!(nobody.ok("GET", "/up/news").await, "news");
        assert!(!is_marked(), "a limit by user has looked, no more: {is_apart}");
        let answer = nobody.get("/up/who").await;
        assert_eq!(answer.body(), "nobody");
        assert!(is_marked(), "{is_apart}");
        // In one process it is the session's mark.
        let control = answer.headers().get(header::CACHE_CONTROL).map(|value| value.to_str().unwrap());
        assert_eq!(control, (!is_apart).then_some("private"));
        ann.ok("POST", "/login/ann").await;
        assert_eq!(ann.ok("GET", "/up/who").await, "ann");
        assert!(is_marked(), "{is_apart}");
    }
}
