//! Limits by user, which a session tells.

use http::StatusCode;
use tower_gatehouse::{
    Backend,
    rate_limit::{ConcurrencyLimitLayer, Key, Quota, RateLimitLayer},
    session::{KeyRing, SessionLayer},
};

use crate::app::{App, redis, routes};

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_by_user_counts_all_sessions_of_the_user_and_asks_for_the_session_once() {
    for backend in [Backend::memory(), redis().await] {
        let limit = RateLimitLayer::new(&backend, "user", Key::user(), Quota::per_minute(5).burst(5));
        let session = SessionLayer::new(&backend, KeyRing::ephemeral());
        let app = App(routes().layer(limit).layer(session));
        let (phone, laptop, nobody) = (app.client(), app.client(), app.client());
        // A login is not yet the user's request.
        phone.ok("POST", "/login/ann").await;
        laptop.ok("POST", "/login/ann").await;
        let mut admitted = 0;
        for n in 0..10 {
            let client = if n % 2 == 0 { &phone } else { &laptop };
            let status = client.get("/").await.status();
            assert!(status == StatusCode::OK || status == StatusCode::TOO_MANY_REQUESTS);
            admitted += u32::from(status == StatusCode::OK);
        }
        assert_eq!(admitted, 5, "{}", backend.name());
        assert_eq!(nobody.get("/").await.status(), StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_requests_in_progress_by_user_knows_the_user() {
    let limit = ConcurrencyLimitLayer::new("user", Key::user(), 0);
    let session = SessionLayer::new(&Backend::memory(), KeyRing::ephemeral());
    let app = App(routes().layer(limit).layer(session));
    let (ann, nobody) = (app.client(), app.client());
    ann.ok("POST", "/login/ann").await;
    assert_eq!(ann.get("/").await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(nobody.get("/").await.status(), StatusCode::OK);
}
