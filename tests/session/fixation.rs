//! Nobody can make somebody else use a session that he knows.

use std::sync::Arc;

use axum::routing::post;
use http::{Request, StatusCode, header};
use tokio::sync::Barrier;
use tower_gatehouse::{
    Backend,
    session::{KeyRing, Session, SessionLayer, Source},
};

use crate::app::{App, Login, Shop, backends, routes};

fn key(n: u8) -> KeyRing {
    KeyRing::new([n; 32]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_before_the_login_is_dead_after_it() {
    for backend in backends().await {
        let client = App::new(&backend).client();
        client.ok("POST", "/visit").await;
        let planted = client.twin();
        client.ok("POST", "/login/ann").await;
        assert_ne!(client.token(), planted.token());
        assert_eq!(client.json::<Shop>("/read").await.visits, 1, "what the visitor did is kept");
        assert_eq!(planted.ok("GET", "/me").await, "");
        assert_eq!(planted.json::<Shop>("/read").await.visits, 0, "{}", backend.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_privileges_makes_the_old_token_useless() {
    for backend in backends().await {
        let client = App::new(&backend).client();
        client.ok("POST", "/login/ann").await;
        let stolen = client.twin();
        client.ok("POST", "/cycle").await;
        assert_eq!(stolen.ok("GET", "/me").await, "");
        assert_eq!(client.ok("GET", "/me").await, "ann");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_s_login_takes_nothing_over() {
    for backend in backends().await {
        let client = App::new(&backend).client();
        client.ok("POST", "/login/ann").await;
        client.ok("POST", "/put/secret/ann").await;
        let ann = client.twin();
        client.ok("POST", "/login/bob").await;
        assert_eq!(client.ok("GET", "/me").await, "bob");
        assert!(!client.ok("GET", "/all").await.contains("secret"));
        assert_eq!(ann.ok("GET", "/me").await, "", "and ends hers on this machine");
    }
}

/// As a form that is sent twice.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_logins_at_once_both_keep_what_the_visitor_has_done() {
    for backend in backends().await {
        let both = Arc::new(Barrier::new(2));
        let twice = post(async move |s: Session<Login>| {
            let login = s.begin_login("ann").await?;
            s.load().await?;
            both.wait().await;
            login.finish(|login| login.since = 7).await
        });
        let app = App(routes().route("/twice", twice).layer(SessionLayer::new(&backend, key(7))));
        let one = app.client();
        one.ok("POST", "/visit").await;
        let (old, two) = (one.twin(), one.twin());
        tokio::join!(one.ok("POST", "/twice"), two.ok("POST", "/twice"));
        for client in [one, two] {
            assert_eq!(client.ok("GET", "/me").await, "ann", "{}", backend.name());
            assert_eq!(client.json::<Shop>("/read").await.visits, 1, "{}", backend.name());
            assert!(client.ok("GET", "/all").await.contains(r#""since":7"#));
        }
        assert_eq!(old.json::<Shop>("/read").await.visits, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_the_client_s_choice_is_never_adopted() {
    for backend in backends().await {
        let app = App::new(&backend);
        // One that we made, but whose session has ended; and ones that nobody made.
        let dead = app.client();
        dead.ok("POST", "/visit").await;
        let ended = dead.token().unwrap();
        dead.ok("POST", "/logout").await;
        for token in [ended, "A".repeat(43), "chosen".into(), String::new()] {
            let client = app.client();
            *client.cookie.lock().unwrap() = Some(token.clone());
            client.ok("POST", "/visit").await;
            let given = client.token().expect("a session of its own");
            assert_ne!(given, token);
            assert_eq!(client.json::<Shop>("/read").await.visits, 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_outlive_a_rotation_until_the_old_key_goes() {
    for backend in backends().await {
        let app = |keys| App::with(SessionLayer::new(&backend, keys));
        let with_old = app(key(1)).client();
        with_old.ok("POST", "/login/ann").await;
        let mut client = with_old.twin();
        // The new key is known everywhere before it signs, then signs, then is alone.
        client.app = app(key(1).accept([2; 32]).unwrap());
        assert_eq!(client.ok("GET", "/me").await, "ann");
        client.app = app(key(2).accept([1; 32]).unwrap());
        assert_eq!(client.ok("GET", "/me").await, "ann");
        let fresh = client.app.client();
        fresh.ok("POST", "/login/bob").await;
        let mut fresh = fresh.twin();
        client.app = app(key(2));
        fresh.app = app(key(2));
        assert_eq!(client.ok("GET", "/me").await, "");
        assert_eq!(fresh.ok("GET", "/me").await, "bob");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bearer_client_gets_its_token_in_a_field() {
    for backend in backends().await {
        let layer = SessionLayer::new(&backend, key(1)).sources([Source::Bearer]).required_under("/me");
        let app = App::with(layer);
        let send = async |method: &str, path: &str, token: Option<&str>| {
            let mut request = Request::builder().method(method).uri(path);
            if let Some(token) = token {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            app.send(request.body(axum::body::Body::empty()).unwrap()).await
        };
        let response = send("POST", "/visit", None).await;
        let token = response.headers()["x-auth-token"].to_str().unwrap().to_owned();
        assert_eq!(response.headers()[header::ACCESS_CONTROL_EXPOSE_HEADERS], "x-auth-token");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        assert!(!response.headers().contains_key(header::SET_COOKIE));
        assert!(response.body().is_empty(), "never in a body");
        let response = send("POST", "/login/ann", Some(&token)).await;
        let cycled = response.headers()["x-auth-token"].to_str().unwrap().to_owned();
        assert_eq!(send("GET", "/me", Some(&cycled)).await.body(), "ann");

        // The dead one, a forged one, and none at all (RFC 6750, section 3.1).
        let forged = key(9);
        assert_eq!(format!("{forged:?}"), "KeyRing { keys: 1, .. }");
        for bad in [&token[..], &"A".repeat(43), "abc.def"] {
            let response = send("GET", "/me", Some(bad)).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            assert_eq!(response.headers()[header::WWW_AUTHENTICATE], r#"Bearer error="invalid_token""#);
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        }
        let response = send("GET", "/me", None).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
        let response = send("GET", "/", Some("a b")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn who_sent_nothing_gets_the_token_in_every_way_and_who_sent_a_cookie_in_a_cookie() {
    let layer = SessionLayer::new(&Backend::memory(), key(1)).sources([Source::Bearer, Source::Cookie]);
    let client = App::with(layer).client();
    let both = client.post("/login/ann").await;
    assert!(both.headers().contains_key("x-auth-token") && both.headers().contains_key(header::SET_COOKIE));
    let cookie = client.post("/cycle").await;
    assert!(!cookie.headers().contains_key("x-auth-token") && cookie.headers().contains_key(header::SET_COOKIE));
}
