//! A master under Sentinel that is replaced. Invalidations wait for replicas, so that the count of stale answers is zero,
//! too. Where the master is lost, one is enough: Sentinel promotes the one that has the most. Where it lives on for a
//! while beside the new one (a failover that is asked for), it takes all of them: the other replica would acknowledge
//! what the new master never hears of, and some processes still read at the old one. (With one, this test counted 26
//! stale answers of 2,368.) Carts do not wait: what a lost master had acknowledged last may be missing, which is
//! documented.

use std::time::Duration;

use tower_gatehouse::{Backend, backend::RedisBuilder};

use crate::{
    load::{Counts, Load},
    support::RedisSentinel,
};

fn builder(set: &RedisSentinel, replicas: u32) -> RedisBuilder {
    Backend::redis(set.url()).wait_for_replicas(replicas, Duration::from_millis(300))
}

/// Rows 1, 2 and 5: the master is killed, or frozen and comes back later as a replica.
async fn lose_the_master(frozen: bool) {
    let mut set = RedisSentinel::start();
    let load = Load::start(|| builder(&set, 1)).await;
    let old = set.master();
    if frozen {
        set.servers()[old].pause();
    } else {
        set.server_mut(old).kill();
    }
    set.wait_for_other_master(old);
    load.recovered().await;
    assert!(Counts::of(&load.counts().refused) > 0, "an error while there is no master: {}", load.counts());
    if frozen {
        set.servers()[old].resume();
    } else {
        set.server_mut(old).restart();
    }
    load.run(Duration::from_secs(1)).await;
    load.recovered().await;
    load.end(if frozen { "master frozen" } else { "master killed" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_is_killed() {
    lose_the_master(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_is_frozen() {
    lose_the_master(true).await;
}

/// Row 5: a failover that somebody asks for.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_is_asked_for() {
    let set = RedisSentinel::start();
    let load = Load::start(|| builder(&set, 2)).await;
    set.fail_over();
    load.recovered().await;
    load.end("failover").await;
}
