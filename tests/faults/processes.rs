//! Gateways that are killed, frozen and restarted.

use std::time::{Duration, Instant};

use crate::{
    counts::Counts,
    fleet::PATIENT,
    load::Load,
    support::{Answer, Gate, RedisServer},
};

const FRESH: &str = "max-age=60";
/// Of a gateway; a follower looks again within a second of its end.
const LEASE: Duration = Duration::from_secs(3);

/// Asks a gateway in the background.
fn ask(load: &Load, gateway: usize, path: &'static str) -> tokio::task::JoinHandle<Option<(u16, String)>> {
    let shared = load.shared.clone();
    tokio::spawn(async move {
        let answer = shared.ways.get(gateway, path, None).await?;
        Some((answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned()))
    })
}

/// An answer of 200.
fn fine(content: &str) -> (u16, String) {
    (200, content.to_owned())
}

/// Row 12: a gateway is killed while it fetches for the fleet, under load. The others take over within one lease, and
/// fetch once; when it is back, it is as good as new.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_fetches_for_the_fleet_is_killed() {
    let server = RedisServer::start();
    let mut load = Load::start(&server.url(), PATIENT).await;
    let never = Gate::new();
    let shut = never.clone();
    load.origin.handle("/slow", move |seen| {
        let answer = Answer::ok("content").header("cache-control", FRESH);
        if seen.number == 0 { answer.behind(&shut) } else { answer.delay(Duration::from_millis(100)) }
    });
    let leader = ask(&load, 0, "/slow");
    load.origin.wait_for("/slow", 1);
    let followers = [1, 2].map(|gateway| ask(&load, gateway, "/slow"));
    // What others asked it before is answered by then.
    load.shared.ways.set_away(0, true);
    load.run(300).await;
    load.gateways[0].kill();
    let killed = Instant::now();
    for follower in followers {
        assert_eq!(follower.await.expect("no panic"), Some(fine("content")));
    }
    assert!(killed.elapsed() < 5 * LEASE, "{:?}", killed.elapsed());
    assert_eq!(load.origin.count("/slow"), 2, "one more request");
    assert_eq!(leader.await.expect("no panic"), None, "its client's connection went with it");
    load.run(1000).await;
    load.gateways[0].restart();
    load.shared.ways.set_away(0, false);
    load.recovered().await;
    assert_eq!(ask(&load, 0, "/slow").await.expect("no panic"), Some(fine("content")));
    assert_eq!(load.origin.count("/slow"), 2, "a hit");
    never.open();
    load.assert_bounded();
    assert_eq!(Counts::of(&load.counts().refused), 0, "{}", load.counts());
    load.end("gateway killed").await;
}

/// Row 13: a gateway is frozen beyond its lease, in the middle of two fetches, under load. Meanwhile one page is fetched
/// by another gateway, and one is invalidated. What it commits late replaces nothing newer and revives nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_fetches_for_the_fleet_is_frozen_beyond_its_lease() {
    let server = RedisServer::start();
    let load = Load::start(&server.url(), PATIENT).await;
    let gate = Gate::new();
    for path in ["/newer", "/purged"] {
        let shut = gate.clone();
        load.origin.handle(path, move |seen| {
            let answer = |content| Answer::ok(content).header("cache-control", FRESH).header("cache-tag", "slow");
            if seen.number == 0 { answer("old").behind(&shut) } else { answer("new") }
        });
    }
    let leaders = ["/newer", "/purged"].map(|path| ask(&load, 0, path));
    load.origin.wait_for("/newer", 1);
    load.origin.wait_for("/purged", 1);
    load.shared.ways.set_away(0, true);
    load.gateways[0].pause();
    // The answers reach its socket, and wait there.
    gate.open();
    let begun = Instant::now();
    assert_eq!(ask(&load, 1, "/newer").await.expect("no panic"), Some(fine("new")), "taken over");
    let answer = load.shared.ways.invalidate(1, "slow").await;
    assert!(answer.is_some_and(|answer| answer.status.is_success()));
    assert_eq!(ask(&load, 2, "/newer").await.expect("no panic"), Some(fine("new")), "fetched once more");
    tokio::time::sleep((2 * LEASE).saturating_sub(begun.elapsed())).await;
    load.gateways[0].resume();
    for leader in leaders {
        assert_eq!(leader.await.expect("no panic"), Some(fine("old")), "its own client gets its answer");
    }
    load.run(300).await;
    load.shared.ways.set_away(0, false);
    for gateway in [0, 1, 2, 0] {
        for path in ["/newer", "/purged"] {
            assert_eq!(ask(&load, gateway, path).await.expect("no panic"), Some(fine("new")), "{path} at {gateway}");
        }
    }
    assert_eq!(load.origin.count("/purged"), 2);
    load.recovered().await;
    load.assert_bounded();
    load.end("gateway frozen").await;
}

/// Row 25: the gateways are restarted one after the other, as for a new version. Each answers what it was asked before.
#[tokio::test(flavor = "multi_thread")]
async fn gateways_are_restarted_one_after_the_other() {
    let server = RedisServer::start();
    let mut load = Load::start(&server.url(), PATIENT).await;
    load.origin.handle("/slow", |_| Answer::ok("content").delay(Duration::from_millis(500)));
    for gateway in 0..load.gateways.len() {
        let before = load.origin.count("/slow");
        let under_way = ask(&load, gateway, "/slow");
        load.origin.wait_for("/slow", before + 1);
        load.shared.ways.set_away(gateway, true);
        let status = load.gateways[gateway].stop(Duration::from_mins(1)).expect("it ends");
        assert!(status.success(), "{status}");
        assert_eq!(under_way.await.expect("no panic"), Some(fine("content")));
        load.gateways[gateway].restart();
        load.shared.ways.set_away(gateway, false);
        load.recovered().await;
    }
    load.assert_bounded();
    assert_eq!(Counts::of(&load.counts().refused), 0, "{}", load.counts());
    load.end("gateways restarted").await;
}
