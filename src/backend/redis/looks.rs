//! What look-ups ask for first: the clock, and entry, cell and tags of a key. Those of the same moment are asked for
//! together, and those that ask the same have one answer.
//!
//! A look-up has part only in what is asked for after it began, so that it sees whatever was invalidated before.
//!
//! The question is an MGET; for those that the near cache has it is a script, which says whether Redis still has the same.

use std::{
    sync::Arc,
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
    near::{Near, NearCache},
    node::Node,
    reply::Reply,
    script::Script,
    together::{Alike, Call, Carrier, MOST, Together, Turn, Typical, in_parts},
};
use crate::{
    TagDigest,
    backend::{BackendError, Entry, ErrorKind, PrimaryKey, Tick, Variant, VarySpec, blob},
};

pub(super) static LOOK: Script = Script::reading("look", include_str!("lua/look.lua"));

/// How many keys the script reads at most: it holds up all others. One look-up has fewer.
const MOST_KEYS: usize = 500;

/// Asks for what look-ups want to know; cheap to clone.
#[derive(Clone)]
pub(super) struct Looks {
    client: Client,
    together: Together<Bucket, Look, Arc<Seen>>,
    malformed: Malformed,
    near: NearCache,
    /// Of entries.
    typical: Typical,
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
/// What several look for alike, and what is near of it.
type Party = (Near, Alike<Look, Arc<Seen>>);

impl Looks {
    pub(super) fn new(client: Client, malformed: Malformed, near: NearCache) -> Self {
        let together = Together::new(client.keys().buckets().len());
        Self { client, together, malformed, near, typical: Typical::default() }
    }

    /// At this replica, or at the master.
    pub(super) async fn look(&self, replica: Option<&Arc<Node>>, look: &Look) -> Answer {
        let bucket = names::bucket(self.client.keys(), &look.key);
        if replica.is_some() {
            // In half of the time, so that the master can be asked in the other half.
            let seen = self.ask(replica, bucket, &[self.wanted(look)], self.client.timeout() / 2).await;
            let seen = seen.map_err(Fault::into_error)?.pop().flatten();
            // The master is asked instead.
            return seen.ok_or_else(|| BackendError::new(ErrorKind::Unavailable, "the replica has another one"));
        }
        match self.together.turn(bucket, || look.clone(), self) {
            Turn::Soon(answer) => answer.get().await,
            Turn::Now(_journey) => self.alone(bucket, self.wanted(look), self.client.timeout()).await,
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
            replica.call("MGET", keys(), self.client.timeout() / 2).await.map_err(Fault::into_error)?
        } else {
            let call = |timeout| self.client.call(names.bucket, "MGET", keys(), timeout);
            self.client.retrying(self.client.timeout(), call).await?
        };
        let mut values = values(reply, 1 + tags.len())?;
        seen.clock = self.clock(&mut values);
        seen.tags.read(tags, || next(&mut values));
        Ok(())
    }

    async fn alone(&self, bucket: Bucket, wanted: Wanted<'_>, timeout: Duration) -> Answer {
        let near = matches!(wanted.near, Near::Kept(_)).then(|| (wanted.look, Instant::now() + timeout));
        if let Some(seen) = self.try_alone(bucket, wanted, timeout).await? {
            return Ok(seen);
        }
        let (look, deadline) = near.ok_or_else(|| Reply::unexpected("a look-up"))?;
        let (replaced, left) =
            (Wanted { look, near: Near::Replaced }, deadline.saturating_duration_since(Instant::now()));
        // Boxed, as all that is rare: it would be a part of every look-up's future.
        Box::pin(self.try_alone(bucket, replaced, left)).await?.ok_or_else(|| Reply::unexpected("a look-up"))
    }

    /// `None` if it must be asked for without the near cache.
    async fn try_alone(
        &self,
        bucket: Bucket,
        wanted: Wanted<'_>,
        timeout: Duration,
    ) -> Result<Option<Arc<Seen>>, BackendError> {
        let wanted = [wanted];
        let mut seen = self.client.retrying(timeout, |timeout| self.ask(None, bucket, &wanted, timeout)).await?;
        Ok(seen.pop().flatten())
    }

    /// Asks for all of them at once.
    async fn at_once(&self, bucket: Bucket, all: Vec<Party>) {
        let deadline = Instant::now() + self.client.timeout();
        let wanted: Vec<_> = all.iter().map(|(near, alike)| Wanted { look: &alike.ask, near: near.clone() }).collect();
        let answer = self.ask(None, bucket, &wanted, self.client.timeout()).await;
        let mut again = Vec::new();
        match answer {
            Ok(seen) => {
                for ((_, alike), seen) in all.into_iter().zip(seen) {
                    match seen {
                        Some(seen) => alike.tell(&Ok(seen)),
                        None => again.push((Near::Replaced, alike)),
                    }
                }
            }
            // Some of the keys have moved and some have not. One by one it is known where each is.
            Err(Fault::TryAgain) => again = all,
            Err(fault) => {
                let callers = all.iter().map(|(_, alike)| alike.callers()).sum();
                let error = self.client.failed_for(bucket, fault, callers);
                for (_, alike) in all {
                    alike.tell(&Err(error.clone()));
                }
            }
        }
        let one = |(near, alike): Party| async move {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self.alone(bucket, Wanted { look: &alike.ask, near }, left).await;
            alike.tell(&answer);
        };
        future::join_all(again.into_iter().map(one)).await;
    }

    fn wanted<'a>(&self, look: &'a Look) -> Wanted<'a> {
        Wanted { look, near: self.near(look) }
    }

    fn near(&self, look: &Look) -> Near {
        self.near.get(&look.key, look.variant)
    }

    /// What a replica, or the master, shows to each of them; `None` for what must be asked for without the near cache.
    async fn ask(
        &self,
        replica: Option<&Arc<Node>>,
        bucket: Bucket,
        wanted: &[Wanted<'_>],
        timeout: Duration,
    ) -> Result<Vec<Option<Arc<Seen>>>, Fault> {
        let call = |name, args, timeout| async move {
            match replica {
                Some(replica) => replica.call(name, args, timeout).await,
                None => self.client.call(bucket, name, args, timeout).await,
            }
        };
        let (keys, stamps) = self.question(bucket, wanted);
        let asked = keys.len();
        let reply = if stamps.is_empty() {
            call("MGET", keys, timeout).await?
        } else {
            match Box::pin(LOOK.run(&keys, &stamps, timeout, call)).await {
                Err(Fault::Failed(error)) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Protocol) => {
                    self.near.refuse(&error);
                    return Ok(wanted.iter().map(|_| None).collect());
                }
                answer => answer?,
            }
        };
        let mut values = values(reply, asked)?;
        let clock = self.clock(&mut values);
        Ok(wanted.iter().map(|wanted| self.see(clock, wanted, &mut values)).collect())
    }

    /// The clock, and of each its entry, its cell and its tags; the places and stamps of those that are near.
    fn question(&self, bucket: Bucket, all: &[Wanted<'_>]) -> (Vec<Value>, Vec<Value>) {
        let keys = self.client.keys();
        let count = 1 + all.iter().map(|wanted| 2 + wanted.look.tags.len()).sum::<usize>();
        let (mut asked, mut stamps) = (Vec::with_capacity(count), Vec::new());
        asked.push(Value::Bytes(keys.clock(bucket)));
        for Wanted { look: Look { key, variant, tags }, near } in all {
            Names::new(keys, key).ask(2 + tags.len(), &mut asked).entry(*variant).primary().tags(tags);
            if let Near::Kept(kept) = near {
                // Counted from 1, as Lua does.
                let place = asked.len() - tags.len() - 1;
                stamps.extend([place.to_string().into(), Value::Bytes(kept.stamp.clone())]);
            }
        }
        (asked, stamps)
    }

    fn clock(&self, values: &mut IntoIter<Reply>) -> Option<Clock> {
        next(values).and_then(|value| self.malformed.counted(Clock::parse(&value)))
    }

    /// What the next values show.
    fn see(&self, clock: Option<Clock>, wanted: &Wanted<'_>, values: &mut IntoIter<Reply>) -> Option<Arc<Seen>> {
        let tags = &wanted.look.tags;
        let stored = values.next();
        let (mut cell, mut vary) = (None, None);
        if let Some(value) = next(values)
            && let Some(primary) = self.malformed.counted(Primary::parse(&value))
        {
            cell = Some(primary.cell);
            vary = primary.vary.and_then(|vary| VarySpec::new(value.slice_ref(vary)));
        }
        let mut cells = TagCells::with_capacity(tags.len());
        cells.read(tags, || next(values));

        let (since, entry) = match (stored, &wanted.near) {
            (Some(Reply::Int(1)), Near::Kept(kept)) => {
                self.near.asked(true);
                self.typical.learn(kept.entry.size());
                (kept.entry.ticket().tick, Some(Arc::clone(&kept.entry)))
            }
            (Some(Reply::Int(_)), Near::Kept(_)) => return None,
            (Some(Reply::Bytes(blob)), near) => self.read(wanted.look, &blob, near),
            _ => (0, None),
        };
        Some(Arc::new(Seen { clock, cell, vary, entry, since, tags: cells }))
    }

    /// The entry that was read, and its tick.
    fn read(&self, look: &Look, blob: &Bytes, near: &Near) -> (Tick, Option<Arc<Entry>>) {
        if !matches!(near, Near::Nothing) {
            self.near.asked(false);
        }
        self.typical.learn(blob.len());
        let decoded = blob::decode(blob);
        let entry = self.malformed.counted(decoded.entry);
        if let Some(entry) = &entry {
            self.near.saw(&look.key, look.variant, entry, blob, near);
        }
        (decoded.tick, entry)
    }
}

impl Carrier for Looks {
    type Place = Bucket;
    type Ask = Look;
    type Answer = Arc<Seen>;

    async fn carry(self, bucket: Bucket, calls: Vec<Call<Look, Arc<Seen>>>) {
        let all = Alike::of(calls).into_iter().map(|alike| (self.near(&alike.ask), alike));
        let (near, others) = all.partition::<Vec<_>, _>(|(near, _)| matches!(near, Near::Kept(_)));
        let keys = near.iter().map(|(_, alike)| 2 + alike.ask.tags.len()).max().unwrap_or(1);
        let parts = in_parts(near, (MOST_KEYS / keys).clamp(1, MOST)).chain(in_parts(others, self.typical.most()));
        future::join_all(parts.map(|part| self.at_once(bucket, part))).await;
    }
}

/// What one look-up asks for, and what the near cache has of it.
struct Wanted<'a> {
    look: &'a Look,
    near: Near,
}

/// The values, if there are `n` of them.
fn values(reply: Reply, n: usize) -> Result<IntoIter<Reply>, BackendError> {
    let values = reply.into_array().filter(|values| values.len() == n);
    Ok(values.ok_or_else(|| Reply::unexpected("a look-up"))?.into_iter())
}

fn next(values: &mut IntoIter<Reply>) -> Option<Bytes> {
    values.next().and_then(Reply::into_bytes)
}
