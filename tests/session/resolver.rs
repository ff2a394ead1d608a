//! Bearer tokens of others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, StatusCode, header};
use tower_gatehouse::{
    Backend, TestClock,
    session::{BearerToken, KeyRing, ResolveError, Resolved, SessionLayer, TokenResolver},
};

use crate::app::App;

/// 32 bytes of which the first is 1, in base64url.
const LIKE_OURS: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";

struct Authority(Arc<AtomicUsize>);

impl TokenResolver for Authority {
    async fn resolve(&self, token: &BearerToken) -> Result<Option<Resolved>, ResolveError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        match token.expose() {
            "down" => Err("the authority does not answer".into()),
            "ann" => {
                let data = serde_json::json!({"theme": "dark"});
                Ok(Some(Resolved::user("ann").data(data.as_object().unwrap().clone())))
            }
            LIKE_OURS => Ok(Some(Resolved::user("bob"))),
            _ => Ok(None),
        }
    }
}

#[tokio::test]
async fn a_foreign_token_is_a_session_that_cannot_be_changed() {
    let asked = Arc::new(AtomicUsize::new(0));
    let layer = SessionLayer::new(&Backend::memory(), KeyRing::ephemeral()).resolver(Authority(asked.clone()));
    let app = App::with(layer.required_under("/me"));
    let send = async |method: &str, path: &str, token: &str| {
        let request =
            Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        app.send(request.body(axum::body::Body::empty()).unwrap()).await
    };
    let all = futures_util::future::join_all((0..50).map(|_| send("GET", "/me", "ann"))).await;
    assert!(all.iter().all(|response| response.body() == "ann"));
    assert_eq!(asked.load(Ordering::SeqCst), 1, "fifty requests, one question");
    assert_eq!(send("GET", "/read", "ann").await.body(), r#"{"theme":"dark","visits":0}"#);
    assert_eq!(send("POST", "/visit", "ann").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(send("GET", "/me", LIKE_OURS).await.body(), "bob", "a token that only looks like ours");
    let response = send("GET", "/me", "bad").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()[header::WWW_AUTHENTICATE], r#"Bearer error="invalid_token""#);
    assert_eq!(send("GET", "/me", "down").await.status(), StatusCode::SERVICE_UNAVAILABLE, "never 401");
    assert_eq!(send("GET", "/read", "down").await.status(), StatusCode::SERVICE_UNAVAILABLE, "never anonymous");
}

/// Says how often it was asked, and that no token is good.
struct Refuses(Arc<AtomicUsize>, Duration);

impl TokenResolver for Refuses {
    async fn resolve(&self, _: &BearerToken) -> Result<Option<Resolved>, ResolveError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(None)
    }

    fn refused_for(&self) -> Duration {
        self.1
    }
}

#[tokio::test]
async fn for_how_long_a_refusal_is_remembered_is_for_the_resolver_to_say_up_to_a_minute() {
    for (seconds, asked) in [(0, 90), (10, 9), (60, 2), (3600, 2)] {
        let (count, clock) = (Arc::new(AtomicUsize::new(0)), TestClock::new());
        let resolver = Arc::new(Refuses(count.clone(), Duration::from_secs(seconds)));
        let layer = SessionLayer::new(&Backend::memory_with(&clock), KeyRing::ephemeral()).resolver(resolver);
        let app = App::with(layer.required());
        for _ in 0..90 {
            let request = Request::get("/me").header(header::AUTHORIZATION, "Bearer bad");
            let answer = app.send(request.body(axum::body::Body::empty()).unwrap()).await;
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(count.load(Ordering::SeqCst), asked, "{seconds} s");
    }
}

#[tokio::test]
async fn a_foreign_token_cannot_be_ended_here_whether_it_was_looked_at_or_not() {
    let layer = SessionLayer::new(&Backend::memory(), KeyRing::ephemeral()).resolver(Authority(Arc::default()));
    for layer in [layer.clone(), layer.eager()] {
        let app = App::with(layer);
        for (token, status) in [
            ("ann", StatusCode::INTERNAL_SERVER_ERROR),
            ("unknown", StatusCode::OK),
            ("down", StatusCode::SERVICE_UNAVAILABLE),
        ] {
            let request = Request::post("/logout").header(header::AUTHORIZATION, format!("Bearer {token}"));
            let answer = app.send(request.body(axum::body::Body::empty()).unwrap()).await;
            assert_eq!(answer.status(), status, "{token}: {}", answer.body());
        }
    }
}
