//! What a session's answer tells caches.

use axum::{Router, routing::get};
use http::header::{self, CACHE_CONTROL};
use tower_gatehouse::{
    Backend, Personal,
    session::{KeyRing, Session, SessionError, SessionLayer},
};

use crate::app::{App, routes};

#[tokio::test]
async fn an_answer_that_depends_on_the_session_is_private_and_marked() {
    let keys = KeyRing::ephemeral();
    let backend = Backend::memory();
    let reads = async |s: Session| {
        Ok::<_, SessionError>(([(CACHE_CONTROL, "max-age=60")], s.user().await?.unwrap_or_default()))
    };
    let public = async |s: Session| {
        s.user().await?;
        Ok::<_, SessionError>([(CACHE_CONTROL, "public, max-age=60")])
    };
    let more = Router::new()
        .route("/reads", get(reads))
        .route("/public", get(public))
        .route("/handle-only", get(async |_: Session| [(CACHE_CONTROL, "max-age=60")]));
    let app = App(routes().merge(more).layer(SessionLayer::new(&backend, keys)));
    let client = app.client();
    client.ok("POST", "/login/ann").await;
    let is_marked =
        |response: &http::Response<String>| response.extensions().get::<Personal>().is_some_and(Personal::is_marked);
    let controls = |response: &http::Response<String>| {
        response
            .headers()
            .get_all(CACHE_CONTROL)
            .iter()
            .map(|value| value.to_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };

    let response = client.get("/reads").await;
    assert!(is_marked(&response));
    assert_eq!(controls(&response), ["max-age=60", "private"]);
    let response = client.get("/me").await;
    assert!(is_marked(&response));
    assert_eq!(controls(&response), ["private"]);
    let response = client.get("/public").await;
    assert!(is_marked(&response), "whether public weighs more is for caches to say");
    assert_eq!(controls(&response), ["public, max-age=60"]);
    for path in ["/", "/handle-only"] {
        let response = client.get(path).await;
        assert!(!is_marked(&response), "{path} does not ask who it is");
        assert!(!controls(&response).contains(&"private".to_owned()));
    }
    // Nobody's answer is for nobody else: it would say so to everybody.
    assert!(is_marked(&app.client().get("/reads").await));
}

#[tokio::test]
async fn what_only_those_with_a_session_get_is_private_outside_of_the_layer_and_not_inside() {
    let inside = std::sync::Arc::new(std::sync::Mutex::new(None));
    let seen = inside.clone();
    let looks = tower::util::MapRequestLayer::new(move |request: axum::extract::Request| {
        *seen.lock().unwrap() = request.extensions().get::<Personal>().cloned();
        request
    });
    let layer = SessionLayer::new(&Backend::memory(), KeyRing::ephemeral()).required_under("/members");
    let app = App(routes().route("/members", get(async || "news")).layer(looks).layer(layer));
    let client = app.client();
    client.ok("POST", "/login/ann").await;
    let response = client.get("/members").await;
    assert_eq!(response.headers()[CACHE_CONTROL], "private");
    assert!(response.extensions().get::<Personal>().unwrap().is_marked());
    assert!(!inside.lock().unwrap().as_ref().unwrap().is_marked(), "caches within may share it among members");
    let response = app.client().get("/members").await;
    assert_eq!((response.status().as_u16(), &response.headers()[CACHE_CONTROL]), (401, &"no-store".parse().unwrap()));
    assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
}
