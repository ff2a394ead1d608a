//! What look-ups ask for first: the clock, and entry, cell and tags of a key. Those of the same moment are one MGET, and
//! those that ask the same have one answer.
//!
//! A look-up has part only in what is asked for after it began, so that it sees whatever was invalidated before.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
    vec::IntoIter,
};

use bytes::Bytes;
use fred::types::Value;
use futures_util::future;

use super::{
    cells::{Cell, Clock, Primary, TagCells},
    client::Client,
    error::Fault,
    keys::Bucket,
    malformed::Malformed,
    names::{self, Names},
    node::Node,
    reply::Reply,
    together::{Alike, Call, Carrier, Together, Turn, in_parts},
};
use crate::{
    TagDigest,
    backend::{BackendError, Entry, PrimaryKey, Tick, Variant, VarySpec, blob},
};

/// How many go together at most.
const MOST: usize = 64;
/// About how long their reply is at most, bytes: the first of them waits for the last.
const LONGEST: usize = 256 << 10;

/// Asks for what look-ups want to know; cheap to clone.
#[derive(Clone)]
pub(super) struct Looks {
    client: Client,
    together: Together<Bucket, Look, Arc<Seen>>,
    malformed: Malformed,
    /// About how long entries are.
    typical: Arc<AtomicUsize>,
}

/// What one look-up asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Look {
    pub(super) key: PrimaryKey,
    pub(super) variant: Variant,
    pub(super) tags: Arc<[TagDigest]>,
}

/// What Redis showed at one moment.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) clock: Option<Clock>,
    pub(super) cell: Option<Cell>,
    /// How the key varies, as far as the cell says.
    pub(super) vary: Option<VarySpec>,
    pub(super) entry: Option<Arc<Entry>>,
    /// The tick of the entry that is there, valid or not; 0 if there is none.
    pub(super) since: Tick,
    pub(super) tags: TagCells,
}

type Answer = Result<Arc<Seen>, BackendError>;

impl Looks {
    pub(super) fn new(client: Client, malformed: Malformed) -> Self {
        let together = Together::new(client.keys().buckets().len());
        Self { client, together, malformed, typical: Arc::default() }
    }

    /// At this replica, or at the master.
    pub(super) async fn look(&self, replica: Option<&Arc<Node>>, look: &Look) -> Answer {
        let bucket = names::bucket(self.client.keys(), &look.key);
        if let Some(replica) = replica {
            let reply = self.ask_replica(replica, self.keys(bucket, [look])).await?;
            return self.read_one(look, reply);
        }
        match self.together.turn(bucket, || look.clone(), self) {
            Turn::Soon(answer) => answer.get().await,
            Turn::Now(_journey) => self.alone(bucket, look, self.client.timeout()).await,
        }
    }

    /// Adds what these tags show, and the clock: the newest one judges everything.
    pub(super) async fn look_at_tags(
        &self,
        replica: Option<&Arc<Node>>,
        key: &PrimaryKey,
        seen: &mut Seen,
        tags: &[TagDigest],
    ) -> Result<(), BackendError> {
        let names = Names::new(self.client.keys(), key);
        let keys = || {
            let mut keys = Vec::with_capacity(1 + tags.len());
            keys.push(Value::Bytes(names.clock()));
            names.ask(tags.len(), &mut keys).tags(tags);
            keys
        };
        let reply = if let Some(replica) = replica {
            self.ask_replica(replica, keys()).await?
        } else {
            let call = |timeout| self.client.call(names.bucket, "MGET", keys(), timeout);
            self.client.retrying(self.client.timeout(), call).await?
        };
        let mut values = values(reply, 1 + tags.len())?;
        seen.clock = self.clock(&mut values);
        seen.tags.read(tags, || next(&mut values));
        Ok(())
    }

    /// In half of the time, so that the master can be asked in the other half.
    async fn ask_replica(&self, replica: &Arc<Node>, keys: Vec<Value>) -> Result<Reply, BackendError> {
        Box::pin(replica.call("MGET", keys, self.client.timeout() / 2)).await.map_err(Fault::into_error)
    }

    async fn alone(&self, bucket: Bucket, look: &Look, timeout: Duration) -> Answer {
        let call = |timeout| self.client.call(bucket, "MGET", self.keys(bucket, [look]), timeout);
        let reply = self.client.retrying(timeout, call).await?;
        self.read_one(look, reply)
    }

    /// Asks for all of them at once.
    async fn at_once(&self, bucket: Bucket, all: Vec<Alike<Look, Arc<Seen>>>) {
        let deadline = Instant::now() + self.client.timeout();
        let looks = || all.iter().map(|alike| &alike.ask);
        let answer = self.client.call(bucket, "MGET", self.keys(bucket, looks()), self.client.timeout()).await;
        let seen = match answer {
            Ok(reply) => self.read(looks(), reply),
            // Some of the keys have moved and some have not. One by one it is known where each is.
            Err(Fault::TryAgain) => {
                let one = |alike: Alike<Look, _>| async move {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let answer = self.alone(bucket, &alike.ask, left).await;
                    alike.tell(&answer);
                };
                future::join_all(all.into_iter().map(one)).await;
                return;
            }
            Err(fault) => {
                self.client.failed_for(bucket, &fault, all.iter().map(Alike::callers).sum());
                Err(fault.into_error())
            }
        };
        match seen {
            Ok(seen) => all.into_iter().zip(seen).for_each(|(alike, seen)| alike.tell(&Ok(seen))),
            Err(error) => all.into_iter().for_each(|alike| alike.tell(&Err(error.clone()))),
        }
    }

    fn keys<'a>(&self, bucket: Bucket, looks: impl IntoIterator<Item = &'a Look> + Clone) -> Vec<Value> {
        let keys = self.client.keys();
        let mut asked = Vec::with_capacity(count(looks.clone()));
        asked.push(Value::Bytes(keys.clock(bucket)));
        for Look { key, variant, tags } in looks {
            Names::new(keys, key).ask(2 + tags.len(), &mut asked).entry(*variant).primary().tags(tags);
        }
        asked
    }

    fn read_one(&self, look: &Look, reply: Reply) -> Answer {
        self.read([look], reply)?.pop().ok_or_else(|| Reply::unexpected("MGET"))
    }

    /// What the reply shows to each of them.
    fn read<'a>(
        &self,
        looks: impl IntoIterator<Item = &'a Look> + Clone,
        reply: Reply,
    ) -> Result<Vec<Arc<Seen>>, BackendError> {
        let mut values = values(reply, count(looks.clone()))?;
        let clock = self.clock(&mut values);
        Ok(looks.into_iter().map(|look| Arc::new(self.see(clock, &look.tags, &mut values))).collect())
    }

    fn clock(&self, values: &mut IntoIter<Reply>) -> Option<Clock> {
        next(values).and_then(|value| self.malformed.counted(Clock::parse(&value)))
    }

    fn see(&self, clock: Option<Clock>, tags: &[TagDigest], values: &mut IntoIter<Reply>) -> Seen {
        let stored = next(values);
        let stored_len = stored.as_ref().map_or(0, Bytes::len);
        let typical = self.typical.load(Ordering::Relaxed);
        self.typical.store(typical - typical / 8 + stored_len / 8, Ordering::Relaxed);

        let decoded = stored.as_ref().map(blob::decode);
        let since = decoded.as_ref().map_or(0, |decoded| decoded.tick);
        let entry = decoded.and_then(|decoded| self.malformed.counted(decoded.entry));
        let (mut cell, mut vary) = (None, None);
        if let Some(value) = next(values)
            && let Some(primary) = self.malformed.counted(Primary::parse(&value))
        {
            cell = Some(primary.cell);
            vary = primary.vary.and_then(|vary| VarySpec::new(value.slice_ref(vary)));
        }
        let mut seen = Seen { clock, cell, vary, entry, since, tags: TagCells::with_capacity(tags.len()) };
        seen.tags.read(tags, || next(values));
        seen
    }
}

impl Carrier for Looks {
    type Place = Bucket;
    type Ask = Look;
    type Answer = Arc<Seen>;

    async fn carry(self, bucket: Bucket, calls: Vec<Call<Look, Arc<Seen>>>) {
        let most = (LONGEST / self.typical.load(Ordering::Relaxed).max(1)).clamp(1, MOST);
        future::join_all(in_parts(Alike::of(calls), most).map(|part| self.at_once(bucket, part))).await;
    }
}

/// How many keys look-ups ask for: the clock, and each its entry, its cell and its tags.
fn count<'a>(looks: impl IntoIterator<Item = &'a Look>) -> usize {
    1 + looks.into_iter().map(|look| 2 + look.tags.len()).sum::<usize>()
}

/// The values, if there are `n` of them.
fn values(reply: Reply, n: usize) -> Result<IntoIter<Reply>, BackendError> {
    let values = reply.into_array().filter(|values| values.len() == n);
    Ok(values.ok_or_else(|| Reply::unexpected("MGET"))?.into_iter())
}

fn next(values: &mut IntoIter<Reply>) -> Option<Bytes> {
    values.next().and_then(Reply::into_bytes)
}
