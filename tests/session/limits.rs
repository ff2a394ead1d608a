//! Limits by user, which a session tells.

use http::StatusCode;
use tower_gatehouse::{
    Backend,
    rate_limit::{ConcurrencyLimitLayer, Key, OnError, Policy, Quota, RateLimitLayer, Reason},
    session::{KeyRing, SessionLayer},
};

use crate::{
    app::{App, patient, redis, routes},
    support::RedisServer,
};

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

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_of_sessions_is_away_a_limit_by_user_does_what_its_policy_says() {
    for (on_error, expected) in [
        (OnError::default(), StatusCode::OK),
        (OnError::Allow, StatusCode::OK),
        (OnError::Deny, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let mut server = RedisServer::start();
        let sessions = patient(server.url()).connect().await.unwrap();
        let policy = Policy::new("user", Key::user(), Quota::per_minute(5)).on_error(on_error);
        let limit = RateLimitLayer::with_policies(&Backend::memory(), [policy]);
        let app = App(routes().layer(limit).layer(SessionLayer::new(&sessions, KeyRing::ephemeral())));
        let client = app.client();
        client.ok("POST", "/login/ann").await;
        server.kill();
        assert_eq!(client.get("/").await.status(), expected, "{on_error:?}: who needs no session");
        assert_eq!(client.get("/me").await.status(), StatusCode::SERVICE_UNAVAILABLE, "never taken for nobody");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_because_nobody_can_tell_who_asks_is_shaped_as_other_refusals() {
    let mut server = RedisServer::start();
    let sessions = patient(server.url()).connect().await.unwrap();
    let policy = Policy::new("user", Key::user(), Quota::per_minute(5)).on_error(OnError::Deny);
    let limit = RateLimitLayer::with_policies(&Backend::memory(), [policy]).on_reject(|rejection, mut answer| {
        assert_eq!((rejection.reason, &*rejection.policies[0]), (Reason::Unavailable, "user"));
        answer.headers_mut().insert("x-shaped", "yes".parse().unwrap());
        answer
    });
    let app = App(routes().layer(limit).layer(SessionLayer::new(&sessions, KeyRing::ephemeral())));
    let client = app.client();
    client.ok("POST", "/login/ann").await;
    server.kill();
    let answer = client.get("/").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        (&answer.headers()["retry-after"], &answer.headers()["x-shaped"]),
        (&"1".parse().unwrap(), &"yes".parse().unwrap())
    );
}

#[tokio::test]
async fn a_quota_in_windows_and_one_that_refills_are_counted_apart() {
    for backend in [Backend::memory(), redis().await] {
        let app = |quota| App(routes().layer(RateLimitLayer::new(&backend, "all", Key::global(), quota)));
        let old = app(Quota::per_day(2)).client();
        assert_eq!([old.get("/").await.status(), old.get("/").await.status()], [StatusCode::OK; 2]);
        assert_eq!(old.get("/").await.status(), StatusCode::TOO_MANY_REQUESTS);
        let new = app(Quota::per_day(2).fixed_window()).client();
        assert_eq!(new.get("/").await.status(), StatusCode::OK, "{}", backend.name());
    }
}
