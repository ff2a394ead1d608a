//! A Redis Cluster of the test's own: three masters with one replica each.
//!
//! The nodes are patient: a machine that stands still for some seconds is not taken for a dead node. A test that waits
//! for an election says [`elect_soon`](RedisCluster::elect_soon).

use std::collections::BTreeMap;
use std::time::Duration;

use super::redis::{RedisBuilder, RedisServer};
use super::resp::Reply;
use super::wait::{wait_asking, wait_until};

const MASTERS: usize = 3;
const NODES: usize = 2 * MASTERS;
const SLOTS: usize = 16_384;
/// How long the nodes may take to agree.
const AGREE: Duration = Duration::from_mins(1);
/// How long one attempt at a failover may take; Redis gives it five seconds.
const ATTEMPT: Duration = Duration::from_secs(6);
/// For how many milliseconds a node is silent when it is taken for dead.
const PATIENT: &str = "8000";
/// The same where an election is waited for, and while the nodes meet: they tell each other more often.
const SOON: &str = "1500";

/// Three masters (nodes 0 to 2) and their replicas (node `n + 3` of master `n`); killed on drop.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts the nodes and waits until each of them sees a complete cluster.
    pub fn start() -> Self {
        Self::start_with(RedisServer::builder())
    }

    /// As [`start`](Self::start), with more configuration for every node.
    ///
    /// # Panics
    /// Where a node does not start, or they do not agree within a minute.
    pub fn start_with(builder: RedisBuilder) -> Self {
        let builder = builder
            .config("cluster-enabled yes")
            .config("cluster-config-file nodes.conf")
            .config(format!("cluster-node-timeout {SOON}"))
            .config("cluster-announce-ip 127.0.0.1")
            .config("repl-diskless-sync-delay 0");
        let nodes: Vec<_> = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..NODES).map(|_| scope.spawn(|| builder.clone().start())).collect();
            starting.into_iter().map(|node| node.join().expect("a node that starts")).collect()
        });
        let cluster = Self { nodes };
        cluster.join();
        cluster
    }

    fn join(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            if index < MASTERS {
                let (first, end) = (SLOTS * index / MASTERS, SLOTS * (index + 1) / MASTERS);
                node.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()]);
            }
        }
        // A node that another has met takes no epoch any more.
        for (index, node) in self.nodes.iter().enumerate() {
            for other in &self.nodes[index + 1..] {
                node.command(&["CLUSTER", "MEET", "127.0.0.1", &other.port().to_string()]);
            }
        }
        wait_until("all nodes of the cluster know each other", AGREE, || {
            self.nodes.iter().all(|node| {
                let table = cluster_nodes(node);
                table.len() == NODES && table.values().all(|line| !line.contains("handshake"))
            })
        });
        // The masters decide who is dead, and do so from the moment that somebody may succeed them.
        take_for_dead_after(PATIENT, &self.nodes[..MASTERS]);
        for (master, replica) in self.nodes[..MASTERS].iter().zip(&self.nodes[MASTERS..]) {
            replica.command(&["CLUSTER", "REPLICATE", &id(master)]);
        }
        self.wait_until_ok();
        take_for_dead_after(PATIENT, &self.nodes[MASTERS..]);
    }

    /// From now on a master that is silent for one and a half seconds is replaced.
    pub fn elect_soon(&self) {
        take_for_dead_after(SOON, &self.nodes);
    }

    /// Waits until every node that runs says `cluster_state:ok`, and all replicas are in step with their masters and
    /// known as replicas by the others.
    ///
    /// # Panics
    /// Where that takes longer than a minute.
    pub fn wait_until_ok(&self) {
        wait_until("the cluster is complete", AGREE, || self.nodes.iter().all(is_settled));
    }

    /// `redis-cluster://127.0.0.1:port?node=…`, with every node in it.
    pub fn url(&self) -> String {
        let others: Vec<_> = self.nodes[1..].iter().map(|node| format!("node=127.0.0.1:{}", node.port())).collect();
        format!("redis-cluster://127.0.0.1:{}?{}", self.nodes[0].port(), others.join("&"))
    }

    /// Masters first, then their replicas in the same order (as the cluster was started).
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    pub fn node_mut(&mut self, index: usize) -> &mut RedisServer {
        &mut self.nodes[index]
    }

    /// The cluster's id of a node, as CLUSTER SETSLOT wants it.
    pub fn id(&self, index: usize) -> String {
        id(&self.nodes[index])
    }

    /// The index of the node that is master of `key`'s slot now, as the running nodes see it.
    ///
    /// # Panics
    /// Where no node runs or no node claims the slot.
    pub fn owner(&self, key: &str) -> usize {
        let slot = self.slot(key);
        for node in &self.nodes {
            let Ok(reply @ Reply::Array(_)) = node.try_command(&["CLUSTER", "SLOTS"]) else { continue };
            for range in reply.array() {
                let range = range.array();
                if (range[0].integer()..=range[1].integer()).contains(&slot) {
                    let port = range[2].array()[1].integer();
                    return self.nodes.iter().position(|node| i64::from(node.port()) == port).expect("one of ours");
                }
            }
        }
        panic!("no master for slot {slot}");
    }

    /// The slot of `key`, as a running node computes it.
    ///
    /// # Panics
    /// Where no node runs.
    pub fn slot(&self, key: &str) -> i64 {
        let reply = self.nodes.iter().find_map(|node| node.try_command(&["CLUSTER", "KEYSLOT", key]).ok());
        reply.expect("a node that runs").integer()
    }

    /// Sends one command to the master of `key`.
    pub fn command_at<A: AsRef<[u8]>>(&self, key: &str, args: &[A]) -> Reply {
        self.nodes[self.owner(key)].command(args)
    }

    /// The calls of one command, summed over all running nodes.
    pub fn calls(&self, command: &str) -> u64 {
        self.nodes.iter().map(|node| node.commandstats().calls(command)).sum()
    }

    /// Makes the replica `replica` (3 to 5 at the start) the master of its slots, agreed with its master, and waits
    /// for it.
    ///
    /// # Panics
    /// Where it has no master that runs (see [`take_over`](Self::take_over)), or it takes longer than a minute.
    pub fn fail_over(&self, replica: usize) {
        self.promote(replica, &["CLUSTER", "FAILOVER"]);
    }

    /// Makes the replica the master of its slots without asking anyone, as after the loss of its master.
    ///
    /// # Panics
    /// Where it takes longer than a minute.
    pub fn take_over(&self, replica: usize) {
        self.promote(replica, &["CLUSTER", "FAILOVER", "TAKEOVER"]);
    }

    /// Asks until it is a master: an attempt may time out, and refuses where the others have elected it already.
    fn promote(&self, index: usize, request: &[&str]) {
        let node = &self.nodes[index];
        // What it answers is seen in its role.
        let ask = || drop(node.try_command(request));
        wait_asking("the replica is a master", AGREE, ATTEMPT, ask, || node.info_is("replication", "role", "master"));
        let id = self.id(index);
        wait_until("all nodes know the new master", AGREE, || {
            self.nodes.iter().all(|node| match node.try_command(&["CLUSTER", "NODES"]) {
                Ok(_) => cluster_nodes(node).get(&id).is_some_and(|line| line.contains("master")),
                Err(_) => true,
            })
        });
    }

    /// Starts to move the slot of `key` to the master `to`: from now on the old master answers ASK for keys that it
    /// does not have. Returns the slot and the old master; [`finish_move`](Self::finish_move) ends it.
    pub fn begin_move(&self, key: &str, to: usize) -> (i64, usize) {
        let (slot, from) = (self.slot(key), self.owner(key));
        assert_ne!(from, to, "slot {slot} is there already");
        let number = slot.to_string();
        self.nodes[to].command(&["CLUSTER", "SETSLOT", &number, "IMPORTING", &self.id(from)]);
        self.nodes[from].command(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &self.id(to)]);
        (slot, from)
    }

    /// Moves the keys of the slot and gives it to `to`: the old master answers MOVED.
    ///
    /// # Panics
    /// Where the slot has more than 1000 keys.
    pub fn finish_move(&self, slot: i64, from: usize, to: usize) {
        let number = slot.to_string();
        let keys = self.nodes[from].command(&["CLUSTER", "GETKEYSINSLOT", &number, "1000"]);
        assert!(keys.array().len() < 1000, "too many keys in slot {slot}");
        let port = self.nodes[to].port().to_string();
        for key in keys.array() {
            let key = key.bytes().expect("a key");
            self.nodes[from].command(&[&b"MIGRATE"[..], b"127.0.0.1", port.as_bytes(), key, b"0", b"5000"]);
        }
        for node in [to, from] {
            self.nodes[node].command(&["CLUSTER", "SETSLOT", &number, "NODE", &self.id(to)]);
        }
    }
}

/// A node that was silent for so many milliseconds is taken for dead.
fn take_for_dead_after(millis: &str, nodes: &[RedisServer]) {
    for node in nodes {
        node.command(&["CONFIG", "SET", "cluster-node-timeout", millis]);
    }
}

fn id(node: &RedisServer) -> String {
    node.command(&["CLUSTER", "MYID"]).text()
}

/// A node that does not answer is not asked for more.
fn is_settled(node: &RedisServer) -> bool {
    let Ok(Reply::Bytes(info)) = node.try_command(&["CLUSTER", "INFO"]) else { return true };
    let ok = String::from_utf8_lossy(&info).contains("cluster_state:ok");
    let table = cluster_nodes(node);
    let failed = table.values().filter(|line| line.contains("fail")).count();
    let replicas = table.values().filter(|line| line.contains("slave") && !line.contains("fail")).count();
    let link = node.info("replication").get("master_link_status").is_none_or(|status| status == "up");
    ok && link && replicas + failed >= MASTERS
}

/// CLUSTER NODES by id; empty where the node does not answer.
fn cluster_nodes(node: &RedisServer) -> BTreeMap<String, String> {
    let Ok(Reply::Bytes(table)) = node.try_command(&["CLUSTER", "NODES"]) else { return BTreeMap::new() };
    String::from_utf8_lossy(&table)
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(id, rest)| (id.to_owned(), rest.to_owned()))
        .collect()
}
