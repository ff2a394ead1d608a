//! What a reviewer found: failures half-way, what is told by reference, a new token's limits, ids of changes.

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
    routing::{any, get, post},
};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};
use tower::Layer as _;
use tower_gatehouse::{
    Backend, Problem,
    backend::{Changes, Saved},
    rate_limit::{Key, Quota, RateLimitLayer},
    session::{
        Claims, ForwardSessionLayer, KeyRing, Session, SessionError, SessionLayer, Sessions, SharedData, SharedMap,
        VerifySessionLayer,
    },
};

use crate::{
    app::{App, Shop, backends, namespace, patient, routes},
    support::RedisServer,
};

fn keys() -> KeyRing {
    KeyRing::new([7; 32]).unwrap()
}

/// The application with one more path.
fn with(backend: &Backend, more: Router) -> App {
    App(routes().merge(more).layer(SessionLayer::new(backend, keys())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_given_is_delivered_although_a_later_change_fails() {
    let server = Arc::new(RedisServer::builder().config("maxmemory-policy noeviction").start());
    let backend = patient(server.url()).namespace(namespace()).connect().await.unwrap();
    let full = Arc::clone(&server);
    let login = async move |s: Session| {
        s.login("ann", |_| {}).await?;
        s.insert("theme", "dark").await?;
        drop(full.command(&["CONFIG", "SET", "maxmemory", "1"]));
        Ok::<_, SessionError>(StatusCode::NO_CONTENT)
    };
    let client = with(&backend, Router::new().route("/login-and-full", post(login))).client();
    client.ok("POST", "/visit").await;
    let before = client.token();
    let response = client.post("/login-and-full").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "the change is lost, and the client is told");
    assert!(response.headers().contains_key("set-cookie"));
    assert!(client.token().is_some_and(|token| Some(token) != before));
    drop(server.command(&["CONFIG", "SET", "maxmemory", "0"]));
    assert_eq!(client.ok("GET", "/me").await, "ann");
    assert_eq!(client.json::<Shop>("/read").await, Shop { visits: 1, ..Shop::default() });
}

#[tokio::test]
async fn what_was_changed_before_a_login_that_is_refused_is_stored() {
    for backend in backends().await {
        let sessions = Sessions::new(&backend);
        let refused = async move |s: Session| {
            s.insert("theme", "dark").await?;
            let login = s.begin_login("ann").await?;
            sessions.revoke_all("ann").await?;
            let finished = login.finish(|_| {}).await;
            assert!(matches!(finished, Err(SessionError::Revoked)), "{finished:?}");
            Ok::<_, SessionError>(StatusCode::FORBIDDEN)
        };
        let app = with(&backend, Router::new().route("/refused", post(refused)));
        let (visitor, newcomer) = (app.client(), app.client());
        visitor.ok("POST", "/visit").await;
        for (client, visits) in [(visitor, 1), (newcomer, 0)] {
            assert_eq!(client.post("/refused").await.status(), StatusCode::FORBIDDEN);
            let shop = Shop { theme: "dark".into(), visits };
            assert_eq!(client.json::<Shop>("/read").await, shop, "{}", backend.name());
            assert_eq!(client.ok("GET", "/me").await, "");
        }
    }
}

#[tokio::test]
async fn a_session_that_gets_too_large_in_the_store_is_no_outage() {
    for backend in backends().await {
        let store = backend.clone();
        let large = async move |s: Session| {
            let key = s.info().await?.expect("a session").handle;
            // Others fill it up, which this request does not know.
            let value = Bytes::from(json!("x".repeat(4000)).to_string());
            let set = ["a", "b", "c"].map(|name| (name.into(), value.clone()));
            let saved = store.commit_record(&key, Changes { set: &set, remove: &[] }, None).await;
            assert!(matches!(saved, Ok(Saved::Done(_))), "{saved:?}");
            for name in ["d", "e", "f"] {
                s.insert(name, "x".repeat(4000)).await?;
            }
            let saved = s.save().await;
            assert!(matches!(saved, Err(SessionError::TooLarge(_))), "{saved:?}");
            saved
        };
        let client = with(&backend, Router::new().route("/large", post(large))).client();
        client.ok("POST", "/login/ann").await;
        let response = client.post("/large").await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{}", backend.name());
        let all: Map<String, Value> = client.json("/all").await;
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b", "c", "since"], "{}: all or nothing", backend.name());
    }
}

/// A gateway that keeps notes as long as the query says, in front of a service that tells how long they are.
fn notes(backend: &Backend) -> App {
    async fn keep(s: Session, request: Request, next: Next) -> Result<Response, SessionError> {
        if let Some(length) = request.uri().query() {
            s.insert("notes", "n".repeat(length.parse().unwrap())).await?;
        }
        Ok(next.run(request).await)
    }

    let told = any(async |claims: Claims| {
        let data: Value = claims.data().await.map_err(Problem::from)?;
        Ok::<_, Problem>(data["notes"].as_str().map_or(0, str::len).to_string())
    });
    let verify = VerifySessionLayer::new(keys().for_audience("orders")).backend(backend);
    let service = Router::new().route("/orders", told).layer(verify);
    let service = ForwardSessionLayer::new("orders", &keys()).fields(["notes"]).layer(service);
    with(backend, Router::new().route_service("/orders", service).layer(from_fn(keep)))
}

#[tokio::test]
async fn a_service_sees_what_was_changed_in_the_same_request_also_by_reference() {
    for backend in backends().await {
        let app = notes(&backend);
        let client = app.client();
        client.ok("POST", "/login/ann").await;
        for length in ["10", "4000"] {
            let told = client.ok("GET", &format!("/orders?{length}")).await;
            assert_eq!(told, length, "{}", backend.name());
            assert_eq!(client.ok("GET", "/orders").await, length, "{}: later, too", backend.name());
        }
    }
}

#[tokio::test]
async fn a_service_is_told_by_reference_of_a_session_that_begins_with_the_request() {
    for backend in backends().await {
        let newcomer = notes(&backend).client();
        let response = newcomer.get("/orders?4000").await;
        assert_eq!((response.status(), &**response.body()), (StatusCode::OK, "4000"), "{}", backend.name());
        assert!(response.headers().contains_key("set-cookie"));
        assert_eq!(newcomer.ok("GET", "/orders").await, "4000", "{}", backend.name());
    }
}

/// As deep as it is read from a client.
#[tokio::test]
async fn what_nests_deeply_is_told_by_reference() {
    let deep: Value = serde_json::from_str(&format!("{}{}", "[".repeat(127), "]".repeat(127))).unwrap();
    let kept = deep.clone();
    let keep = Router::new().route("/deep", post(async move |s: Session| s.insert("draft", kept).await));
    let backend = Backend::memory();
    let orders = async move |claims: Claims| {
        let data: Value = claims.data().await.map_err(Problem::from)?;
        Ok::<_, Problem>(if data["draft"] == deep { "all of it" } else { "less" })
    };
    let verify = VerifySessionLayer::new(keys().for_audience("orders")).backend(&backend);
    let orders = Router::new().route("/orders", get(orders)).layer(verify);
    let orders = ForwardSessionLayer::new("orders", &keys()).fields(["draft"]).layer(orders);
    let client = with(&backend, keep.route_service("/orders", orders)).client();
    client.ok("POST", "/login/ann").await;
    client.ok("POST", "/deep").await;
    assert_eq!(client.ok("GET", "/orders").await, "all of it");
}

#[tokio::test]
async fn a_limit_by_session_does_not_begin_anew_with_a_new_token() {
    let backend = Backend::memory();
    let limit = RateLimitLayer::new(&backend, "session", Key::session(), Quota::per_hour(2));
    let limited = Router::new().route("/limited", get(async || "in")).layer(limit);
    let client = with(&backend, limited).client();
    client.ok("POST", "/login/ann").await;
    client.ok("GET", "/limited").await;
    client.ok("GET", "/limited").await;
    for _ in 0..3 {
        assert_eq!(client.get("/limited").await.status(), StatusCode::TOO_MANY_REQUESTS);
        let before = client.token();
        client.ok("POST", "/cycle").await;
        assert_ne!(client.token(), before);
    }
}

#[tokio::test]
async fn one_id_for_different_changes_of_a_map_stops_none_of_them() {
    struct Cart;

    impl SharedData for Cart {
        const NAME: &'static str = "cart";
        type Value = u32;
    }

    for backend in backends().await {
        let cart = SharedMap::<Cart>::open(&backend, "ann");
        let once = cart.once("an id");
        assert_eq!(once.incr("mug", 3, ..).await.unwrap(), 3, "{}", backend.name());
        assert_eq!(once.take(None).await.unwrap().fields, [("mug".into(), 3)].into(), "{}", backend.name());
        once.set("cap", &9).await.unwrap();
        assert_eq!(once.incr("mug", 3, ..).await.unwrap(), 3, "{}: the result of the first", backend.name());
        let left = cart.get_all().await.unwrap().fields;
        assert_eq!(left, [("cap".into(), 9)].into(), "{}: it was not done again", backend.name());
    }
}
