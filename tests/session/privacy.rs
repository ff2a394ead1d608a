//! What a session's answer tells caches.

use axum::{Router, extract::Request, routing::get};
use http::header::{self, CACHE_CONTROL};
use tower::util::MapRequestLayer;
use tower_gatehouse::{
    Backend, Identity, Personal,
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
    let asks = MapRequestLayer::new(|mut request: Request| {
        Personal::ask_for(request.extensions_mut());
        request
    });
    let app = App(routes().merge(more).layer(SessionLayer::new(&backend, keys)).layer(asks));
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
    let looks = MapRequestLayer::new(move |request: Request| {
        *seen.lock().unwrap() = Personal::of(request.extensions());
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

#[tokio::test]
async fn of_the_layers_that_say_who_is_asking_the_nearest_is_believed() {
    let who = async |request: Request| {
        let identity = Identity::of(request.extensions()).expect("every request has one");
        identity.known().await.unwrap().user().unwrap_or("nobody").to_owned()
    };
    let says = |user: &'static str| {
        MapRequestLayer::new(move |mut request: Request| {
            request.extensions_mut().insert(Identity::anonymous().with_user(user));
            request
        })
    };
    let session = SessionLayer::new(&Backend::memory(), KeyRing::ephemeral());
    let routes = || routes().route("/who", get(who));
    let inside = App(routes().layer(says("inside")).layer(session.clone()));
    assert_eq!(inside.client().get("/who").await.body(), "inside");
    let outside = App(routes().layer(session).layer(says("outside"))).client();
    assert_eq!(outside.get("/who").await.body(), "nobody");
    outside.ok("POST", "/login/ann").await;
    assert_eq!(outside.get("/who").await.body(), "ann");
}
