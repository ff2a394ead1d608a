//! How a Redis backend is set up.

use std::{error::Error as StdError, fmt, future::Future, sync::Arc, time::Duration};

use fred::{
    clients::{Client as Fred, SubscriberClient},
    types::config::{
        ClusterDiscoveryPolicy, Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, Server, ServerConfig,
        TcpConfig, UnresponsiveConfig,
    },
};

use super::{
    RedisBackend,
    acks::Acks,
    address::{Address, Topology},
    client::{Client, Servers},
    connect::{self, Site},
    credentials::{Credential, Provider},
    fleet::{Fleet, MakeNode, Source},
    keys::Keys,
    near::{self, NearCache},
    node::Node,
    probe,
    replicas::Replicas,
    sentinel::Sentinels,
    tls::Tls,
};
use crate::backend::{Backend, BackendError, ErrorKind};

impl Backend {
    /// A Redis, or what speaks its protocol, from version 7.0 on.
    ///
    /// | URL | what |
    /// |---|---|
    /// | `redis://[user:password@]host[:port][/database]` | one server |
    /// | `redis-cluster://[user:password@]host[:port][?node=host:port…]` | a Cluster; the nodes to ask first |
    /// | `redis-sentinel://[user:password@]host[:port][/database]?sentinelServiceName=NAME[&node=host:port…]` | a master that Sentinels watch under this name; the hosts are Sentinels (default port 26379), user and password those of the master; `&sentinelUsername=` and `&sentinelPassword=` where the Sentinels want their own |
    ///
    /// `rediss`, `rediss-cluster` and `rediss-sentinel` are the same over TLS (to the Sentinels, too).
    ///
    /// Under Sentinel all that are known are asked once a second who the master is, and the one with the newest
    /// configuration is believed; so a failover is followed within about a second of it. Until then operations fail as
    /// they do without a server, within their time. What a failover can lose is told at [`RedisBuilder`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), tower_gatehouse::backend::BackendError> {
    /// use tower_gatehouse::Backend;
    ///
    /// let backend = Backend::redis("redis://127.0.0.1").namespace("shop").connect().await?;
    /// # Ok(()) }
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn redis(url: impl Into<String>) -> RedisBuilder {
        RedisBuilder {
            url: url.into(),
            namespace: "gh".into(),
            buckets: None,
            timeout: DEFAULT_TIMEOUT,
            limit_timeout: DEFAULT_LIMIT_TIMEOUT,
            username: None,
            password: None,
            provider: None,
            sentinel: None,
            wait: None,
            from_replicas: false,
            near: near::Size::default(),
            tls: Tls::default(),
        }
    }
}

/// Sets up a Redis backend; made by [`Backend::redis`].
///
/// # What a failover may lose
/// Redis replicates asynchronously. When a replica takes over, by Sentinel or in a Cluster, writes that the lost master
/// had acknowledged and not passed on are gone: sessions, what limits had counted, and invalidations, after which old
/// content may be served again for as long as it is fresh. Under Sentinel, a master that still runs while another one is
/// promoted has its readers and writers for about a second more; what they write is lost, and they do not see what
/// others invalidate at the new one. (A failover that the nodes of a Cluster agree on has no such time.) `min-replicas-to-write 1` with `min-replicas-max-lag 10` in
/// the servers' settings bounds what a master that was cut off goes on to accept. What must not be missed is
/// invalidated once more after a failover. [`wait_for_replicas`](Self::wait_for_replicas) narrows the gap.
///
#[doc = include_str!("permissions.md")]
#[derive(Clone)]
#[must_use = "call connect or connect_lazy"]
pub struct RedisBuilder {
    url: String,
    namespace: String,
    buckets: Option<u16>,
    timeout: Duration,
    limit_timeout: Duration,
    username: Option<String>,
    password: Option<String>,
    provider: Option<Provider>,
    sentinel: Option<Credential>,
    wait: Option<(u32, Duration)>,
    from_replicas: bool,
    near: near::Size,
    tls: Tls,
}

const DEFAULT_TIMEOUT: Duration = Duration::from_millis(100);
const DEFAULT_LIMIT_TIMEOUT: Duration = Duration::from_millis(50);
const CLUSTER_BUCKETS: u16 = 64;
/// The longest that an invalidation waits for replicas.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// How long [`RedisBuilder::connect`] tries.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// More commands than this in the queue to the connection are refused.
const MAX_QUEUED: usize = 16_384;
/// Messages and events that wait to be heard; a wake-up that is dropped costs a follower up to a second.
const BROADCAST_CAPACITY: usize = 4_096;

/// Sums of it do not overflow.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(24);

impl RedisBuilder {
    /// What all keys begin with; default `gh`. Two applications on one Redis need different ones.
    ///
    /// 1 to 64 visible ASCII characters but for `{` and `}`, checked by `connect`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Over how many parts the keys are spread, 1 to 1024; default 1, and 64 in a Cluster, where each part lies on one
    /// node. An invalidation of tags costs one command for each part. All processes that share a namespace must use
    /// the same number: `connect` refuses another one than the first that was used. Redis is asked for it every ten
    /// seconds, too, in case that it has lost it: where it has another one then, every operation fails with
    /// [`ErrorKind::Config`] until that is put right.
    pub fn buckets(mut self, buckets: u16) -> Self {
        self.buckets = Some(buckets);
        self
    }

    /// The longest that an operation may take; default 100 ms. An invalidation may take five times as long. Where much is
    /// asked for at once, an operation may have waited for its turn for up to 2 ms before.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The longest that a rate limit is waited for; default 50 ms, and never more than the
    /// [operation timeout](Self::operation_timeout). A limit is asked for with every request; one that is not answered in
    /// time is decided as its [`OnError`](crate::rate_limit::OnError) says.
    pub fn limit_timeout(mut self, timeout: Duration) -> Self {
        self.limit_timeout = timeout;
        self
    }

    /// The user of Redis' access control list; takes precedence over the URL's.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// The password; takes precedence over the URL's.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Asks `fetch` for the credential whenever a connection is made, and every `refresh` (if given) to authenticate
    /// anew; takes precedence over user name and password.
    pub fn credentials<F, Fut, E>(mut self, refresh: Option<Duration>, fetch: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credential, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.provider = Some(Provider::new(fetch, refresh));
        self
    }

    /// How to log in to the Sentinels, where they want that; takes precedence over the URL's. User name, password and
    /// [`credentials`](Self::credentials) are for the servers that they watch, never sent to a Sentinel.
    pub fn sentinel_credential(mut self, credential: Credential) -> Self {
        self.sentinel = Some(credential);
        self
    }

    /// Lets an invalidation wait until this many replicas of each master have acknowledged it (WAIT), or `timeout`, 1 ms
    /// to 15 s, has passed; not by default. A shortfall is an error of [`ErrorKind::Unreplicated`] that names the part
    /// and says how many have: the invalidation holds, but a failover to another replica would undo it. Repeating it
    /// waits anew.
    ///
    /// It costs a round trip to the replicas. An invalidation that arrives while another one waits waits for that one,
    /// too, so it may take twice the timeout, at most 30 s, besides its own time. Needs a connection more to each master,
    /// and the permission `+wait`.
    ///
    /// This narrows what a failover can lose, and does not close it. One replica is enough where the master is dead and
    /// Sentinel or the Cluster promotes the replica that has the most. It takes all of them where the old master lives on
    /// beside the new one: then an invalidation that has returned `Ok` has reached both. A replica that has acknowledged
    /// may still restart without its data before it is promoted. With all of them, each replica that is away makes every
    /// invalidation an error. Sessions and limits do not wait.
    pub fn wait_for_replicas(mut self, replicas: u32, timeout: Duration) -> Self {
        self.wait = Some((replicas, timeout));
        self
    }

    /// Looks responses up at the nearest replica of the server that has them, the one that answers fastest; not by
    /// default. All else, and whatever is no fresh hit there, goes to the master.
    ///
    /// **It costs a part of the promise**: after an invalidation has returned, other processes may still get the old
    /// content for as long as their replica lags, at most 5 s. A replica is asked only while its master has confirmed
    /// within that time that it is in step; one that lags more, or is cut off, is not asked. The process that has
    /// invalidated never gets the old content: it asks only replicas that have heard of it. What has replaced an older
    /// response without an invalidation is seen at a replica as late. With
    /// [`wait_for_replicas`](Self::wait_for_replicas) for all replicas, an invalidation that has returned `Ok` has
    /// reached whoever may be asked, and the whole promise holds.
    ///
    /// A miss costs a round trip more. The replicas are those that the master names (INFO), in a Cluster and with
    /// Sentinel, too; they need the same user and password, and in a Cluster the permission `+readonly`.
    pub fn read_from_replicas(mut self) -> Self {
        self.from_replicas = true;
        self
    }

    /// About how many bytes of memory this process may use to keep long responses that it reads again and again; default
    /// 32 MiB, 0 for none.
    ///
    /// A hit still asks Redis, in its one round trip, for all that may have invalidated the response, and whether Redis
    /// has this very response still. What is saved is sending it. So the promise is the same, and so is what becomes of
    /// a hit while Redis is away. What has replaced it comes in the same round trip if it has less than 256 KiB, else in
    /// another one.
    ///
    /// A response is kept when it is read for the second time, if it takes less than 95 % of a part: there is one part
    /// for each 8 MiB, rounded up to a power of two, and at most 8. The permissions `+evalsha_ro` and `+eval_ro` are
    /// needed: unless this is 0, `connect` refuses a user without them. Where they turn out to be missing later, or
    /// after `connect_lazy`, nothing is kept any more, with a warning.
    pub fn near_cache(mut self, bytes: u64) -> Self {
        self.near.most = bytes;
        self
    }

    /// From how many bytes on, with head and body as they are stored, a response is long; default 32 KiB, where sending
    /// it within one machine takes about as long as asking whether it is the same. Lower it for slower networks.
    pub fn near_cache_from(mut self, bytes: u64) -> Self {
        self.near.from = bytes;
        self
    }

    /// Trusts the certificate authorities of this PEM text, and no others; for `rediss://` with a private authority.
    /// Without TLS in the URL it is refused.
    pub fn tls_ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls = Tls::Private(pem.into());
        self
    }

    /// Takes the whole TLS configuration, for client certificates and the like. Without TLS in the URL it is refused.
    pub fn tls_config(mut self, config: impl Into<Arc<rustls::ClientConfig>>) -> Self {
        self.tls = Tls::Config(config.into());
        self
    }

    /// Connects, and checks that all is as it must be: the address, the password, the permissions, the version of the
    /// server. A server that does not answer has 5 s; where the connection is refused, that is said at once.
    ///
    /// # Errors
    /// One sentence that says what to change: [`ErrorKind::Config`], [`ErrorKind::Denied`],
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`].
    pub async fn connect(self) -> Result<Backend, BackendError> {
        let near = NearCache::new(self.near);
        let (site, subscriber) = self.parts(true)?;
        connect::now(&site, CONNECT_TIMEOUT).await?;
        Ok(Backend::custom(RedisBackend::new(site.client, subscriber, near)))
    }

    /// Connects in the background, so that a process can start while Redis is down. Until it is there, every operation
    /// fails at once with [`ErrorKind::Unavailable`]; in a Cluster, until the node is there that has the number of
    /// [buckets](Self::buckets). What `connect` would have refused is logged as an error; where it is the settings
    /// ([`ErrorKind::Config`]), every operation fails with that error until a check finds them right, which is made every
    /// five seconds.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the settings are wrong, or outside of a Tokio runtime.
    pub fn connect_lazy(self) -> Result<Backend, BackendError> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(config("connect_lazy must be called within a Tokio runtime"));
        }
        let (near, probe) = (NearCache::new(self.near), self.clone());
        let (site, subscriber) = self.parts(false)?;
        connect::in_background(&site, move || probe.clone().parts(true).map(|(site, _)| site));
        Ok(Backend::custom(RedisBackend::new(site.client, subscriber, near)))
    }

    fn parts(self, fail_fast: bool) -> Result<(Site, MakeSubscriber), BackendError> {
        let address = Address::parse(&self.url)?;
        let buckets = self.buckets.unwrap_or(match address.topology {
            Topology::Standalone | Topology::Sentinel => 1,
            Topology::Cluster => CLUSTER_BUCKETS,
        });
        if !(1..=Keys::MAX_BUCKETS).contains(&buckets) {
            return Err(config(format!("the number of buckets must be 1 to {}", Keys::MAX_BUCKETS)));
        }
        let name_is_good = |b: u8| b.is_ascii_graphic() && b != b'{' && b != b'}';
        if !(1..=64).contains(&self.namespace.len()) || !self.namespace.bytes().all(name_is_good) {
            return Err(config("the namespace must be 1 to 64 visible ASCII characters without { and }"));
        }
        let timeouts = [self.timeout, self.limit_timeout];
        if !timeouts.iter().all(|timeout| (Duration::from_millis(1)..=LONGEST_TIMEOUT).contains(timeout)) {
            return Err(config("the timeouts of operations and limits must be 1 ms to one day"));
        }
        if self.wait.is_some_and(|(_, wait)| !(Duration::from_millis(1)..=LONGEST_WAIT).contains(&wait)) {
            return Err(config("an invalidation waits for replicas for 1 ms to 15 s"));
        }
        if !address.tls && !matches!(self.tls, Tls::System) {
            return Err(config(
                "tls_ca and tls_config need rediss://, rediss-cluster:// or rediss-sentinel:// in the URL",
            ));
        }
        if address.topology != Topology::Sentinel && self.sentinel.is_some() {
            return Err(config("sentinel_credential needs redis-sentinel:// or rediss-sentinel:// in the URL"));
        }
        let username = self.username.or_else(|| address.username.clone());
        let user = if self.provider.is_some() { None } else { Some(username.clone().unwrap_or("default".into())) };
        let settings = Config {
            fail_fast: false,
            username,
            password: self.password.or_else(|| address.password.clone()),
            server: server(&address),
            database: address.database,
            tls: if address.tls { Some(self.tls.into_fred()?) } else { None },
            credential_provider: self.provider.map(|provider| Arc::new(provider) as _),
            ..Config::default()
        };
        let timeout = self.timeout;
        let keys = Keys::new(&self.namespace, buckets);
        let servers = match (address.topology, address.hosts.first()) {
            (Topology::Standalone, Some((host, port))) => {
                let make = make_probed(&settings, timeout);
                Servers::One(Node::new(make(host, *port, fail_fast), host, *port))
            }
            (Topology::Sentinel, _) => {
                let (username, password) = match self.sentinel {
                    Some(credential) => credential.into_parts(),
                    None => (address.sentinel_username.clone(), address.sentinel_password.clone()),
                };
                let asking =
                    Config { username, password, credential_provider: None, database: None, ..settings.clone() };
                let make = make_probed(&asking, timeout);
                let sentinels = Sentinels::new(make, address.service.clone(), address.hosts.clone());
                Servers::Fleet(Fleet::new(make_probed(&settings, timeout), Source::Sentinels(sentinels), &keys))
            }
            _ => {
                let seeds = Source::Slots(address.hosts.clone());
                Servers::Fleet(Fleet::new(make_probed(&settings, timeout), seeds, &keys))
            }
        };
        let acks = self.wait.map(|(replicas, wait)| {
            let timeout = timeout.max(wait);
            Acks::new(make_nodes(&settings, timeout, connection(timeout)), replicas, wait)
        });
        let cluster = address.topology == Topology::Cluster;
        let replicas = self.from_replicas.then(|| Replicas::new(make_probed(&settings, timeout), cluster));
        let client = Client::new(servers, keys, timeout, self.limit_timeout.min(timeout), acks, replicas);
        let topology = address.topology;
        let subscriber: MakeSubscriber = Arc::new(move |place| {
            let mut settings = settings.clone();
            match (topology, place) {
                (Topology::Sentinel, None) => return None,
                (Topology::Sentinel, Some((host, port))) => {
                    settings.server = ServerConfig::Centralized { server: Server::new(host.as_str(), *port) };
                }
                _ => {}
            }
            let subscriber =
                SubscriberClient::new(settings, Some(performance(timeout)), Some(connection(timeout)), Some(policy()));
            Some(subscriber)
        });
        let near_cache = self.near.most > 0;
        Ok((Site { client, topology: address.topology, place: address.place(), user, near_cache }, subscriber))
    }
}

fn make_nodes(settings: &Config, timeout: Duration, connection: ConnectionConfig) -> MakeNode {
    let settings = settings.clone();
    Box::new(move |host, port, fail_fast| {
        let server = ServerConfig::Centralized { server: Server::new(host, port) };
        let settings = Config { fail_fast, server, ..settings.clone() };
        Fred::new(settings, Some(performance(timeout)), Some(connection.clone()), Some(policy()))
    })
}

/// The same for servers that are probed when a call has failed: fred, which sets a timer for whatever it sends and reads,
/// need not watch them.
fn make_probed(settings: &Config, timeout: Duration) -> MakeNode {
    let unresponsive = UnresponsiveConfig { max_timeout: None, ..UnresponsiveConfig::default() };
    make_nodes(settings, timeout, ConnectionConfig { unresponsive, ..connection(timeout) })
}

/// Makes the second client, which hears wake-ups; under Sentinel for the master at this place, and none where it is not
/// known.
pub(super) type MakeSubscriber = Arc<dyn Fn(Option<&(String, u16)>) -> Option<SubscriberClient> + Send + Sync>;

fn server(address: &Address) -> ServerConfig {
    let mut hosts: Vec<_> = address.hosts.iter().map(|(host, port)| Server::new(host.as_str(), *port)).collect();
    match address.topology {
        // Under Sentinel, as yet: each client is made for the server that it is told.
        Topology::Standalone | Topology::Sentinel => ServerConfig::Centralized { server: hosts.swap_remove(0) },
        Topology::Cluster => ServerConfig::Clustered { hosts, policy: ClusterDiscoveryPolicy::default() },
    }
}

fn performance(timeout: Duration) -> PerformanceConfig {
    PerformanceConfig {
        // fred's default is to wait for ever.
        default_command_timeout: timeout,
        broadcast_channel_capacity: BROADCAST_CAPACITY,
        ..PerformanceConfig::default()
    }
}

fn connection(timeout: Duration) -> ConnectionConfig {
    ConnectionConfig {
        connection_timeout: Duration::from_secs(2),
        internal_command_timeout: Duration::from_secs(2),
        max_command_attempts: 1,
        max_command_buffer_len: MAX_QUEUED,
        // A connection over which nothing comes back is given up, as far as fred can tell: what it subscribes to does not
        // count, nor can it stop what it is writing.
        unresponsive: UnresponsiveConfig {
            max_timeout: Some(probe::patience(timeout)),
            interval: Duration::from_millis(500),
        },
        tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
        // By default fred tears the connection down when a write is refused by a replica, and with it all reads.
        reconnect_errors: Vec::new(),
        ..ConnectionConfig::default()
    }
}

fn policy() -> ReconnectPolicy {
    let mut policy = ReconnectPolicy::new_exponential(0, 50, 1_000, 2);
    policy.set_jitter(100);
    policy
}

fn config(message: impl Into<String>) -> BackendError {
    BackendError::new(ErrorKind::Config, message)
}

impl fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuilder")
            .field("namespace", &self.namespace)
            .field("buckets", &self.buckets)
            .field("timeout", &self.timeout)
            .field("limit_timeout", &self.limit_timeout)
            .field("near_cache", &self.near)
            .finish_non_exhaustive()
    }
}
