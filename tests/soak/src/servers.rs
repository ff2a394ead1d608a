//! The Redis servers, and what befalls them.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    chaos,
    plan::World,
    random::Random,
    support::{RedisCluster, RedisSentinel, RedisServer, resp::Reply, sentinel::SERVICE, wait_until},
};

/// Longer than a node is ever away: a failover that nobody asked for may lose what was acknowledged.
const NODE_TIMEOUT: &str = "8000";
/// The masters vote once in two node timeouts about a shard; until then an attempt is given up after 5 s.
const ATTEMPTS: usize = 4;
const ATTEMPT: Duration = Duration::from_secs(6);
const SETTLED: Duration = Duration::from_mins(2);

pub(crate) struct Servers {
    cache: Cache,
    records: RedisServer,
}

enum Cache {
    Standalone(Box<RedisServer>),
    Sentinel(RedisSentinel),
    Cluster(RedisCluster),
}

impl Servers {
    pub(crate) fn start(world: World) -> Self {
        let cache = match world {
            World::Standalone => Cache::Standalone(Box::new(RedisServer::start())),
            World::Sentinel => Cache::Sentinel(RedisSentinel::start()),
            World::Cluster => Cache::Cluster(RedisCluster::start()),
        };
        // Sessions are not to be lost: what is acknowledged is written.
        let records = RedisServer::builder().config("appendonly yes").config("appendfsync always").start();
        let servers = Self { cache, records };
        servers.be_patient();
        servers
    }

    pub(crate) fn cache_url(&self) -> String {
        match &self.cache {
            Cache::Standalone(server) => server.url(),
            Cache::Sentinel(set) => set.url(),
            Cache::Cluster(cluster) => cluster.url(),
        }
    }

    /// How many replicas an invalidation has to wait for, so that it holds through a failover.
    pub(crate) fn replicas(&self) -> u32 {
        match &self.cache {
            // The old master lives on for a while beside the new one: it must have heard of it, too.
            Cache::Sentinel(_) => 2,
            // A failover that is agreed loses nothing.
            Cache::Standalone(_) | Cache::Cluster(_) => 0,
        }
    }

    pub(crate) fn records_url(&self) -> String {
        self.records.url()
    }

    pub(crate) fn kill_cache(&mut self, node: usize, down: Duration) {
        self.settle();
        let node = self.master(node);
        self.node_mut(node).kill();
        if let Cache::Sentinel(set) = &self.cache {
            // A master that saves nothing must not come back as one: its replicas would follow it into emptiness.
            set.fail_over();
        }
        thread::sleep(down);
        self.node_mut(node).restart();
        self.be_patient();
    }

    fn node_mut(&mut self, node: usize) -> &mut RedisServer {
        match &mut self.cache {
            Cache::Standalone(server) => server,
            Cache::Sentinel(set) => set.server_mut(node),
            Cache::Cluster(cluster) => cluster.node_mut(node),
        }
    }

    pub(crate) fn freeze_cache(&self, node: usize, down: Duration) {
        self.settle();
        freeze(self.nodes()[self.master(node)], down);
    }

    pub(crate) fn evict_cells(&self, time: Duration, random: &Random) {
        thread::scope(|scope| {
            for node in self.nodes() {
                let random = random.clone();
                scope.spawn(move || chaos::forget(node, Instant::now() + time, random));
            }
        });
    }

    pub(crate) fn forget(&self) {
        tell(self.nodes(), &["FLUSHALL"]);
    }

    pub(crate) fn fill_cache(&self, full: Duration) {
        tell(self.nodes(), &["CONFIG", "SET", "maxmemory", "1"]);
        thread::sleep(full);
        tell(self.nodes(), &["CONFIG", "SET", "maxmemory", "0"]);
    }

    pub(crate) fn fail_over(&self, shard: usize) {
        let cluster = match &self.cache {
            Cache::Standalone(_) => return,
            Cache::Sentinel(set) => {
                self.settle();
                set.fail_over();
                return;
            }
            Cache::Cluster(cluster) => cluster,
        };
        // One after the other: the last fault may have been this one, or a restart.
        cluster.wait_until_ok();
        let replica = &cluster.nodes()[self.replica(shard)];
        for _ in 0..ATTEMPTS {
            tell([replica], &["CLUSTER", "FAILOVER"]);
            let start = Instant::now();
            while start.elapsed() < ATTEMPT {
                if is_master(replica) {
                    return;
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        println!("shard {shard} keeps its master");
    }

    pub(crate) fn flush_scripts(&self) {
        tell(self.nodes(), &["SCRIPT", "FLUSH"]);
        tell([&self.records], &["SCRIPT", "FLUSH"]);
    }

    pub(crate) fn cut_connections(&self) {
        for kind in ["normal", "pubsub"] {
            tell(self.nodes(), &["CLIENT", "KILL", "TYPE", kind]);
            tell([&self.records], &["CLIENT", "KILL", "TYPE", kind]);
        }
    }

    pub(crate) fn kill_records(&mut self, down: Duration) {
        self.records.kill();
        thread::sleep(down);
        self.records.restart();
    }

    pub(crate) fn freeze_records(&self, down: Duration) {
        freeze(&self.records, down);
    }

    /// What the Sentinels have decided, for whoever looks for a reason.
    pub(crate) fn tell(&self) {
        let Cache::Sentinel(set) = &self.cache else { return };
        for sentinel in set.sentinels().iter().chain(set.servers()) {
            println!("--- port {}", sentinel.port());
            let log = sentinel.log();
            let lines: Vec<_> = log.lines().collect();
            lines.iter().skip(lines.len().saturating_sub(200)).for_each(|line| println!("{line}"));
        }
    }

    fn nodes(&self) -> Vec<&RedisServer> {
        match &self.cache {
            Cache::Standalone(server) => vec![server],
            Cache::Sentinel(set) => set.servers().iter().collect(),
            Cache::Cluster(cluster) => cluster.nodes().iter().collect(),
        }
    }

    /// Which node of a shard is its master now.
    fn master(&self, shard: usize) -> usize {
        if let Cache::Sentinel(set) = &self.cache {
            return set.master();
        }
        let nodes = self.nodes();
        let mut both = [shard, shard + 3].into_iter().filter(|node| *node < nodes.len());
        both.find(|node| is_master(nodes[*node])).unwrap_or(shard)
    }

    fn replica(&self, shard: usize) -> usize {
        if self.master(shard) == shard { shard + 3 } else { shard }
    }

    /// Waits until the last failover is over: Sentinel takes its time until it makes a replica of the old master.
    fn settle(&self) {
        let Cache::Sentinel(set) = &self.cache else { return };
        wait_until("the servers agree with the Sentinels", SETTLED, || {
            let master = set.master();
            let port = set.servers()[master].port().to_string();
            let is_replica = |server: &RedisServer| {
                server.info_is("replication", "master_port", &port)
                    && server.info_is("replication", "master_link_status", "up")
            };
            (0..set.sentinels().len()).all(|sentinel| set.master_by(sentinel) == master)
                && set.servers().iter().enumerate().all(|(index, server)| index == master || is_replica(server))
        });
    }

    fn be_patient(&self) {
        match &self.cache {
            Cache::Standalone(_) => {}
            Cache::Sentinel(set) => {
                tell(set.sentinels(), &["SENTINEL", "SET", SERVICE, "down-after-milliseconds", NODE_TIMEOUT]);
            }
            Cache::Cluster(cluster) => {
                tell(cluster.nodes(), &["CONFIG", "SET", "cluster-node-timeout", NODE_TIMEOUT]);
            }
        }
    }
}

fn freeze(server: &RedisServer, down: Duration) {
    server.pause();
    thread::sleep(down);
    server.resume();
}

fn is_master(server: &RedisServer) -> bool {
    let Ok(Reply::Bytes(info)) = server.try_command(&["INFO", "replication"]) else { return false };
    String::from_utf8_lossy(&info).lines().any(|line| line == "role:master")
}

/// Errors are answers, too: a replica refuses to write.
fn tell<'a>(servers: impl IntoIterator<Item = &'a RedisServer>, command: &[&str]) {
    for server in servers {
        if let Err(error) = server.try_command(command) {
            println!("{command:?} on port {}: {error}", server.port());
        }
    }
}
