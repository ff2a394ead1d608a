//! Which replicas are near, and in step with their master.
//!
//! Each master is asked once a second how far its replicas are. One that has acknowledged all that the master had
//! written when it was asked before is trusted until [`TRUSTED`] after that earlier question: so what a replica answers
//! is never older than this, whatever becomes of it or of the connections. The nearest of those that are trusted is the
//! one that answered fastest of late.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future;

use super::{
    client::{self, Client},
    error::Fault,
    fleet::MakeNode,
    node::Node,
};
use crate::backend::ErrorKind;

pub(super) struct Replicas {
    make: MakeNode,
    /// In a Cluster, a replica has to be told that it is to answer.
    cluster: bool,
    of: RwLock<Arc<HashMap<Place, Vec<Arc<Replica>>>>>,
    /// What each master had written when it was asked last.
    written: Mutex<HashMap<Place, (u64, Instant)>>,
    /// It was said that the user may not read there.
    refused: AtomicBool,
}

type Place = (String, u16);

struct Replica {
    node: Arc<Node>,
    trusted_until: Mutex<Option<Instant>>,
    /// Microseconds, smoothed; `u64::MAX` where it does not answer.
    round_trip: AtomicU64,
}

/// How far an answer of a replica may be behind.
pub(super) const TRUSTED: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_secs(1);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

impl Replicas {
    pub(super) fn new(make: MakeNode, cluster: bool) -> Self {
        Self { make, cluster, of: RwLock::default(), written: Mutex::default(), refused: AtomicBool::new(false) }
    }

    /// The nearest replica of a master that may be asked.
    pub(super) fn nearest(&self, master: &Node) -> Option<Arc<Node>> {
        let of = Arc::clone(&self.of.read().unwrap_or_else(PoisonError::into_inner));
        let now = Instant::now();
        // One master, mostly: a look at each is cheaper than a key.
        let (_, replicas) = of.iter().find(|((host, port), _)| master.is_at(host, *port))?;
        let usable = replicas.iter().filter(|replica| replica.is_usable(now));
        usable.min_by_key(|replica| replica.round_trip.load(Ordering::Relaxed)).map(|replica| Arc::clone(&replica.node))
    }

    /// Asks all masters how far their replicas are, and how near these are.
    async fn refresh(&self, masters: &[Arc<Node>]) {
        let told = future::join_all(masters.iter().map(async |master| {
            let asked = Instant::now();
            let reply = master.ask("INFO", vec!["replication".into()], ASK_TIMEOUT).await.ok()?;
            Some((Arc::clone(master), asked, parse(reply.as_str()?)?))
        }));
        let before = Arc::clone(&self.of.read().unwrap_or_else(PoisonError::into_inner));
        let mut of = HashMap::new();
        for (master, asked, info) in told.await.into_iter().flatten() {
            let place = (master.host().to_owned(), master.port());
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            let earlier = written.insert(place.clone(), (info.written, asked));
            drop(written);
            let known = before.get(&place).map(Vec::as_slice).unwrap_or_default();
            let replicas = info.replicas.into_iter().map(|(host, port, acknowledged)| {
                let known = known.iter().find(|replica| replica.node.is_at(&host, port)).cloned();
                let replica = known.unwrap_or_else(|| self.add(&host, port));
                if let Some((written, then)) = earlier
                    && acknowledged >= written
                {
                    *replica.trusted_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(then + TRUSTED);
                }
                replica
            });
            of.insert(place, replicas.collect::<Vec<_>>());
        }
        // A master that does not answer keeps its replicas; their time runs out.
        for master in masters {
            let place = (master.host().to_owned(), master.port());
            if let Some(replicas) = before.get(&place) {
                of.entry(place).or_insert_with(|| replicas.clone());
            }
        }
        self.written.lock().unwrap_or_else(PoisonError::into_inner).retain(|place, _| of.contains_key(place));
        let all: Vec<_> = of.values().flatten().cloned().collect();
        *self.of.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(of);
        let refused = future::join_all(all.iter().map(|replica| replica.measure(self.cluster))).await.contains(&true);
        if refused && !self.refused.swap(true, Ordering::Relaxed) {
            tracing::warn!("the Redis user may not run READONLY: look-ups go to the masters");
        }
    }

    fn add(&self, host: &str, port: u16) -> Arc<Replica> {
        let node = Node::new((self.make)(host, port, false), host, port);
        node.start();
        Arc::new(Replica { node, trusted_until: Mutex::default(), round_trip: AtomicU64::new(u64::MAX) })
    }
}

impl Replica {
    fn is_usable(&self, now: Instant) -> bool {
        self.trusted_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
            && self.round_trip.load(Ordering::Relaxed) != u64::MAX
            && !self.node.breaker().is_open()
    }

    /// Whether the user lacks the permission to read there.
    async fn measure(&self, cluster: bool) -> bool {
        let asked = Instant::now();
        let name = if cluster { "READONLY" } else { "PING" };
        let answer = self.node.ask(name, Vec::new(), ASK_TIMEOUT).await.map_err(Fault::into_error);
        let round_trip = match &answer {
            Ok(_) => {
                let now = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX / 8);
                match self.round_trip.load(Ordering::Relaxed) {
                    u64::MAX => now,
                    before => (before * 3 + now) / 4,
                }
            }
            Err(_) => u64::MAX,
        };
        self.round_trip.store(round_trip, Ordering::Relaxed);
        answer.is_err_and(|error| error.kind() == ErrorKind::Denied)
    }
}

/// Keeps it up to date. Ends when the last handle is dropped.
pub(super) async fn keep_up(client: Weak<client::Shared>) {
    loop {
        {
            let Some(client) = Client::upgrade(&client) else { return };
            if let Some(replicas) = client.replicas() {
                replicas.refresh(&client.masters()).await;
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// What a master says of itself and its replicas.
#[derive(Debug, PartialEq)]
struct Info {
    written: u64,
    /// Where each is, and what it has acknowledged.
    replicas: Vec<(String, u16, u64)>,
}

/// `None` for what is no master.
fn parse(info: &str) -> Option<Info> {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    if field("role")?.trim() != "master" {
        return None;
    }
    let replica = |line: &str| {
        let number = line.strip_prefix("slave")?.split_once(':')?;
        number.0.parse::<u32>().ok()?;
        let part = |name: &str| number.1.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
        let online = part("state")? == "online";
        let place = (part("ip")?.to_owned(), part("port")?.parse().ok()?, part("offset")?.parse().ok()?);
        online.then_some(place)
    };
    let written = field("master_repl_offset")?.trim().parse().ok()?;
    Some(Info { written, replicas: info.lines().filter_map(replica).collect() })
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = Arc::clone(&self.of.read().unwrap_or_else(PoisonError::into_inner));
        f.debug_list().entries(of.values().flatten().map(|replica| &replica.node)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_tells_of_its_replicas_and_only_those_in_use_count() {
        let info = "# Replication\r\nrole:master\r\nconnected_slaves:3\r\n\
            slave0:ip=10.0.0.2,port=6379,state=online,offset=1400,lag=0\r\n\
            slave1:ip=10.0.0.3,port=6380,state=wait_bgsave,offset=0,lag=0\r\n\
            slave2:ip=10.0.0.4,port=x,state=online,offset=1,lag=0\r\n\
            master_replid:abc\r\nmaster_repl_offset:1414\r\n";
        let replicas = vec![("10.0.0.2".to_owned(), 6379, 1400)];
        assert_eq!(parse(info), Some(Info { written: 1414, replicas }));
        assert_eq!(parse(&info.replace("role:master", "role:slave")), None);
        assert_eq!(parse(""), None);
    }
}
