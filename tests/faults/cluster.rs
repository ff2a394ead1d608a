//! A Cluster of three masters with a replica each. Invalidations wait for it.

use crate::{
    load::{Forgets, Load, in_step},
    support::{RedisCluster, RedisServer},
};

/// The key of the cart, so that the fault hits what must not be lost.
fn cart(cluster: &RedisCluster) -> String {
    let mut keys = cluster.nodes().iter().flat_map(RedisServer::keys);
    keys.find(|key| key.contains("}:map:cart:")).expect("the cart")
}

/// Rows 7 and 19: the master with the cart is killed under load, and its replica takes over. From then on that part has
/// no replica, and invalidations say so; what they say is not promised, and they hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_killed() {
    let mut cluster = RedisCluster::start();
    let mut load = Load::start(&cluster.url(), &["--wait-for-replicas", "1"]).await;
    let node = cluster.owner(&cart(&cluster));
    load.fault(Forgets::Since);
    in_step(&cluster.nodes()[node], &[&cluster.nodes()[node + 3]]);
    cluster.node_mut(node).kill();
    // What was not reached is named.
    load.until_refused(3).await;
    load.run(1000).await;
    cluster.take_over(node + 3);
    cluster.node_mut(node).restart();
    load.recovered().await;
    load.calm();
    load.recovered().await;
    load.end("node killed").await;
}

/// Row 7: slots move to another master, with all that is in them, and back.
#[tokio::test(flavor = "multi_thread")]
async fn slots_are_moved() {
    let cluster = RedisCluster::start();
    // Without WAIT: the fault is another one.
    let load = Load::start(&cluster.url(), &[]).await;
    let mut moved = vec![cart(&cluster)];
    moved.extend(cluster.nodes()[..3].iter().flat_map(RedisServer::keys).filter(|key| key.ends_with(":c")));
    assert!(moved.len() > 3, "{moved:?}");
    for key in moved.iter().take(7) {
        let to = (cluster.owner(key) + 1) % 3;
        let (slot, from) = cluster.begin_move(key, to);
        load.run(150).await;
        cluster.finish_move(slot, from, to);
        load.run(50).await;
    }
    load.recovered().await;
    load.end("slots moved").await;
}

/// A failover that is agreed, in the middle of the load: nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_is_agreed() {
    let cluster = RedisCluster::start();
    let load = Load::start(&cluster.url(), &["--wait-for-replicas", "1"]).await;
    cluster.fail_over(3 + cluster.owner(&cart(&cluster)));
    load.run(500).await;
    load.recovered().await;
    load.end("cluster failover").await;
}
