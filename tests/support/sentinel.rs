//! A replicated Redis under Sentinel: a master, two replicas, three sentinels.
//!
//! They are patient: a machine that stands still for some seconds is not taken for a dead master. A test that waits for
//! an election says [`elect_soon`](RedisSentinel::elect_soon).

use std::cell::RefCell;
use std::time::Duration;

use super::ports::Port;
use super::redis::{RedisBuilder, RedisServer};
use super::wait::{wait_asking, wait_until};

const AGREE: Duration = Duration::from_mins(1);
/// How long one attempt at a failover may take; the sentinels give it three seconds.
const ATTEMPT: Duration = Duration::from_secs(4);
/// The name under which the sentinels know the master.
pub const SERVICE: &str = "main";

/// One master (server 0 at the start), two replicas and three sentinels; killed on drop.
#[derive(Debug)]
pub struct RedisSentinel {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
    /// The ports of the servers and of the sentinels that speak TLS; none where they are plain.
    secure: Vec<Port>,
}

impl RedisSentinel {
    /// Starts them and waits until the replicas are in step and every sentinel knows all the others.
    ///
    /// # Panics
    /// Where they do not agree within a minute.
    pub fn start() -> Self {
        Self::start_with(RedisServer::builder(), &RedisServer::builder())
    }

    /// The same with a password of the servers and another one of the sentinels.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_with_passwords(servers: &str, sentinels: &str) -> Self {
        Self::start_with(
            RedisServer::builder().password(servers).config(format!("masterauth {servers}")),
            &RedisServer::builder()
                .password(sentinels)
                .config(format!("sentinel sentinel-pass {sentinels}"))
                .config(format!("sentinel auth-pass {SERVICE} {servers}")),
        )
    }

    /// The same with more configuration of the servers, and of the sentinels.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_with(servers: RedisBuilder, sentinels: &RedisBuilder) -> Self {
        Self::launch(servers, sentinels, None)
    }

    /// The same over TLS, for the servers and the sentinels among themselves, too: `secure` gives a server a port that
    /// speaks it. What the tests say themselves is plain.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_secure(secure: impl Fn(RedisBuilder, u16) -> RedisBuilder) -> Self {
        Self::launch(RedisServer::builder(), &RedisServer::builder(), Some(&secure))
    }

    fn launch(
        servers: RedisBuilder,
        sentinels: &RedisBuilder,
        secure: Option<&dyn Fn(RedisBuilder, u16) -> RedisBuilder>,
    ) -> Self {
        let ports = RefCell::new(Vec::new());
        let start = |builder: RedisBuilder| {
            let Some(secure) = secure else { return builder.start() };
            let port = Port::reserve();
            let builder = secure(builder, port.number()).config("tls-replication yes");
            ports.borrow_mut().push(port);
            builder.start()
        };
        let server = servers.config("repl-diskless-sync-delay 0");
        let master = start(server.clone());
        let master_port = ports.borrow().first().map_or(master.port(), Port::number);
        let replica = || start(server.clone().config(format!("replicaof 127.0.0.1 {master_port}")));
        let (first, second) = (replica(), replica());
        for replica in [&first, &second] {
            replica.wait_for_info("replication", "master_link_status", "up", AGREE);
        }
        let watch = [
            format!("sentinel monitor {SERVICE} 127.0.0.1 {master_port} 2"),
            format!("sentinel down-after-milliseconds {SERVICE} 8000"),
            format!("sentinel failover-timeout {SERVICE} 3000"),
        ];
        let sentinel = || start(sentinels.clone().sentinel(&watch));
        let sentinels = vec![sentinel(), sentinel(), sentinel()];
        let set = Self { servers: vec![master, first, second], sentinels, secure: ports.into_inner() };
        wait_until("every sentinel knows the replicas and the other sentinels", AGREE, || {
            set.sentinels.iter().all(|sentinel| {
                let state = sentinel.info("sentinel").remove("master0").unwrap_or_default();
                state.contains("status=ok") && state.contains("slaves=2") && state.contains("sentinels=3")
            })
        });
        set
    }

    /// `redis-sentinel://127.0.0.1:port?sentinelServiceName=main&node=…`, with every sentinel in it; `rediss` over TLS.
    pub fn url(&self) -> String {
        let [first, second, third] = [0, 1, 2].map(|index| {
            let secure = self.secure.get(self.servers.len() + index).map(Port::number);
            secure.unwrap_or(self.sentinels[index].port())
        });
        let scheme = if self.secure.is_empty() { "redis" } else { "rediss" };
        format!(
            "{scheme}-sentinel://127.0.0.1:{first}?sentinelServiceName={SERVICE}&node=127.0.0.1:{second}&node=127.0.0.1:{third}"
        )
    }

    /// From now on a master that is silent for a second is replaced.
    pub fn elect_soon(&self) {
        for sentinel in &self.sentinels {
            sentinel.command(&["SENTINEL", "SET", SERVICE, "down-after-milliseconds", "1000"]);
        }
    }

    /// The port at which others know a server.
    fn known_port(&self, server: usize) -> u16 {
        self.secure.get(server).map_or(self.servers[server].port(), Port::number)
    }

    /// The master and the replicas, as they were at the start.
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    pub fn server_mut(&mut self, index: usize) -> &mut RedisServer {
        &mut self.servers[index]
    }

    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    pub fn sentinel_mut(&mut self, index: usize) -> &mut RedisServer {
        &mut self.sentinels[index]
    }

    /// The index of the server that the first sentinel takes for the master.
    ///
    /// # Panics
    /// Where that is none of ours.
    pub fn master(&self) -> usize {
        self.master_by(0)
    }

    /// The same, as another one of the sentinels sees it.
    ///
    /// # Panics
    /// As [`master`](Self::master).
    pub fn master_by(&self, sentinel: usize) -> usize {
        let reply = self.sentinels[sentinel].command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]);
        let port = reply.array()[1].text();
        let mut servers = 0..self.servers.len();
        servers.find(|server| self.known_port(*server).to_string() == port).expect("one of our servers")
    }

    /// Asks for a failover and waits until every sentinel names a new master, which accepts writes; returns its index.
    ///
    /// # Panics
    /// Where that takes longer than a minute.
    pub fn fail_over(&self) -> usize {
        let old = self.master();
        self.ask(0, old);
        self.wait_for_other_master(old)
    }

    /// The same by another one of the sentinels, where not all of them run.
    ///
    /// # Panics
    /// As [`fail_over`](Self::fail_over).
    pub fn fail_over_by(&self, sentinel: usize) -> usize {
        let old = self.master_by(sentinel);
        self.ask(sentinel, old);
        let new = self.master_by(sentinel);
        let port = self.known_port(new).to_string();
        wait_until("all sentinels that run name the new master", AGREE, || {
            self.sentinels.iter().all(|other| {
                let reply = other.try_command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]);
                reply.map_or(true, |reply| reply.array()[1].text() == port)
            })
        });
        self.servers[new].wait_for_info("replication", "role", "master", AGREE);
        new
    }

    /// Asks the sentinel until it names another master than `old`: it refuses while a failover is under way or no
    /// replica has answered it lately, and gives an attempt up after its time.
    fn ask(&self, sentinel: usize, old: usize) {
        let ask = || drop(self.sentinels[sentinel].try_command(&["SENTINEL", "FAILOVER", SERVICE]));
        let named = || self.master_by(sentinel) != old;
        wait_asking("the sentinel names a new master", AGREE, ATTEMPT, ask, named);
    }

    /// Waits until every sentinel names another master than `old`, as after its loss; returns its index.
    ///
    /// # Panics
    /// Where that takes longer than a minute.
    pub fn wait_for_other_master(&self, old: usize) -> usize {
        let old_port = self.known_port(old).to_string();
        wait_until("the sentinels name a new master", AGREE, || {
            self.sentinels.iter().all(|sentinel| {
                let reply = sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]);
                reply.array()[1].text() != old_port
            })
        });
        let new = self.master();
        self.servers[new].wait_for_info("replication", "role", "master", AGREE);
        new
    }
}
