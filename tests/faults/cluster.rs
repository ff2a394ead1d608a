//! A Cluster of three masters with a replica each. Invalidations wait for it.

use std::time::Duration;

use tower_gatehouse::{Backend, backend::RedisBuilder};

use crate::{
    load::Load,
    support::{RedisCluster, RedisServer},
};

fn builder(cluster: &RedisCluster) -> RedisBuilder {
    Backend::redis(cluster.url()).wait_for_replicas(1, Duration::from_millis(300))
}

/// Rows 7 and 19: a master is killed under load, and its replica takes over. From then on that part has no replica, and
/// invalidations say so; what they say is not promised, and they hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_killed() {
    let mut cluster = RedisCluster::start();
    let load = Load::start(|| builder(&cluster)).await;
    cluster.node_mut(1).kill();
    // What was not reached is named.
    load.until_refused(3).await;
    load.run(Duration::from_secs(1)).await;
    cluster.take_over(4);
    cluster.node_mut(1).restart();
    load.recovered().await;
    load.end("node killed").await;
}

/// Row 7: slots move to another master, with all that is in them, and back.
#[tokio::test(flavor = "multi_thread")]
async fn slots_are_moved() {
    let cluster = RedisCluster::start();
    // Without WAIT: the fault is another one.
    let load = Load::start(|| Backend::redis(cluster.url())).await;
    let clocks: Vec<_> =
        cluster.nodes()[..3].iter().flat_map(RedisServer::keys).filter(|key| key.ends_with(":c")).collect();
    assert!(clocks.len() > 2, "{clocks:?}");
    for clock in clocks.iter().take(6) {
        let to = (cluster.owner(clock) + 1) % 3;
        let (slot, from) = cluster.begin_move(clock, to);
        load.run(Duration::from_millis(150)).await;
        cluster.finish_move(slot, from, to);
        load.run(Duration::from_millis(50)).await;
    }
    load.recovered().await;
    load.end("slots moved").await;
}

/// A failover that is agreed, in the middle of the load.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_is_agreed() {
    let cluster = RedisCluster::start();
    let load = Load::start(|| builder(&cluster)).await;
    cluster.fail_over(3);
    load.run(Duration::from_millis(500)).await;
    load.recovered().await;
    load.end("cluster failover").await;
}
