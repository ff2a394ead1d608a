//! Row 11: clocks that are wrong, by a library that shifts the clock of the wall for a process (`support/clock.rs`).

use std::time::{Duration, SystemTime};

use axum::body::Body;
use http::Request;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_gatehouse::rate_limit::{Key, OnError, Policy, Quota, RateLimitLayer};

use crate::{
    counts::Counts,
    fleet::PATIENT,
    load::Load,
    support::{RedisServer, clock::Clock},
};

const HOUR: i64 = 3600;

/// How many seconds the clock of a server is ahead of ours.
fn ahead(server: &RedisServer) -> i64 {
    let shown: i64 = server.command(&["TIME"]).array()[0].text().parse().expect("seconds");
    let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    shown - i64::try_from(ours).expect("a time of this age")
}

/// One gateway is an hour ahead, one an hour behind: nothing differs.
#[tokio::test(flavor = "multi_thread")]
async fn the_clocks_of_gateways_are_an_hour_off() {
    let server = RedisServer::start();
    let clocks = [Some(Clock::ahead(HOUR)), None, Some(Clock::ahead(-HOUR))];
    let load = Load::start_by(clocks, &server.url(), PATIENT).await;
    load.run(1000).await;
    load.recovered().await;
    // An answer that one gateway has stored is a hit at the others, as old as it is.
    load.origin.on("/lasting", crate::support::Answer::ok("content").header("cache-control", "max-age=600"));
    for gateway in [0, 1, 2, 0, 1, 2] {
        let answer = load.shared.ways.get(gateway, "/lasting", None).await.expect("an answer");
        let age = answer.headers.get("age").map_or(0, |age| age.to_str().expect("text").parse().expect("seconds"));
        assert!((0..60).contains(&age), "{age} s at {gateway}");
    }
    assert_eq!(load.origin.count("/lasting"), 1);
    load.assert_bounded();
    assert_eq!(Counts::of(&load.counts().refused), 0, "{}", load.counts());
    load.end("gateways' clocks").await;
}

/// Redis is set back by an hour under load: no invalidation is undone, nothing is lost, and limits heal.
#[tokio::test(flavor = "multi_thread")]
async fn the_clock_of_redis_is_set_back_by_an_hour() {
    let clock = Clock::ahead(0);
    let server = RedisServer::builder().clock(&clock).start();
    let load = Load::start(&server.url(), PATIENT).await;
    let quota = Quota::per_second(5);
    let policy = Policy::new("all", Key::global(), quota).on_error(OnError::Deny);
    let layer = RateLimitLayer::with_policies(&load.backend, [policy]);
    let limited = layer.layer(service_fn(async |_: Request<Body>| {
        Ok::<_, std::convert::Infallible>(http::Response::new(Body::empty()))
    }));
    let admitted = async |most: usize| {
        let mut admitted = 0;
        for _ in 0..most {
            let Ok(answer) = limited.clone().oneshot(Request::new(Body::empty())).await;
            admitted += usize::from(answer.status() == 200);
        }
        admitted
    };
    assert!((1..50).contains(&admitted(50).await), "the limit is used up");
    clock.set_ahead(-HOUR);
    load.run(1000).await;
    assert!(ahead(&server) < 60 - HOUR, "{}", ahead(&server));
    load.recovered().await;
    let mut healed = 0;
    for _ in 0..100 {
        healed += admitted(1).await;
        if healed == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(healed, 3, "nobody is admitted any more");
    load.assert_bounded();
    assert_eq!(Counts::of(&load.counts().refused), 0, "{}", load.counts());
    load.end("Redis' clock").await;
}
