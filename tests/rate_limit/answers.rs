//! What clients are told.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use serde_json::json as value;
use tower_gatehouse::{
    Backend, TestClock,
    rate_limit::{Headers, Key, Policy, Quota, RateLimitLayer, Reason},
};

use crate::{App, header, json, with};

#[tokio::test]
async fn a_client_that_obeys_retry_after_is_not_denied_again() {
    for quota in [
        Quota::per_second(3),
        Quota::per_minute(7),
        Quota::new(13, Duration::from_millis(4321)).burst(3),
        Quota::per_minute(11).strict(),
        Quota::per_minute(2).fixed_window(),
    ] {
        let clock = TestClock::new();
        let app = App::new(&RateLimitLayer::new(&Backend::memory_with(&clock), "all", Key::global(), quota));
        let mut refusals = 0;
        for _ in 0..200 {
            let answer = app.ask(Request::new(())).await;
            if answer.status() == 429 {
                refusals += 1;
                let seconds = header(&answer, "retry-after").parse().unwrap();
                assert!(seconds >= 1);
                assert!(header(&answer, "ratelimit").ends_with(&format!(";t={seconds}")));
                clock.advance(Duration::from_secs(seconds));
                assert_eq!(app.get().await, 200, "{quota:?}");
            } else {
                clock.advance(Duration::from_micros(777));
            }
        }
        assert!(refusals > 20, "{quota:?}: {refusals}");
    }
}

#[tokio::test]
async fn a_refusal_is_a_problem_that_names_the_policies() {
    let app = App::new(&RateLimitLayer::new(&Backend::memory(), "login", Key::global(), Quota::per_hour(0)));
    let answer = app.ask(Request::new(())).await;
    assert_eq!(answer.status(), 429);
    assert_eq!(header(&answer, "content-type"), "application/problem+json");
    assert_eq!(header(&answer, "cache-control"), "no-store");
    let problem = json(answer).await;
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(problem["status"], 429);
    assert_eq!(problem["violated-policies"], value!(["login"]));
    assert!(problem["title"].is_string() && problem["detail"].is_string());
}

#[tokio::test]
async fn grpc_clients_get_their_status() {
    let app = App::new(&RateLimitLayer::new(&Backend::memory(), "all", Key::global(), Quota::per_minute(1)));
    let grpc = || with("content-type", "application/grpc+proto");
    assert_eq!(app.ask(grpc()).await.status(), 200);
    let refused = app.ask(grpc()).await;
    assert_eq!(refused.status(), 200);
    assert_eq!(header(&refused, "content-type"), "application/grpc");
    assert_eq!(header(&refused, "grpc-status"), "8");
    assert!(!header(&refused, "grpc-message").is_empty());
    let pushback: u64 = header(&refused, "grpc-retry-pushback-ms").parse().unwrap();
    assert!((30_000..=60_000).contains(&pushback), "{pushback}");
    assert_eq!(http_body::Body::size_hint(refused.body()).exact(), Some(0));
}

#[tokio::test]
async fn header_fields_of_each_kind() {
    for (headers, name, told) in [
        (Headers::Draft, "ratelimit", r#""all";r=4;t=12"#),
        (Headers::Triple, "ratelimit-remaining", "4"),
        (Headers::XRateLimit, "x-ratelimit-reset", "12"),
        (Headers::None, "ratelimit", ""),
    ] {
        let backend = Backend::memory_with(&TestClock::new());
        let layer = RateLimitLayer::new(&backend, "all", Key::global(), Quota::per_minute(5)).headers(headers);
        let app = App::new(&layer);
        let answer = app.ask(Request::new(())).await;
        assert_eq!(header(&answer, name), told, "{headers:?}");
        assert_eq!(app.admits(9).await, 4);
        let refused = app.ask(Request::new(())).await;
        assert_eq!(header(&refused, "retry-after"), "12", "whatever the fields");
    }
}

/// What `RateLimit` says of the only policy: how much is left, and when there is more.
fn state(answer: &crate::Answer) -> (u64, u64) {
    let numbers = header(answer, "ratelimit").split_once(";r=").and_then(|(_, rest)| rest.split_once(";t="));
    let (left, more) = numbers.unwrap();
    (left.parse().unwrap(), more.parse().unwrap())
}

/// `t` of draft-10 §4.1.2: "the number of seconds until additional quota … is made available".
#[tokio::test]
async fn the_draft_tells_when_there_is_more_and_the_older_fields_when_there_is_all() {
    for (headers, name, told) in [
        (Headers::Draft, "ratelimit", r#""day";r=0;t=864"#),
        (Headers::Triple, "ratelimit-reset", "86400"),
        (Headers::XRateLimit, "x-ratelimit-reset", "86400"),
    ] {
        let clock = TestClock::new();
        let layer = RateLimitLayer::new(&Backend::memory_with(&clock), "day", Key::global(), Quota::per_day(100));
        let app = App::new(&layer.headers(headers));
        assert_eq!(app.admits(99).await, 99);
        assert_eq!(header(&app.ask(Request::new(())).await, name), told, "{headers:?}");
        clock.advance(Duration::from_secs(864));
        assert_eq!(app.admits(2).await, 1);
    }
}

#[tokio::test]
async fn after_the_time_that_is_told_there_is_more_and_not_a_second_earlier() {
    let mut refusals = 0;
    for quota in [
        Quota::per_minute(7),
        Quota::per_hour(1000).burst(30),
        Quota::new(13, Duration::from_millis(43_210)).burst(3),
        Quota::per_day(11).strict(),
        Quota::per_minute(20).fixed_window(),
    ] {
        let clock = TestClock::new();
        let cost = |parts: &http::request::Parts| parts.headers["x-cost"].to_str().unwrap().parse().unwrap();
        let policy = Policy::new("all", Key::global(), quota).cost(cost);
        let app = App::new(&RateLimitLayer::with_policies(&Backend::memory_with(&clock), [policy]));
        let mut waits = 0;
        for n in 0..200_u64 {
            let answer = app.ask(with("x-cost", ["1", "2", "3"][usize::try_from(n % 3).unwrap()])).await;
            let (left, more) = state(&answer);
            if answer.status() == 429 {
                refusals += 1;
                let retry: u64 = header(&answer, "retry-after").parse().unwrap();
                assert!(retry >= more, "§6 of the draft: {retry} {more}");
            }
            assert!(more >= 1, "{quota:?}: some of it was taken");
            clock.advance(Duration::from_millis(n * 37 % 700));
            let now = state(&app.ask(with("x-cost", "0")).await);
            if now.0 == left && left < 3 {
                assert!(now.1 <= more, "{quota:?}");
                waits += 1;
                clock.advance(Duration::from_secs(now.1 - 1));
                assert_eq!(state(&app.ask(with("x-cost", "0")).await).0, left, "{quota:?}: {more}");
                clock.advance(Duration::from_secs(1));
                assert!(state(&app.ask(with("x-cost", "0")).await).0 > left, "{quota:?}: {more}");
            }
        }
        assert!(waits > 20, "{quota:?}: {waits}");
    }
    assert!(refusals > 40, "{refusals}");
}

#[tokio::test]
async fn the_user_shapes_the_answer() {
    let layer = RateLimitLayer::new(&Backend::memory(), "all", Key::global(), Quota::per_hour(0)).on_reject(
        |rejection, answer| {
            assert_eq!(rejection.reason, Reason::Quota);
            assert_eq!(rejection.policies, ["all".into()]);
            let (mut parts, _) = answer.into_parts();
            parts.status = http::StatusCode::IM_A_TEAPOT;
            Response::from_parts(parts, Bytes::from_static(b"{}"))
        },
    );
    let answer = App::new(&layer).ask(Request::new(())).await;
    assert_eq!(answer.status(), 418);
    assert_eq!(header(&answer, "ratelimit-policy"), r#""all";q=0;w=3600"#);
    assert_eq!(json(answer).await, value!({}));
}

#[tokio::test]
async fn the_longest_wait_of_all_policies_counts() {
    let clock = TestClock::new();
    let layer = RateLimitLayer::with_policies(
        &Backend::memory_with(&clock),
        [
            Policy::new("short", Key::global(), Quota::per_second(1)),
            Policy::new("long", Key::global(), Quota::per_minute(1)),
        ],
    );
    let app = App::new(&layer);
    assert_eq!(app.get().await, 200);
    let refused = app.ask(Request::new(())).await;
    assert_eq!(header(&refused, "retry-after"), "60");
    assert_eq!(json(refused).await["violated-policies"], value!(["short", "long"]));
    clock.advance(Duration::from_mins(1));
    assert_eq!(app.get().await, 200);
}
