//! Asking the Sentinels who the master is.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use fred::error::{Error as FredError, ErrorKind as FredKind};
use futures_util::future;

use super::{
    error::Fault,
    fleet::{MakeNode, Unreached},
    node::Node,
    reply::Reply,
    slots::{ASK_TIMEOUT, Range},
};

/// The Sentinels of one master.
///
/// All of them are asked, and the one with the newest configuration is believed: one that was cut off from the others,
/// or has come back from an old state, would name a master that was replaced.
pub(super) struct Sentinels {
    make: MakeNode,
    service: String,
    seeds: Vec<(String, u16)>,
    known: Mutex<Vec<Arc<Node>>>,
}

/// What one Sentinel says.
#[derive(Debug, PartialEq)]
struct Opinion {
    host: String,
    port: u16,
    /// Raised by every failover.
    epoch: u64,
    others: Vec<(String, u16)>,
}

/// More addresses than this are not kept, whatever the Sentinels say.
const MAX_SENTINELS: usize = 32;

impl Sentinels {
    /// `make` makes clients for Sentinels, with the credentials that they want.
    pub(super) fn new(make: MakeNode, service: String, seeds: Vec<(String, u16)>) -> Self {
        let known = seeds.iter().map(|(host, port)| Node::new(make(host, *port, false), host, *port)).collect();
        Self { make, service, seeds, known: Mutex::new(known) }
    }

    /// Connects to one Sentinel after the other until one tells, and says why if none does.
    pub(super) async fn connect(&self) -> Result<Vec<Range>, Unreached> {
        self.start();
        let seeds = self.known();
        // With clients of their own, which give up and say why.
        let told = future::join_all(seeds.iter().map(async |seed| {
            let node = Node::new((self.make)(seed.host(), seed.port(), true), seed.host(), seed.port());
            match node.connect().await {
                Ok(()) => self.ask(&node).await,
                Err(error) => Err(error),
            }
        }));
        let (mut opinions, mut unknown, mut failed) = (Vec::new(), None, None);
        for (seed, told) in seeds.iter().zip(told.await) {
            match told {
                Ok(Some(opinion)) => opinions.push(opinion),
                Ok(None) => {
                    unknown.get_or_insert(format!("the Sentinel at {seed} knows no master {}", self.service));
                }
                Err(error) => {
                    failed.get_or_insert(Unreached { whom: format!("the Sentinel at {seed}"), error });
                }
            }
        }
        let why = || unknown.map(Unreached::said).or(failed).unwrap_or(Unreached::said("no Sentinel is named"));
        self.newest(opinions).ok_or_else(why)
    }

    /// Connects in the background.
    pub(super) fn start(&self) {
        self.known().iter().for_each(|node| node.start());
    }

    /// Who the master is now; `None` where no Sentinel answers.
    pub(super) async fn table(&self) -> Option<Vec<Range>> {
        let known = self.known();
        let told = future::join_all(known.iter().map(async |node| self.ask(node).await.ok().flatten()));
        let opinions = told.await.into_iter().flatten().collect();
        self.newest(opinions)
    }

    fn newest(&self, opinions: Vec<Opinion>) -> Option<Vec<Range>> {
        self.learn(opinions.iter().flat_map(|opinion| &opinion.others).collect());
        let newest = opinions.into_iter().max_by_key(|opinion| opinion.epoch)?;
        Some(vec![Range { first: 0, last: u16::MAX, host: newest.host, port: newest.port }])
    }

    /// Takes up Sentinels that others know, and lets go of those that neither answer nor are known to anybody.
    fn learn(&self, others: BTreeSet<&(String, u16)>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !others.is_empty() {
            let named = |node: &Node| {
                let mut places = self.seeds.iter().chain(others.iter().copied());
                places.any(|(host, port)| node.is_at(host, *port))
            };
            known.retain(|node| named(node) || !node.breaker().is_open());
        }
        for (host, port) in others {
            if known.len() < MAX_SENTINELS && !known.iter().any(|node| node.is_at(host, *port)) {
                let node = Node::new((self.make)(host, *port, false), host, *port);
                node.start();
                known.push(node);
            }
        }
    }

    fn known(&self) -> Vec<Arc<Node>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `None` where it does not know the master's name.
    async fn ask(&self, sentinel: &Arc<Node>) -> Result<Option<Opinion>, FredError> {
        let ask = |what: &'static str| {
            let args = vec![what.into(), self.service.as_str().into()];
            Box::pin(async move {
                // Through the breaker, so that one that is frozen is not waited for again and again.
                match sentinel.call("SENTINEL", args, ASK_TIMEOUT).await {
                    // "ERR No such master with that name"
                    Err(Fault::Failed(error)) if is_unknown_master(&error) => Ok(Reply::Nil),
                    Err(fault) => Err(fault.into_fred()),
                    Ok(reply) => Ok(reply),
                }
            })
        };
        // The address of its own command: during a failover it names the new master earlier than MASTER does.
        let (address, master, others) =
            future::try_join3(ask("GET-MASTER-ADDR-BY-NAME"), ask("MASTER"), ask("SENTINELS")).await?;
        if address == Reply::Nil || master == Reply::Nil {
            return Ok(None);
        }
        let unreadable = || FredError::new(FredKind::Protocol, "the Sentinel's answer cannot be read");
        parse(address, master, others).map(Some).ok_or_else(unreadable)
    }
}

fn is_unknown_master(error: &crate::backend::BackendError) -> bool {
    std::error::Error::source(error).is_some_and(|said| said.to_string().contains("No such master"))
}

fn parse(address: Reply, master: Reply, others: Reply) -> Option<Opinion> {
    let address = address.into_array()?;
    let [host, port] = address.as_slice() else { return None };
    let (host, port) = (host.as_str()?.to_owned(), port.as_u64()?.try_into().ok()?);
    let epoch = field(&master.into_array()?, "config-epoch")?.as_u64()?;
    let place = |other: Reply| {
        let fields = other.into_array()?;
        Some((field(&fields, "ip")?.as_str()?.to_owned(), field(&fields, "port")?.as_u64()?.try_into().ok()?))
    };
    let others = others.into_array().unwrap_or_default().into_iter().filter_map(place).collect();
    Some(Opinion { host, port, epoch, others })
}

/// From a list of names and values in turn.
fn field<'a>(fields: &'a [Reply], name: &str) -> Option<&'a Reply> {
    fields.chunks_exact(2).find(|pair| pair[0].as_str() == Some(name)).map(|pair| &pair[1])
}

impl fmt::Debug for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentinels")
            .field("service", &self.service)
            .field("known", &self.known())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn texts(texts: &[&'static str]) -> Reply {
        Reply::Array(texts.iter().map(|text| Reply::Bytes(Bytes::from_static(text.as_bytes()))).collect())
    }

    #[test]
    fn what_a_sentinel_says_is_read() {
        let address = texts(&["10.0.0.1", "6379"]);
        let master = texts(&["name", "main", "ip", "10.0.0.9", "config-epoch", "7", "flags", "master"]);
        let others = Reply::Array(vec![texts(&["ip", "10.0.0.2", "port", "26379"]), texts(&["ip", "10.0.0.3"])]);
        let opinion = parse(address, master, others).unwrap();
        assert_eq!(opinion.others, [("10.0.0.2".to_owned(), 26_379)]);
        assert_eq!((opinion.host.as_str(), opinion.port, opinion.epoch), ("10.0.0.1", 6379, 7));
    }

    #[test]
    fn nonsense_is_no_answer() {
        let address = || texts(&["10.0.0.1", "6379"]);
        assert_eq!(parse(Reply::Nil, texts(&["config-epoch", "7"]), Reply::Nil), None);
        assert_eq!(parse(address(), texts(&["config-epoch", "x"]), Reply::Nil), None);
        assert_eq!(parse(address(), texts(&["config-epoch"]), Reply::Nil), None);
        assert_eq!(parse(texts(&["10.0.0.1", "-1"]), texts(&["config-epoch", "7"]), Reply::Nil), None);
    }
}
