//! What policies can say: costs, charges, failures only, tiers, shadows, exemptions, several at once.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_gatehouse::{
    Backend, TestClock,
    rate_limit::{Key, Policy, Quota, RateLimitLayer, ShadowDenied},
};

use crate::{App, header, with};

fn user() -> Key {
    Key::header(http::HeaderName::from_static("x-user"))
}

#[tokio::test]
async fn a_quota_refills_on_the_backend_s_clock() {
    let clock = TestClock::new();
    let backend = Backend::memory_with(&clock);
    let app = App::new(&RateLimitLayer::new(&backend, "all", Key::global(), Quota::per_minute(6)));
    assert_eq!(app.admits(10).await, 6);
    clock.advance(Duration::from_secs(20));
    assert_eq!(app.admits(10).await, 2);
    clock.advance(Duration::from_hours(1));
    assert_eq!(app.admits(10).await, 6);
    assert_eq!(app.reached(), 14);
}

#[tokio::test]
async fn keys_are_limited_each_for_itself_and_requests_without_key_are_not() {
    let app = App::new(&RateLimitLayer::new(&Backend::memory(), "user", user(), Quota::per_hour(2)));
    for name in ["a", "b"] {
        for status in [200, 200, 429, 429] {
            assert_eq!(app.ask(with("x-user", name)).await.status(), status);
        }
    }
    assert_eq!(app.admits(10).await, 10);
    let by_default =
        App::new(&RateLimitLayer::new(&Backend::memory(), "user", user().or(Key::global()), Quota::per_hour(2)));
    assert_eq!(by_default.admits(10).await, 2);
    assert_eq!(by_default.ask(with("x-user", "a")).await.status(), 200);
}

#[tokio::test]
async fn layers_with_the_same_name_and_key_share_the_counters_and_others_do_not() {
    let backend = Backend::memory();
    let layer = |name: &str| RateLimitLayer::new(&backend, name, Key::global(), Quota::per_hour(3));
    let (one, same, other) = (App::new(&layer("a")), App::new(&layer("a")), App::new(&layer("b")));
    assert_eq!(one.admits(2).await, 2);
    assert_eq!(same.admits(2).await, 1);
    assert_eq!(other.admits(5).await, 3);
    // Of these, header fields and problems have only `__`.
    for name in ["検索", "登録"] {
        assert_eq!(App::new(&layer(name)).admits(5).await, 3, "{name}");
    }
}

#[tokio::test]
async fn of_several_policies_one_that_denies_leaves_the_others_untouched() {
    let backend = Backend::memory();
    let layer = RateLimitLayer::with_policies(
        &backend,
        [
            Policy::new("burst", user(), Quota::per_hour(3)),
            Policy::new("daily", user(), Quota::per_day(100)),
            Policy::new("all", Key::global(), Quota::per_hour(50)),
        ],
    );
    let app = App::new(&layer);
    let mut admitted = 0;
    for _ in 0..20 {
        admitted += usize::from(app.ask(with("x-user", "a")).await.status() == 200);
    }
    assert_eq!(admitted, 3);
    let denied = app.ask(with("x-user", "a")).await;
    let told = header(&denied, "ratelimit");
    assert!(told.contains(r#""burst";r=0;"#) && told.contains(r#""daily";r=97;"#), "{told}");
    assert!(told.contains(r#""all";r=47;"#), "{told}");
    assert_eq!(crate::json(denied).await["violated-policies"], serde_json::json!(["burst"]));
}

#[tokio::test]
async fn a_request_costs_what_the_policy_says() {
    let cost =
        |parts: &http::request::Parts| parts.headers.get("x-cost").map_or(1, |v| v.to_str().unwrap().parse().unwrap());
    let policy = Policy::new("all", Key::global(), Quota::per_hour(10)).cost(cost);
    let app = App::new(&RateLimitLayer::with_policies(&Backend::memory(), [policy]));
    for (cost, status) in [("7", 200), ("4", 429), ("3", 200), ("1", 429), ("0", 200), ("11", 429)] {
        assert_eq!(app.ask(with("x-cost", cost)).await.status(), status, "{cost}");
    }
    let never = app.ask(with("x-cost", "11")).await;
    assert_eq!(header(&never, "retry-after"), "", "nobody can say when what costs too much will pass");
}

/// Each request of the handler below has cost what its `x-tokens` says.
fn metered(backend: &Backend, quota: Quota) -> App {
    let tokens = |parts: &http::response::Parts| parts.headers["x-tokens"].to_str().unwrap().parse().unwrap();
    let policy = Policy::new("tokens", Key::global(), quota).charge_after(tokens);
    App::with(&RateLimitLayer::with_policies(backend, [policy]), async |request| {
        let tokens = request.headers()["x-tokens"].clone();
        Response::builder().header("x-tokens", tokens).body(String::new()).unwrap()
    })
}

#[tokio::test]
async fn what_a_response_has_cost_is_charged_after_it() {
    let clock = TestClock::new();
    let app = metered(&Backend::memory_with(&clock), Quota::per_minute(60));
    assert_eq!(app.ask(with("x-tokens", "59")).await.status(), 200);
    assert_eq!(app.ask(with("x-tokens", "31")).await.status(), 200, "one was left, and nobody knew that it takes 31");
    assert_eq!(app.ask(with("x-tokens", "1")).await.status(), 429);
    // 90 were used; the 30 beyond the quota have to come back first, and one more.
    clock.advance(Duration::from_millis(30_900));
    assert_eq!(app.ask(with("x-tokens", "1")).await.status(), 429);
    clock.advance(Duration::from_millis(100));
    assert_eq!(app.ask(with("x-tokens", "0")).await.status(), 200);
    assert_eq!(app.ask(with("x-tokens", "0")).await.status(), 200, "what cost nothing was given back");
}

#[tokio::test]
async fn a_charge_beyond_the_quota_ends_at_ten_times_of_it() {
    let clock = TestClock::new();
    let app = metered(&Backend::memory_with(&clock), Quota::per_minute(60));
    assert_eq!(app.ask(with("x-tokens", "4000000000")).await.status(), 200);
    let denied = app.ask(with("x-tokens", "1")).await;
    assert_eq!(header(&denied, "retry-after"), "541");
    clock.advance(Duration::from_secs(541));
    assert_eq!(app.ask(with("x-tokens", "1")).await.status(), 200);
}

/// Layers with the same policies share the counters, whether they charge or not.
#[tokio::test]
async fn what_was_charged_is_not_forgotten_because_of_a_layer_that_does_not_charge() {
    let clock = TestClock::new();
    let backend = Backend::memory_with(&clock);
    let policy = || Policy::new("tokens", Key::global(), Quota::per_minute(60));
    let [heavy, light] = [policy().charge_after(|_| 600), policy()]
        .map(|policy| App::new(&RateLimitLayer::with_policies(&backend, [policy])));
    assert_eq!(heavy.get().await, 200);
    for seconds in [541, 540] {
        for app in [&heavy, &light, &heavy] {
            let denied = app.ask(Request::new(())).await;
            assert_eq!(header(&denied, "retry-after"), seconds.to_string());
        }
        clock.advance(Duration::from_secs(1));
    }
}

fn logins(backend: &Backend, delay: Duration) -> App {
    let failed = |parts: &http::response::Parts| parts.status == StatusCode::UNAUTHORIZED;
    let policy = Policy::new("login", Key::global(), Quota::per_minute(5)).only(failed);
    App::with(&RateLimitLayer::with_policies(backend, [policy]), move |request: Request<()>| async move {
        tokio::time::sleep(delay).await;
        let good = request.headers().contains_key("x-good");
        Response::builder().status(if good { 200 } else { 401 }).body(String::new()).unwrap()
    })
}

#[tokio::test]
async fn of_100_parallel_bad_logins_at_most_5_reach_the_handler() {
    let app = logins(&Backend::memory(), Duration::from_millis(50));
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move { app.get().await })
        })
        .collect();
    let mut statuses = std::collections::BTreeMap::new();
    for task in tasks {
        *statuses.entry(task.await.unwrap()).or_insert(0) += 1;
    }
    assert_eq!(app.reached(), 5);
    assert_eq!(statuses, [(401, 5), (429, 95)].into());
}

#[tokio::test]
async fn good_logins_do_not_count() {
    let app = logins(&Backend::memory(), Duration::ZERO);
    for _ in 0..50 {
        assert_eq!(app.ask(with("x-good", "1")).await.status(), 200);
    }
    for _ in 0..5 {
        assert_eq!(app.get().await, 401);
    }
    assert_eq!(app.get().await, 429);
    assert_eq!(app.ask(with("x-good", "1")).await.status(), 429, "a good one cannot be told before");
}

#[tokio::test]
async fn what_ends_without_a_response_counts_as_a_failure() {
    let app = logins(&Backend::memory(), Duration::from_hours(1));
    for _ in 0..5 {
        let ask = app.ask(with("x-good", "1"));
        assert!(tokio::time::timeout(Duration::from_millis(20), ask).await.is_err(), "the client leaves");
    }
    assert_eq!(app.get().await, 429);
}

#[tokio::test]
async fn tiers_have_quotas_of_their_own() {
    let tier = |parts: &http::request::Parts| (parts.headers["x-user"] == "gold").then(|| Quota::per_hour(10));
    let policy = Policy::new("user", user(), Quota::per_hour(2)).quota_by(tier);
    let app = App::new(&RateLimitLayer::with_policies(&Backend::memory(), [policy]));
    for (name, limit, policy) in [("gold", 10, r#""user";q=10;w=3600"#), ("tin", 2, r#""user";q=2;w=3600"#)] {
        let mut admitted = 0;
        for _ in 0..20 {
            let answer = app.ask(with("x-user", name)).await;
            assert_eq!(header(&answer, "ratelimit-policy"), policy);
            admitted += usize::from(answer.status() == 200);
        }
        assert_eq!(admitted, limit, "{name}");
    }
}

/// What is left, as `RateLimit` says.
fn left(answer: &crate::Answer) -> u64 {
    let told = header(answer, "ratelimit").split_once(";r=").and_then(|(_, rest)| rest.split_once(';'));
    told.unwrap().0.parse().unwrap()
}

#[tokio::test]
async fn what_was_used_under_one_tier_is_not_given_back_by_a_request_under_another() {
    for base in [Quota::per_minute(1000), Quota::per_minute(1000).fixed_window()] {
        let clock = TestClock::new();
        let policy = Policy::new("api", Key::global(), base)
            .quota_by(|parts| (parts.uri.path() == "/export").then(|| Quota::per_hour(100)));
        let app = App::new(&RateLimitLayer::with_policies(&Backend::memory_with(&clock), [policy]));
        let ask = |path: &'static str| app.ask(Request::builder().uri(path).body(()).unwrap());
        let mut exports = 0;
        for _ in 0..600 {
            for _ in 0..5 {
                exports += u32::from(ask("/export").await.status() == 200);
            }
            clock.advance(Duration::from_millis(100));
            assert_eq!(ask("/").await.status(), 200);
        }
        assert!((100..=101).contains(&exports), "in one minute, of 100 an hour: {exports}");
    }
}

#[tokio::test]
async fn under_each_tier_a_key_counts_anew_and_finds_again_what_it_has_used() {
    let policy = Policy::new("api", Key::global(), Quota::per_hour(60))
        .quota_by(|parts| parts.headers.contains_key("x-pays").then(|| Quota::per_hour(6000)));
    let app = App::new(&RateLimitLayer::with_policies(&Backend::memory_with(&TestClock::new()), [policy]));
    assert_eq!(app.admits(100).await, 60);
    assert_eq!(left(&app.ask(with("x-pays", "1")).await), 5999);
    assert_eq!(left(&app.ask(with("x-pays", "1")).await), 5998);
    assert_eq!(app.get().await, 429);
}

#[tokio::test]
async fn a_tier_of_one_policy_does_not_split_what_its_neighbours_count() {
    let path = |parts: &http::request::Parts, path| parts.uri.path() == path;
    let policies = [
        Policy::new("daily", user(), Quota::per_day(5)),
        Policy::new("burst", user(), Quota::per_hour(100))
            .quota_by(move |parts| path(parts, "/a").then(|| Quota::per_hour(200))),
        Policy::new("other", user(), Quota::per_hour(300))
            .quota_by(move |parts| path(parts, "/b").then(|| Quota::per_hour(400))),
    ];
    let app = App::new(&RateLimitLayer::with_policies(&Backend::memory(), policies));
    let mut admitted = Vec::new();
    for n in 0..30 {
        let request = Request::builder().uri(["/", "/a", "/b"][n % 3]).header("x-user", "a").body(()).unwrap();
        let answer = app.ask(request).await;
        if answer.status() == 200 {
            let told = header(&answer, "ratelimit").split(", ").map(|one| one.split(';').nth(1).unwrap().to_owned());
            admitted.push(told.collect::<Vec<_>>().join(" "));
        }
    }
    // Of each policy, what the requests so far have left: "burst" has a tier of its own for "/a", "other" for "/b".
    let expected = ["r=4 r=99 r=299", "r=3 r=199 r=298", "r=2 r=98 r=399", "r=1 r=97 r=297", "r=0 r=198 r=296"];
    assert_eq!(admitted, expected);
}

#[tokio::test]
async fn a_tier_and_a_cost_are_asked_for_only_where_there_is_a_key() {
    let name = |parts: &http::request::Parts| parts.headers["x-user"].to_str().unwrap().to_owned();
    let policies = [
        Policy::new("tier", user(), Quota::per_hour(2))
            .quota_by(move |parts| (name(parts) == "gold").then(|| Quota::per_hour(3))),
        Policy::new("cost", user(), Quota::per_hour(9)).cost(move |parts| name(parts).len().try_into().unwrap()),
    ];
    let app = App::new(&RateLimitLayer::with_policies(&Backend::memory(), policies));
    assert_eq!(app.admits(5).await, 5, "they have no key");
    for status in [200, 200, 429] {
        assert_eq!(app.ask(with("x-user", "gold")).await.status(), status);
    }
}

#[tokio::test]
async fn the_first_line_of_a_field_is_the_key_whatever_a_client_adds() {
    let app = App::new(&RateLimitLayer::new(&Backend::memory(), "user", user(), Quota::per_hour(2)));
    let mut admitted = 0;
    for n in 0..20 {
        let request = Request::builder().header("x-user", "a").header("x-user", format!("junk{n}")).body(()).unwrap();
        admitted += usize::from(app.ask(request).await.status() == 200);
    }
    assert_eq!(admitted, 2);
    assert_eq!(app.ask(with("x-user", "a")).await.status(), 429);
}

#[tokio::test]
async fn a_shadow_refuses_nothing_and_tells_what_it_would_have_refused() {
    let backend = Backend::memory();
    let shadow = Policy::new("shadow", Key::global(), Quota::per_hour(2)).shadow();
    let enforced = Policy::new("enforced", Key::global(), Quota::per_hour(4));
    let app = App::new(&RateLimitLayer::with_policies(&backend, [shadow.clone(), enforced]));
    let mut denied = Vec::new();
    for _ in 0..4 {
        let answer = app.ask(Request::new(())).await;
        assert_eq!(answer.status(), 200);
        assert!(!header(&answer, "ratelimit-policy").contains("shadow"));
        denied.push(answer.extensions().get::<ShadowDenied>().map(|ShadowDenied(names)| names.to_vec()));
    }
    let named = Some(vec![Arc::from("shadow")]);
    assert_eq!(denied, [None, None, named.clone(), named]);
    assert_eq!(app.get().await, 429, "the other one is enforced");
    // What the shadow has counted is not taken from the policy, should it be enforced.
    let enforced = Policy::new("shadow", Key::global(), Quota::per_hour(2));
    assert_eq!(App::new(&RateLimitLayer::with_policies(&backend, [enforced])).admits(5).await, 2);
}

#[tokio::test]
async fn shadows_of_several_layers_are_all_named() {
    let backend = Backend::memory();
    let layer = |name: &str| {
        let policy = Policy::new(name, Key::global(), Quota::per_hour(1)).shadow();
        RateLimitLayer::with_policies(&backend, [policy])
    };
    let handler = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(String::new())));
    let service = layer("outer").layer(layer("inner").layer(handler));
    let mut named = Vec::new();
    for _ in 0..2 {
        let Ok(answer) = service.clone().oneshot(Request::new(())).await;
        named.push(answer.extensions().get::<ShadowDenied>().map(|ShadowDenied(names)| names.to_vec()));
    }
    assert_eq!(named, [None, Some(vec![Arc::from("inner"), Arc::from("outer")])]);
}

#[tokio::test]
async fn what_is_exempt_is_neither_refused_nor_counted() {
    let layer = RateLimitLayer::new(&Backend::memory(), "all", Key::global(), Quota::per_hour(1))
        .exempt(|parts| parts.uri.path() == "/health");
    let app = App::new(&layer);
    let health = || Request::builder().uri("/health").body(()).unwrap();
    for _ in 0..5 {
        let answer = app.ask(health()).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "ratelimit")), (200, ""));
    }
    assert_eq!(app.admits(3).await, 1);
    assert_eq!(app.ask(health()).await.status(), 200);
}

#[tokio::test]
async fn cors_preflights_are_exempt_and_other_options_are_not() {
    let app = App::new(&RateLimitLayer::new(&Backend::memory(), "all", Key::global(), Quota::per_hour(0)));
    let options = || Request::builder().method("OPTIONS").header("origin", "https://a.example");
    let preflight = options().header("access-control-request-method", "PUT").body(()).unwrap();
    assert_eq!(app.ask(preflight).await.status(), 200);
    assert_eq!(app.ask(options().body(()).unwrap()).await.status(), 429);
}
