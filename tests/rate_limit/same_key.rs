//! One key by two policies of one name, and what is told of several denials that are remembered.

use std::{convert::Infallible, time::Duration};

use http::{HeaderName, Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_gatehouse::{
    Backend,
    rate_limit::{Key, Policy, Quota, RateLimitLayer},
};

use crate::{App, header, patient, support::RedisServer, with};

fn user() -> Key {
    Key::header(HeaderName::from_static("x-user"))
}

/// Each unit of a second's quota of a thousand comes back within that.
const REFILL: Duration = Duration::from_millis(2);

#[tokio::test]
async fn a_loose_quota_of_the_same_name_and_key_does_not_make_a_tight_one_forget() {
    let server = RedisServer::start();
    for backend in [Backend::memory(), patient(server.url()).await] {
        let layer = RateLimitLayer::with_policies(
            &backend,
            [
                Policy::new("api", user().or(Key::global()), Quota::per_hour(5)),
                Policy::new("api", Key::global(), Quota::per_second(1000)),
            ],
        );
        let app = App::new(&layer);
        let mut admitted = 0;
        for _ in 0..40 {
            admitted += app.admits(1).await;
            tokio::time::sleep(REFILL).await;
        }
        assert_eq!(admitted, 5, "{}", backend.name());
    }
}

#[tokio::test]
async fn nor_does_that_of_a_layer_around_it() {
    let server = RedisServer::start();
    for backend in [Backend::memory(), patient(server.url()).await] {
        let outer = RateLimitLayer::new(&backend, "api", Key::global(), Quota::per_second(1000));
        let inner = RateLimitLayer::new(&backend, "api", user().or(Key::global()), Quota::per_hour(5));
        let handler = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new())));
        let service = outer.layer(inner.layer(handler));
        let mut admitted = 0;
        for _ in 0..40 {
            let Ok(answer) = service.clone().oneshot(Request::new(())).await;
            admitted += usize::from(answer.status() == 200);
            tokio::time::sleep(REFILL).await;
        }
        assert_eq!(admitted, 5, "{}", backend.name());
    }
}

#[tokio::test]
async fn functions_that_find_the_same_value_count_each_for_its_own_quota() {
    let field = |name| Key::from_fn(move |parts| parts.headers.get(name).map(|value| value.as_bytes().to_vec()));
    let server = RedisServer::start();
    for backend in [Backend::memory(), patient(server.url()).await] {
        let layer = RateLimitLayer::with_policies(
            &backend,
            [
                Policy::new("api", field("x-user"), Quota::per_hour(5)),
                Policy::new("api", field("x-tenant"), Quota::per_second(1000)),
            ],
        );
        let app = App::new(&layer);
        let mut admitted = 0;
        for _ in 0..40 {
            let request = Request::builder().header("x-user", "acme").header("x-tenant", "acme").body(()).unwrap();
            admitted += usize::from(app.ask(request).await.status() == 200);
            tokio::time::sleep(REFILL).await;
        }
        assert_eq!(admitted, 5, "{}", backend.name());
    }
}

#[tokio::test]
async fn a_request_whose_key_is_found_in_two_ways_counts_once() {
    let server = RedisServer::start();
    for backend in [Backend::memory(), patient(server.url()).await] {
        let keys = [user().or(Key::global()), Key::global()];
        let policies = keys.map(|key| Policy::new("api", key, Quota::per_hour(5)));
        let app = App::new(&RateLimitLayer::with_policies(&backend, policies));
        assert_eq!(app.admits(40).await, 5, "{}", backend.name());
    }
}

/// Each of two policies gives back what it has taken, of one key that both have found.
#[tokio::test]
async fn bad_logins_between_good_ones_are_as_many_as_the_quota_says() {
    let server = RedisServer::start();
    for backend in [Backend::memory(), patient(server.url()).await] {
        let keys = [user().or(Key::global()), Key::global()];
        let policies =
            keys.map(|key| Policy::new("login", key, Quota::per_hour(5)).only(|answer| answer.status == 401));
        let app = App::with(&RateLimitLayer::with_policies(&backend, policies), async |request| {
            let status = if request.uri().path() == "/good" { 200 } else { 401 };
            Response::builder().status(status).body(String::new()).unwrap()
        });
        let mut bad = 0;
        for _ in 0..20 {
            bad += usize::from(app.get().await == 401);
            app.ask(Request::builder().uri("/good").body(()).unwrap()).await;
        }
        assert_eq!(bad, 5, "{}", backend.name());
    }
}

#[tokio::test]
async fn what_a_request_costs_by_one_policy_it_costs_whatever_another_one_of_the_key_says() {
    let server = RedisServer::start();
    for backend in [Backend::memory(), patient(server.url()).await] {
        let either = || user().or(Key::global());
        let policy = |name: &str, key| Policy::new(name, key, Quota::per_hour(100));
        let of_ten = |name: &str, key| policy(name, key).cost(|_| 10);
        for twins in [
            [of_ten("a", either()), policy("a", Key::global())],
            [policy("b", either()), of_ten("b", Key::global())],
            // What the first one gives back, the second one keeps.
            [of_ten("c", either()).only(|answer| answer.status == 500), of_ten("c", Key::global())],
        ] {
            let app = App::new(&RateLimitLayer::with_policies(&backend, twins));
            assert_eq!(app.admits(40).await, 10, "{}", backend.name());
        }
    }
}

#[tokio::test]
async fn a_loose_tier_of_the_same_key_does_not_make_a_tight_one_forget() {
    let server = RedisServer::start();
    for backend in [Backend::memory(), patient(server.url()).await] {
        let policy = Policy::new("api", Key::global(), Quota::per_second(1000))
            .quota_by(|parts| (parts.uri.path() == "/export").then(|| Quota::per_hour(5)));
        let app = App::new(&RateLimitLayer::with_policies(&backend, [policy]));
        let mut exports = 0;
        for _ in 0..40 {
            let export = Request::builder().uri("/export").body(()).unwrap();
            exports += usize::from(app.ask(export).await.status() == 200);
            assert_eq!(app.get().await, 200);
            tokio::time::sleep(REFILL).await;
        }
        assert_eq!(exports, 5, "{}", backend.name());
    }
}

#[tokio::test]
async fn of_several_denials_that_are_remembered_the_longest_wait_is_told() {
    let server = RedisServer::start();
    let layer = RateLimitLayer::with_policies(
        &patient(server.url()).await,
        [
            Policy::new("user", user(), Quota::new(1, Duration::from_secs(30))),
            Policy::new("all", Key::global(), Quota::per_hour(1)),
        ],
    );
    let app = App::new(&layer);
    assert_eq!(app.ask(with("x-user", "a")).await.status(), 200);
    for n in 0..3 {
        let refused = app.ask(with("x-user", "a")).await;
        assert_eq!(refused.status(), 429);
        let wait: u64 = header(&refused, "retry-after").parse().unwrap();
        assert!(wait > 3500, "refusal {n}: {wait}");
    }
}

#[tokio::test]
async fn what_never_passes_is_told_alike_when_it_is_remembered() {
    let server = RedisServer::start();
    let backend = patient(server.url()).await;
    let app = App::new(&RateLimitLayer::new(&backend, "never", Key::global(), Quota::per_hour(0)));
    let mut told = Vec::new();
    for _ in 0..3 {
        let refused = app.ask(Request::new(())).await;
        assert_eq!(refused.status(), 429);
        told.push(["ratelimit", "retry-after"].map(|name| header(&refused, name).to_owned()));
    }
    assert!(told[0][0].contains(";t="), "{told:?}");
    assert_eq!([&told[1], &told[2]], [&told[0], &told[0]]);
}
