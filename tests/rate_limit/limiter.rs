//! Limits that code asks by itself.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use http::{HeaderName, StatusCode, header};
use tower_gatehouse::{
    Backend, Problem, TestClock,
    rate_limit::{Key, Limiter, Policy, Quota, RateLimitLayer, Reason, Rejection},
};

use crate::{App, with};

/// How many of so many are admitted that come at the same time.
async fn admits(limiter: &Limiter, key: &str, attempts: usize) -> usize {
    join_all((0..attempts).map(|_| limiter.take(key, 1))).await.iter().filter(|granted| granted.is_ok()).count()
}

async fn left(limiter: &Limiter, key: &str) -> Option<u64> {
    limiter.take(key, 0).await.unwrap().remaining()
}

#[tokio::test]
async fn as_many_are_admitted_as_the_quota_says_and_each_key_has_its_own() {
    let limiter = Limiter::new(&Backend::memory(), "login", Quota::per_hour(5));
    assert_eq!(admits(&limiter, "ann", 50).await, 5);
    assert_eq!(admits(&limiter, "bob", 50).await, 5);
    assert_eq!(admits(&limiter.clone(), "ann", 50).await, 0, "a clone is the same limiter");
}

/// Reserved first: of many guesses at once no more are looked at than there are attempts, and the right one costs none.
#[tokio::test]
async fn a_guesser_with_many_addresses_has_one_account() {
    let limiter = Limiter::new(&Backend::memory(), "login", Quota::per_hour(5));
    let looked_at = AtomicUsize::new(0);
    let log_in = async |password: usize| {
        let attempt = limiter.take("ann", 1).await?;
        looked_at.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        if password == 1234 {
            attempt.give_back().await;
        }
        Ok::<_, Rejection>(password == 1234)
    };
    for _ in 0..100 {
        assert_eq!(log_in(1234).await, Ok(true));
    }
    looked_at.store(0, Ordering::SeqCst);
    join_all((0..1000).map(log_in)).await;
    assert_eq!(looked_at.into_inner(), 5);
}

#[tokio::test]
async fn limiters_of_one_name_and_quota_count_together_and_others_do_not() {
    let backend = Backend::memory();
    let limiter = |name, quota| Limiter::new(&backend, name, quota);
    assert_eq!(admits(&limiter("login", Quota::per_hour(5)), "ann", 4).await, 4);
    assert_eq!(admits(&limiter("login", Quota::per_hour(5)), "ann", 4).await, 1);
    assert_eq!(admits(&limiter("other", Quota::per_hour(5)), "ann", 9).await, 5);
    assert_eq!(admits(&limiter("login", Quota::per_hour(6)), "ann", 9).await, 6);
    for name in ["検索", "登録"] {
        assert_eq!(admits(&limiter(name, Quota::per_hour(5)), "ann", 9).await, 5, "{name}");
    }
}

/// A client that can choose a header must not reach what code counts.
#[tokio::test]
async fn a_layer_of_the_same_name_and_quota_counts_apart() {
    let backend = Backend::memory();
    let user = HeaderName::from_static("x-user");
    for key in [Key::header(user.clone()), Key::from_fn(move |request| request.headers.get(&user).cloned())] {
        let name = format!("{key:?}");
        let app = App::new(&RateLimitLayer::with_policies(&backend, [Policy::new(&name, key, Quota::per_hour(5))]));
        assert_eq!(app.ask(with("x-user", "ann")).await.status(), 200);
        assert_eq!(left(&Limiter::new(&backend, &name, Quota::per_hour(5)), "ann").await, Some(5));
    }
}

#[tokio::test]
async fn a_refusal_says_when_to_come_back_and_is_a_problem_for_the_client() {
    let clock = TestClock::new();
    let limiter = Limiter::new(&Backend::memory_with(&clock), "mails", Quota::per_minute(6));
    let grant = limiter.take("ann@example.org", 6).await.unwrap();
    assert_eq!((grant.remaining(), grant.refilled_after()), (Some(0), Some(Duration::from_mins(1))));
    let rejection = limiter.take("ann@example.org", 2).await.unwrap_err();
    assert_eq!((rejection.reason, rejection.retry_after), (Reason::Quota, Some(Duration::from_secs(20))));
    assert_eq!(rejection.policies[0].as_ref(), "mails");
    let answer = Problem::from(rejection).into_response_with_bytes();
    assert_eq!(
        (answer.status(), &answer.headers()[header::RETRY_AFTER]),
        (StatusCode::TOO_MANY_REQUESTS, &"20".parse().unwrap())
    );
    assert!(std::str::from_utf8(answer.body()).unwrap().contains("#quota-exceeded"));
    clock.advance(Duration::from_secs(20));
    assert!(limiter.take("ann@example.org", 2).await.is_ok(), "whoever waits so long is not refused again");

    let never = limiter.take("bob@example.org", 7).await.unwrap_err();
    assert_eq!(never.retry_after, None, "so much is never there at once");
    assert_eq!(never.to_string(), "The request costs more than its quota allows at once.");
}

#[tokio::test]
async fn what_is_given_back_is_there_again_and_what_cost_more_is_charged() {
    let clock = TestClock::new();
    let limiter = Limiter::new(&Backend::memory_with(&clock), "tokens", Quota::per_hour(100));
    limiter.take("ann", 40).await.unwrap().give_back().await;
    assert_eq!(left(&limiter, "ann").await, Some(100));
    limiter.take("ann", 40).await.unwrap().settle(25).await;
    assert_eq!(left(&limiter, "ann").await, Some(75));
    limiter.take("ann", 40).await.unwrap().settle(40).await;
    assert_eq!(left(&limiter, "ann").await, Some(35));
    // Beyond the quota: 165 more than there were, which come back in as many 36 s.
    limiter.take("ann", 10).await.unwrap().settle(200).await;
    let rejection = limiter.take("ann", 1).await.unwrap_err();
    assert_eq!(rejection.retry_after, Some(Duration::from_secs(166 * 36)));
}

/// The future is not waited for at all.
#[tokio::test]
async fn what_is_given_back_is_also_if_nobody_waits_for_it() {
    let limiter = Limiter::new(&Backend::memory(), "login", Quota::per_hour(5));
    drop(limiter.take("ann", 5).await.unwrap().give_back());
    assert_eq!(left(&limiter, "ann").await, Some(5));
}

#[tokio::test]
async fn a_key_that_is_reset_begins_anew_whatever_it_was_charged() {
    let backend = Backend::memory();
    for quota in [
        Quota::per_hour(5),
        Quota::per_hour(5).strict(),
        Quota::per_hour(5).fixed_window(),
        Quota::per_hour(50).burst(2),
    ] {
        let limiter = Limiter::new(&backend, "login", quota);
        let full = left(&limiter, "ann").await;
        limiter.take("ann", 1).await.unwrap().settle(1000).await;
        assert!(limiter.take("bob", 2).await.is_ok() && limiter.take("ann", 1).await.is_err(), "{quota:?}");
        limiter.reset("ann").await.unwrap();
        assert_eq!(left(&limiter, "ann").await, full, "{quota:?}");
        assert_eq!(left(&limiter, "bob").await, full.map(|full| full - 2), "{quota:?}: only the one that was named");
    }
}

#[cfg(feature = "redis")]
mod on_redis {
    use tower_gatehouse::rate_limit::OnError;

    use super::*;
    use crate::{patient, support::RedisServer};

    #[tokio::test]
    async fn the_fleet_counts_together_and_gives_back_and_resets_together() {
        let server = RedisServer::start();
        let [here, there] = [patient(server.url()).await, patient(server.url()).await]
            .map(|backend| Limiter::new(&backend, "login", Quota::per_hour(20).burst(20)));
        let (one, other) = tokio::join!(admits(&here, "ann@example.org", 50), admits(&there, "ann@example.org", 50));
        assert_eq!(one + other, 20);
        let counters: Vec<_> = server.keys().into_iter().filter(|key| key.contains(":n:")).collect();
        assert!(counters.len() == 1 && !counters[0].contains("ann@"), "one, and the key is a hash: {counters:?}");

        // This process has just been told that there is nothing left, and remembers.
        assert!(here.take("ann@example.org", 1).await.is_err());
        here.reset("ann@example.org").await.unwrap();
        assert_eq!(left(&here, "ann@example.org").await, Some(20));
        here.take("ann@example.org", 20).await.unwrap().settle(3).await;
        assert_eq!(left(&there, "ann@example.org").await, Some(17));
    }

    #[tokio::test]
    async fn while_redis_is_away_the_limiter_does_what_it_was_told() {
        let mut server = RedisServer::start();
        let backend = patient(server.url()).await;
        let limiter = |on_error| Limiter::new(&backend, "login", Quota::per_hour(8)).on_error(on_error);
        let [local, half, allow, deny] =
            [OnError::default(), OnError::Local { share: 0.5 }, OnError::Allow, OnError::Deny].map(limiter);
        assert!(deny.take("ann", 1).await.is_ok());
        server.kill();
        assert_eq!(admits(&local, "ann", 20).await, 8, "by itself, anew");
        assert_eq!(admits(&half, "ann", 20).await, 4);
        assert_eq!(admits(&allow, "ann", 20).await, 20);
        assert_eq!(admits(&deny, "ann", 20).await, 0);
        assert_eq!(allow.take("ann", 1).await.unwrap().remaining(), None, "nobody has counted");
        let rejection = deny.take("ann", 1).await.unwrap_err();
        assert_eq!((rejection.reason, rejection.retry_after), (Reason::Unavailable, Some(Duration::from_secs(1))));
        assert_eq!(Problem::from(rejection).status(), StatusCode::SERVICE_UNAVAILABLE);
        // What this process counted by itself it gives back by itself.
        half.take("bob", 4).await.unwrap().give_back().await;
        assert_eq!(left(&half, "bob").await, Some(4));
        assert!(deny.reset("ann").await.is_err());
    }
}
