//! Which node of a Cluster has which bucket.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
    time::{Duration, Instant},
};

use fred::{clients::Client as Fred, types::Value};
use futures_util::future;
use tokio::sync::Notify;

use super::{
    error::{Fault, timed_out},
    keys::{Bucket, Keys},
    node::Node,
    reply::Reply,
};
use crate::backend::{BackendError, ErrorKind};

/// Makes a client for one server; with `true` its first attempt to connect is its last if it fails.
pub(super) type MakeNode = Box<dyn Fn(&str, u16, bool) -> Fred + Send + Sync>;

/// The masters of a Cluster and their buckets, kept up to date.
pub(super) struct Cluster {
    make: MakeNode,
    seeds: Vec<(String, u16)>,
    slots: Box<[u16]>,
    /// The node of each bucket, `None` where none is known.
    routes: RwLock<Arc<[Option<Arc<Node>>]>>,
    /// All nodes that we have a connection to.
    nodes: Mutex<Vec<Arc<Node>>>,
    stale: Arc<Notify>,
}

/// How often the nodes are asked who has what although nothing seems to have changed.
const REFRESH_EVERY: Duration = Duration::from_secs(30);
/// How often while one of them is out of reach: a replica may take over.
const REFRESH_IN_TROUBLE: Duration = Duration::from_secs(1);
/// And how often at most while something has.
const REFRESH_PAUSE: Duration = Duration::from_millis(200);
/// How long one node may take to tell.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

impl Cluster {
    pub(super) fn new(make: MakeNode, seeds: Vec<(String, u16)>, keys: &Keys) -> Arc<Self> {
        let slots: Box<[u16]> = keys.buckets().map(|bucket| keys.slot(bucket)).collect();
        let routes = RwLock::new(slots.iter().map(|_| None).collect());
        let cluster = Self { make, seeds, slots, routes, nodes: Mutex::default(), stale: Arc::default() };
        Arc::new(cluster)
    }

    /// Finds the masters and connects to all of them.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<(), fred::error::Error> {
        let mut last = None;
        for (host, port) in &self.seeds {
            let seed = Node::new((self.make)(host, *port, true), host, *port);
            let table = match seed.connect().await {
                Ok(()) => ask(&seed).await,
                Err(error) => Err(error),
            };
            match table {
                Ok(table) => {
                    let masters = self.adopt(&table, Some(&seed), true);
                    future::try_join_all(masters.iter().map(|node| node.connect())).await?;
                    tokio::spawn(keep_fresh(Arc::downgrade(self), Arc::clone(&self.stale)));
                    return Ok(());
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| fred::error::Error::new(fred::error::ErrorKind::Config, "no node is named")))
    }

    /// Looks for the masters in the background until they are found.
    pub(super) fn start(self: &Arc<Self>) {
        self.stale.notify_one();
        tokio::spawn(keep_fresh(Arc::downgrade(self), Arc::clone(&self.stale)));
    }

    /// Whether every bucket has a node that is connected.
    pub(super) fn is_connected(&self) -> bool {
        use fred::interfaces::ClientLike as _;
        self.routes().iter().all(|node| node.as_ref().is_some_and(|node| node.fred().is_connected()))
    }

    pub(super) fn node(&self, bucket: Bucket) -> Result<Arc<Node>, BackendError> {
        let node = self.routes.read().unwrap_or_else(PoisonError::into_inner)[bucket.index()].clone();
        node.ok_or_else(|| {
            self.stale.notify_one();
            BackendError::new(
                ErrorKind::Unavailable,
                "it is not known yet which node of the Redis Cluster has the slot",
            )
        })
    }

    /// Sends one command to the node of the bucket, and once more to another one if that is told to have it. It is on
    /// its way when this was polled once.
    pub(super) async fn call(
        &self,
        bucket: Bucket,
        name: &'static str,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<Reply, Fault> {
        let deadline = Instant::now() + timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        let node = self.node(bucket)?;
        match node.call(name, args.clone(), timeout).await {
            Err(Fault::Moved(to)) => {
                self.stale.notify_one();
                let node = Box::pin(self.at(&to, &node, left())).await?;
                // Boxed, as all that is rare: it would be a part of every call's future.
                Box::pin(node.call(name, args, left())).await
            }
            Err(Fault::Ask(to)) => {
                let node = Box::pin(self.at(&to, &node, left())).await?;
                Box::pin(node.call_asking(name, args, left())).await
            }
            Err(Fault::Failed(error)) if error.is_outage() => {
                self.stale.notify_one();
                Err(error.into())
            }
            answer => answer,
        }
    }

    /// The node at an address that `from` has named, connected.
    async fn at(&self, address: &str, from: &Node, timeout: Duration) -> Result<Arc<Node>, Fault> {
        let unreadable = || BackendError::new(ErrorKind::Protocol, "Redis redirects to an address that cannot be read");
        let (host, port) = address.rsplit_once(':').ok_or_else(unreadable)?;
        let port = port.parse().map_err(|_| unreadable())?;
        // "The same host as this one."
        let host = if host.is_empty() { from.host() } else { host };
        let node = self.known(host, port);
        match tokio::time::timeout(timeout, node.connect()).await {
            Ok(Ok(())) => Ok(node),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(timed_out().into()),
        }
    }

    /// The node at this address, made and connecting if there is none yet.
    fn known(&self, host: &str, port: u16) -> Arc<Node> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = nodes.iter().find(|node| node.is_at(host, port)) {
            return Arc::clone(node);
        }
        let node = Node::new((self.make)(host, port, false), host, port);
        node.start();
        nodes.push(Arc::clone(&node));
        node
    }

    /// Whether a node is out of reach.
    pub(super) fn in_trouble(&self) -> bool {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|node| node.breaker().is_open())
    }

    fn routes(&self) -> Arc<[Option<Arc<Node>>]> {
        Arc::clone(&self.routes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over what a node has told: keeps the masters, lets go of the others. Returns the masters.
    fn adopt(&self, table: &[Range], seed: Option<&Arc<Node>>, fail_fast: bool) -> Vec<Arc<Node>> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut masters: Vec<Arc<Node>> = Vec::new();
        for range in table {
            if masters.iter().any(|node| node.is_at(&range.host, range.port)) {
                continue;
            }
            let known = nodes.iter().chain(seed).find(|node| node.is_at(&range.host, range.port));
            masters.push(known.map_or_else(
                || {
                    let node = Node::new((self.make)(&range.host, range.port, fail_fast), &range.host, range.port);
                    if !fail_fast {
                        node.start();
                    }
                    node
                },
                Arc::clone,
            ));
        }
        let owner = |slot: &u16| {
            let range = table.iter().find(|range| (range.first..=range.last).contains(slot))?;
            masters.iter().find(|node| node.is_at(&range.host, range.port)).cloned()
        };
        let routes = self.slots.iter().map(owner).collect();
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = routes;
        nodes.clone_from(&masters);
        masters
    }

    /// Asks one node after the other until one tells.
    async fn refresh(&self) -> bool {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for node in nodes.iter().filter(|node| !node.breaker().is_open()) {
            if let Ok(table) = ask(node).await {
                self.adopt(&table, None, false);
                return true;
            }
        }
        for (host, port) in &self.seeds {
            if nodes.iter().any(|node| node.is_at(host, *port) && !node.breaker().is_open()) {
                continue;
            }
            let seed = Node::new((self.make)(host, *port, true), host, *port);
            if let Ok(Ok(())) = tokio::time::timeout(ASK_TIMEOUT, seed.connect()).await
                && let Ok(table) = ask(&seed).await
            {
                self.adopt(&table, None, false);
                return true;
            }
        }
        false
    }
}

/// Keeps the routes up to date. Ends when the cluster is dropped.
async fn keep_fresh(cluster: Weak<Cluster>, stale: Arc<Notify>) {
    let mut wait = REFRESH_EVERY;
    loop {
        // Without a hold on the cluster, so that it can be dropped meanwhile.
        let _ = tokio::time::timeout(wait, stale.notified()).await;
        let Some(cluster) = cluster.upgrade() else { return };
        let fresh = cluster.refresh().await;
        wait = if fresh && !cluster.in_trouble() { REFRESH_EVERY } else { REFRESH_IN_TROUBLE };
        drop(cluster);
        tokio::time::sleep(REFRESH_PAUSE).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stale.notify_one();
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&*self.nodes.lock().unwrap_or_else(PoisonError::into_inner)).finish()
    }
}

/// Slots `first` to `last` belong to this master.
#[derive(Debug, PartialEq)]
struct Range {
    first: u16,
    last: u16,
    host: String,
    port: u16,
}

async fn ask(node: &Node) -> Result<Vec<Range>, fred::error::Error> {
    let unreadable = || fred::error::Error::new(fred::error::ErrorKind::Protocol, "CLUSTER SLOTS cannot be read");
    match node.send("CLUSTER", vec!["SLOTS".into()], ASK_TIMEOUT).await {
        Ok(reply) => parse_slots(reply, node.host()).ok_or_else(unreadable),
        Err(fault) => Err(fault.into_fred()),
    }
}

/// `asked` is the host of the node that tells: it may leave out its own.
fn parse_slots(reply: Reply, asked: &str) -> Option<Vec<Range>> {
    let range = |reply: Reply| {
        let parts = reply.into_array()?;
        let slot = |i: usize| parts.get(i)?.as_u64()?.try_into().ok();
        let (first, last) = (slot(0)?, slot(1)?);
        let master = parts.get(2)?.clone().into_array()?;
        let host = master.first()?.as_str().filter(|host| !host.is_empty() && *host != "?").unwrap_or(asked).to_owned();
        Some(Range { first, last, host, port: master.get(1)?.as_u64()?.try_into().ok()? })
    };
    reply.into_array()?.into_iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn text(text: &'static str) -> Reply {
        Reply::Bytes(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn the_table_of_slots_is_read_and_a_node_may_leave_out_its_own_host() {
        let node = |host, port| Reply::Array(vec![host, Reply::Int(port), text("id"), Reply::Array(Vec::new())]);
        let range = |first, last, node| Reply::Array(vec![Reply::Int(first), Reply::Int(last), node]);
        let table = Reply::Array(vec![
            range(0, 5460, node(text("10.0.0.1"), 7000)),
            range(5461, 10_922, node(text(""), 7001)),
            range(10_923, 16_383, node(Reply::Nil, 7002)),
        ]);
        let table = parse_slots(table, "asked").unwrap();
        let places: Vec<_> = table.iter().map(|range| format!("{}:{}", range.host, range.port)).collect();
        assert_eq!(places, ["10.0.0.1:7000", "asked:7001", "asked:7002"]);
        assert_eq!((table[1].first, table[1].last), (5461, 10_922));
    }

    #[test]
    fn a_table_of_nonsense_is_no_table() {
        assert_eq!(parse_slots(Reply::Nil, "h"), None);
        assert_eq!(parse_slots(Reply::Array(vec![Reply::Int(1)]), "h"), None);
        let negative = Reply::Array(vec![Reply::Int(-1), Reply::Int(5), Reply::Array(Vec::new())]);
        assert_eq!(parse_slots(Reply::Array(vec![negative]), "h"), None);
    }
}
