//! Which server has which bucket, where that may change: in a Cluster, and under Sentinel.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
    time::{Duration, Instant},
};

use fred::{
    clients::Client as Fred,
    error::{Error as FredError, ErrorKind as FredKind},
    types::Value,
};
use futures_util::future;
use tokio::sync::Notify;

use super::{
    error::{Fault, timed_out},
    keys::{Bucket, Keys},
    node::Node,
    reply::Reply,
    sentinel::Sentinels,
    slots::{self, ASK_TIMEOUT, Range},
};
use crate::backend::{BackendError, ErrorKind};

/// Makes a client for one server; with `true` its first attempt to connect is its last if it fails.
pub(super) type MakeNode = Box<dyn Fn(&str, u16, bool) -> Fred + Send + Sync>;

/// The masters and their buckets, kept up to date.
pub(super) struct Fleet {
    make: MakeNode,
    source: Source,
    slots: Box<[u16]>,
    /// The node of each bucket, `None` where none is known.
    routes: RwLock<Arc<[Option<Arc<Node>>]>>,
    /// All nodes that we have a connection to.
    nodes: Mutex<Vec<Arc<Node>>>,
    stale: Arc<Notify>,
}

/// Who tells which servers are the masters.
#[derive(Debug)]
pub(super) enum Source {
    /// The nodes of a Cluster themselves; these are asked first.
    Slots(Vec<(String, u16)>),
    /// Sentinels.
    Sentinels(Sentinels),
}

/// Who could not be reached when connecting, and why.
#[derive(Debug)]
pub(super) struct Unreached {
    /// "Redis at …", "the Sentinel at …".
    pub(super) whom: String,
    pub(super) error: FredError,
}

impl Unreached {
    /// Where one sentence says all.
    pub(super) fn said(message: impl Into<String>) -> Self {
        Self { whom: String::new(), error: FredError::new(FredKind::Sentinel, message.into()) }
    }

    pub(super) fn node(node: &Node, error: FredError) -> Self {
        Self { whom: format!("Redis at {node}"), error }
    }
}

/// How often the nodes of a Cluster are asked who has what although nothing seems to have changed.
const REFRESH_EVERY: Duration = Duration::from_secs(30);
/// How often while one of them is out of reach: a replica may take over. And how often Sentinels are asked: a master
/// that was cut off and replaced does not say so.
const REFRESH_SOON: Duration = Duration::from_secs(1);
/// And how often at most while something has.
const REFRESH_PAUSE: Duration = Duration::from_millis(200);

impl Fleet {
    pub(super) fn new(make: MakeNode, source: Source, keys: &Keys) -> Arc<Self> {
        let slots: Box<[u16]> = keys.buckets().map(|bucket| keys.slot(bucket)).collect();
        let routes = RwLock::new(slots.iter().map(|_| None).collect());
        let fleet = Self { make, source, slots, routes, nodes: Mutex::default(), stale: Arc::default() };
        Arc::new(fleet)
    }

    /// Finds the masters and connects to all of them.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<(), Unreached> {
        let (table, seed) = match &self.source {
            Source::Slots(seeds) => {
                let (table, seed) = self.first_table(seeds).await?;
                (table, Some(seed))
            }
            Source::Sentinels(sentinels) => (sentinels.connect().await?, None),
        };
        let masters = self.adopt(&table, seed.as_ref(), true);
        let connected = masters.iter().map(|node| async { node.connect().await.map_err(|e| Unreached::node(node, e)) });
        future::try_join_all(connected).await?;
        tokio::spawn(keep_fresh(Arc::downgrade(self), Arc::clone(&self.stale)));
        Ok(())
    }

    async fn first_table(&self, seeds: &[(String, u16)]) -> Result<(Vec<Range>, Arc<Node>), Unreached> {
        let mut last = None;
        for (host, port) in seeds {
            let seed = Node::new((self.make)(host, *port, true), host, *port);
            let table = match seed.connect().await {
                Ok(()) => slots::ask(&seed).await,
                Err(error) => Err(error),
            };
            match table {
                Ok(table) => return Ok((table, seed)),
                Err(error) => last = Some(Unreached::node(&seed, error)),
            }
        }
        Err(last.unwrap_or_else(|| Unreached::said("no node of the Redis Cluster is named")))
    }

    /// Looks for the masters in the background until they are found.
    pub(super) fn start(self: &Arc<Self>) {
        if let Source::Sentinels(sentinels) = &self.source {
            sentinels.start();
        }
        self.stale.notify_one();
        tokio::spawn(keep_fresh(Arc::downgrade(self), Arc::clone(&self.stale)));
    }

    /// Where a client has to connect that hears what is published, if that is known; `None` in a Cluster, whose nodes
    /// such a client finds by itself.
    pub(super) fn place(&self) -> Option<(String, u16)> {
        if matches!(self.source, Source::Slots(_)) {
            return None;
        }
        let node = self.routes().first()?.clone()?;
        Some((node.host().to_owned(), node.port()))
    }

    pub(super) fn node(&self, bucket: Bucket) -> Result<Arc<Node>, BackendError> {
        let node = self.routes.read().unwrap_or_else(PoisonError::into_inner)[bucket.index()].clone();
        node.ok_or_else(|| {
            self.stale.notify_one();
            let message = match self.source {
                Source::Slots(_) => "it is not known yet which node of the Redis Cluster has the slot",
                Source::Sentinels(_) => "no Sentinel has said yet which Redis is the master",
            };
            BackendError::new(ErrorKind::Unavailable, message)
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
            Err(Fault::Failed(error)) if error.is_outage() || error.kind() == ErrorKind::ReadOnly => {
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

    /// Every node that has a bucket.
    pub(super) fn masters(&self) -> Vec<Arc<Node>> {
        let mut masters: Vec<Arc<Node>> = Vec::new();
        for node in self.routes().iter().flatten() {
            if !masters.iter().any(|known| Arc::ptr_eq(known, node)) {
                masters.push(Arc::clone(node));
            }
        }
        masters
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

    /// Asks for the masters anew; `false` where nobody tells.
    async fn refresh(&self) -> bool {
        let table = match &self.source {
            Source::Slots(seeds) => self.table_of_slots(seeds).await,
            Source::Sentinels(sentinels) => sentinels.table().await,
        };
        table.is_some_and(|table| {
            self.adopt(&table, None, false);
            true
        })
    }

    /// Asks one node after the other until one tells.
    async fn table_of_slots(&self, seeds: &[(String, u16)]) -> Option<Vec<Range>> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for node in nodes.iter().filter(|node| !node.breaker().is_open()) {
            if let Ok(table) = slots::ask(node).await {
                return Some(table);
            }
        }
        for (host, port) in seeds {
            if nodes.iter().any(|node| node.is_at(host, *port) && !node.breaker().is_open()) {
                continue;
            }
            let seed = Node::new((self.make)(host, *port, true), host, *port);
            if let Ok(Ok(())) = tokio::time::timeout(ASK_TIMEOUT, seed.connect()).await
                && let Ok(table) = slots::ask(&seed).await
            {
                return Some(table);
            }
        }
        None
    }
}

/// Keeps the routes up to date. Ends when the fleet is dropped.
async fn keep_fresh(fleet: Weak<Fleet>, stale: Arc<Notify>) {
    let mut wait = REFRESH_SOON;
    loop {
        // Without a hold on the fleet, so that it can be dropped meanwhile.
        let _ = tokio::time::timeout(wait, stale.notified()).await;
        let Some(fleet) = fleet.upgrade() else { return };
        let fresh = fleet.refresh().await;
        let calm = fresh && !fleet.in_trouble() && matches!(fleet.source, Source::Slots(_));
        wait = if calm { REFRESH_EVERY } else { REFRESH_SOON };
        drop(fleet);
        tokio::time::sleep(REFRESH_PAUSE).await;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stale.notify_one();
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&*self.nodes.lock().unwrap_or_else(PoisonError::into_inner)).finish()
    }
}
