//! What browsers are told, and when.

use http::{StatusCode, header};
use tower_gatehouse::{
    Backend,
    session::{KeyRing, SessionLayer},
};

use crate::app::App;

#[tokio::test]
async fn nobody_gets_a_cookie_before_something_is_written() {
    let client = App::new(&Backend::memory()).client();
    for path in ["/", "/read", "/me"] {
        assert!(!client.get(path).await.headers().contains_key(header::SET_COOKIE), "{path}");
    }
    let response = client.post("/visit").await;
    let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    // Whole seconds of what is left of the hour.
    assert!(cookie.contains("Max-Age=3600") || cookie.contains("Max-Age=3599"), "{cookie}");
    for part in ["__Host-sid=", "HttpOnly", "SameSite=Lax", "Secure", "Path=/"] {
        assert!(cookie.contains(part), "{cookie} has no {part}");
    }
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    let response = client.post("/visit").await;
    assert!(!response.headers().contains_key(header::SET_COOKIE), "once is enough");
}

#[tokio::test]
async fn everybody_gets_one_at_once_by_choice() {
    let backend = Backend::memory();
    let client = App::with(SessionLayer::new(&backend, KeyRing::ephemeral()).begin_at_once()).client();
    client.ok("GET", "/").await;
    let token = client.token().expect("a session from the first request on");
    client.ok("POST", "/visit").await;
    assert_eq!(client.token().unwrap(), token);
    assert_eq!(client.json::<crate::app::Shop>("/read").await.visits, 1);
    // So nobody is without one where it is required.
    let client = App::with(SessionLayer::new(&backend, KeyRing::ephemeral()).begin_at_once().required()).client();
    client.ok("GET", "/").await;
    assert!(client.token().is_some());
}

#[tokio::test]
async fn a_cookie_that_is_of_no_use_is_expired() {
    let client = App::new(&Backend::memory()).client();
    *client.cookie.lock().unwrap() = Some("planted".into());
    let response = client.get("/").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers()[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
}

#[tokio::test]
async fn where_a_session_is_required_the_answer_is_401_and_the_cookie_expired() {
    let layer = SessionLayer::new(&Backend::memory(), KeyRing::ephemeral()).required_under("/me").required_with_user();
    let client = App::with(layer).client();
    assert_eq!(client.get("/").await.status(), StatusCode::OK);
    let response = client.get("/me").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
    assert!(!response.headers().contains_key(header::SET_COOKIE));
    client.ok("POST", "/visit").await;
    assert_eq!(client.get("/me").await.status(), StatusCode::UNAUTHORIZED, "anonymous is not enough");
    client.ok("POST", "/login/ann").await;
    assert_eq!(client.ok("GET", "/me").await, "ann");
    let dead = client.twin();
    client.ok("POST", "/logout").await;
    let response = dead.get("/me").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(response.headers()[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
}

#[tokio::test]
async fn a_path_below_nest_is_the_one_that_the_client_sent() {
    let layer = SessionLayer::new(&Backend::memory(), KeyRing::ephemeral()).required_under("account");
    let app = App(axum::Router::new().nest("/account", crate::app::routes().layer(layer)));
    assert_eq!(app.client().get("/account/me").await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_logout_expires_the_cookie() {
    let client = App::new(&Backend::memory()).client();
    client.ok("POST", "/login/ann").await;
    let response = client.post("/logout").await;
    assert!(response.headers()[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(client.token(), None);
}
