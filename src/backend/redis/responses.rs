//! Look-up, commit and discard.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use fred::types::Value;
use futures_util::future;

use super::{
    RedisBackend,
    cells::{Cell, Clock, Primary, TagCells, Verdict, judge},
    error::Fault,
    names::Names,
    node::Node,
    reply::Reply,
    script::Script,
};
use crate::{
    TagDigest, Timestamp,
    backend::{
        BackendError, Commit, Committed, Discarded, Entry, ErrorKind, Found, Lease, LeaseKey, LeaseKind, Leases as _,
        Lookup, PrimaryKey, Release, Tick, Ticket, Variant, VaryOf, VarySpec, blob,
    },
    metrics,
};

pub(super) static COMMIT: Script = Script::new("commit", include_str!("lua/commit.lua"));

/// A staged value that no commit takes lives this long.
const STAGED_MS: i64 = 60_000;

impl RedisBackend {
    pub(super) async fn find(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> Result<Lookup, BackendError> {
        if self.client.replicas().is_some()
            && let Some(hit) = Box::pin(self.find_nearby(key, vary)).await
        {
            return Ok(hit);
        }
        self.find_at(None, key, vary).await
    }

    /// A fresh hit at a replica that has heard of all invalidations of this process. Whatever else a replica says is
    /// asked of the master, which knows better: so a replica that is behind costs no fills.
    async fn find_nearby(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> Option<Lookup> {
        let bucket = Names::new(self.client.keys(), key).bucket;
        let replica = self.client.nearest_replica(bucket)?;
        // Read first: what this process invalidates from now on was not done when the look-up began.
        let least = self.invalidated[bucket.index()].load(Ordering::SeqCst);
        let hit = self.find_at(Some(&replica), key, vary).await.ok()?;
        let has_heard = hit.ticket.is_some_and(|ticket| ticket.tick >= least);
        let is_fresh = hit
            .found
            .as_ref()
            .is_some_and(|found| found.stale_since.is_none() && self.client.now() < found.entry.fresh_until());
        (has_heard && is_fresh).then_some(hit)
    }

    /// At this replica, or at the master.
    async fn find_at(
        &self,
        replica: Option<&Arc<Node>>,
        key: &PrimaryKey,
        vary: &VaryOf<'_>,
    ) -> Result<Lookup, BackendError> {
        let names = Names::new(self.client.keys(), key);
        let mut variant = vary(&self.hints.vary(key));
        let hinted = self.hints.tags(key, variant).unwrap_or_default();
        let mut tags = TagCells::with_capacity(hinted.len());

        // First round: everything, for what is known of the key.
        let ask = || names.several(3 + hinted.len()).entry(variant).primary().clock().tags(&hinted);
        let mut values = self.mget(replica, &names, 3 + hinted.len(), ask).await?.into_iter();
        let (mut stored, primary, mut clock) = (next(&mut values), next(&mut values), next(&mut values));
        take_tags(&mut tags, &hinted, &mut values);
        let primary = primary.as_deref().and_then(|value| self.parsed(Primary::parse(value)));

        // Second round if it varies otherwise than was thought: the other variant.
        if let Some(named) = primary.and_then(|primary| VarySpec::new(Bytes::copy_from_slice(primary.vary?))) {
            self.hints.learn_vary(key, &named);
            let other = vary(&named);
            if other != variant {
                variant = other;
                let hinted = self.hints.tags(key, variant).unwrap_or_default();
                let missing = tags.missing(&hinted);
                let ask = || names.several(2 + missing.len()).entry(variant).clock().tags(&missing);
                let mut values = self.mget(replica, &names, 2 + missing.len(), ask).await?.into_iter();
                (stored, clock) = (next(&mut values), next(&mut values));
                take_tags(&mut tags, &missing, &mut values);
            }
        }

        let decoded = stored.as_ref().map(blob::decode);
        let since = decoded.as_ref().map_or(0, |decoded| decoded.tick);
        let entry = decoded.and_then(|decoded| self.parsed(decoded.entry));

        // Another round if it has tags that were not read yet.
        if let Some(entry) = &entry {
            let missing = tags.missing(entry.tags());
            if !missing.is_empty() {
                let ask = || names.several(1 + missing.len()).clock().tags(&missing);
                let mut values = self.mget(replica, &names, 1 + missing.len(), ask).await?.into_iter();
                // The newest clock judges everything.
                clock = next(&mut values);
                take_tags(&mut tags, &missing, &mut values);
            }
            self.hints.learn_tags(key, variant, entry.tags());
        }

        let clock = clock.as_deref().and_then(|value| self.parsed(Clock::parse(value)));
        let found = clock.zip(entry).and_then(|(clock, entry)| {
            let judged = judge(&entry, &clock, primary.map(|primary| primary.cell), &tags);
            self.usable(entry, judged, variant, vary)
        });
        Ok(Lookup {
            ticket: clock.map(|clock| clock.ticket()),
            variant,
            found,
            since,
            // Without a clock there is no fill that may be joined.
            floor: clock.map_or(Tick::MAX, |clock| clock.floor()),
        })
    }

    fn usable(&self, entry: Arc<Entry>, judged: Verdict, variant: Variant, vary: &VaryOf<'_>) -> Option<Found> {
        let stale_since = match judged {
            Verdict::Invalid => return None,
            Verdict::Valid => None,
            Verdict::Stale(since) => Some(since),
        };
        // The primary cell only points to the variant: what the entry says of itself decides.
        if vary(entry.vary()) != variant || entry.keep_until() <= self.client.now() {
            return None;
        }
        Some(Found { entry, stale_since })
    }

    /// `ask` names the `n` keys; twice if the slot is being moved.
    async fn mget(
        &self,
        replica: Option<&Arc<Node>>,
        names: &Names<'_>,
        n: usize,
        ask: impl Fn() -> Vec<Value>,
    ) -> Result<Vec<Reply>, BackendError> {
        let timeout = self.client.timeout();
        let reply = if let Some(replica) = replica {
            // Half of the time, so that the master can be asked in the other half.
            Box::pin(replica.call("MGET", ask(), timeout / 2)).await.map_err(Fault::into_error)?
        } else {
            let call = |timeout| self.client.call(names.bucket, "MGET", ask(), timeout);
            self.client.retrying(timeout, call).await?
        };
        reply.into_array().filter(|values| values.len() == n).ok_or_else(|| Reply::unexpected("MGET"))
    }

    /// Counts values that are there but are none of ours.
    pub(super) fn parsed<T>(&self, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.malformed.fetch_add(1, Ordering::Relaxed);
            metrics::count(&metrics::BACKEND_MALFORMED, ["value".into()]);
            tracing::debug!("a value in Redis is damaged or of another version; it counts as absent");
        }
        value
    }

    pub(super) async fn store(&self, commit: Commit<'_>) -> Result<Committed, BackendError> {
        let names = Names::new(self.client.keys(), &commit.key);
        let entry = &*commit.entry;
        if entry.tags().len() > Entry::MAX_TAGS {
            self.give_back(commit.lease).await;
            return Err(BackendError::new(ErrorKind::TooLarge, "the response has more than 128 tags"));
        }
        let head = commit.refresh.and_then(|base| blob::encode_head(entry, base));
        let call = CommitCall {
            names,
            variant: commit.variant,
            tags: entry.tags(),
            lease: commit.lease,
            life: entry.keep_until().since(self.client.now()),
            vary: entry.vary().as_bytes().clone(),
            base: commit.refresh.map(|base| {
                if base.ticket().born == entry.ticket().born {
                    base.ticket().tick
                } else {
                    // Of another clock, so it cannot be what is stored: name an entry that does not exist.
                    NO_SUCH_TICK
                }
            }),
        };
        let verdict = match head {
            Some(head) => Box::pin(self.refresh(&call, entry, head)).await,
            None => self.store_whole(&call, entry).await,
        };
        let verdict = match verdict {
            Err(error) => {
                self.give_back(commit.lease).await;
                return Err(error);
            }
            Ok(verdict) => verdict,
        };
        let committed = match verdict.as_str() {
            Some("stored") if commit.refresh.is_none() => Committed::Stored,
            Some("stored" | "refreshed") => Committed::Refreshed,
            Some("superseded") => Committed::Superseded,
            Some("gone") => Committed::Gone,
            Some("invalidated") => Committed::Invalidated,
            Some("unsure") => Committed::Unsure,
            Some("clock_lost") => Committed::ClockLost,
            _ => return Err(Reply::unexpected(COMMIT.name())),
        };
        if matches!(committed, Committed::Stored | Committed::Refreshed) {
            self.hints.learn_vary(&commit.key, entry.vary());
            self.hints.learn_tags(&commit.key, commit.variant, entry.tags());
        }
        Ok(committed)
    }

    /// Puts the new head on the stored entry; stores all of it where the body does not begin where we thought.
    async fn refresh(&self, call: &CommitCall<'_>, entry: &Entry, head: Bytes) -> Result<Reply, BackendError> {
        let verdict = self.commit(call, "refresh", call.names.entry(call.variant), head).await?;
        if verdict.as_str() == Some("misfit") { Box::pin(self.store_whole(call, entry)).await } else { Ok(verdict) }
    }

    /// Sends the value to a key of its own and the script that renames it, one behind the other in one go: the body
    /// does not pass through Lua.
    async fn store_whole(&self, call: &CommitCall<'_>, entry: &Entry) -> Result<Reply, BackendError> {
        let (blob, timeout) = (blob::encode(entry)?, self.client.timeout());
        self.client
            .retrying(timeout, |timeout| {
                let (blob, staged) = (blob.clone(), call.names.staged());
                async move {
                    let set = vec![staged.clone().into(), blob.into(), "PX".into(), STAGED_MS.into()];
                    let set = self.client.call(call.names.bucket, "SET", set, timeout);
                    let (keys, args) = (call.keys(staged), call.args("store", Bytes::new()));
                    let commit = self.client.eval_once(&COMMIT, call.names.bucket, &keys, &args, timeout);
                    let (set, verdict) = future::join(set, commit).await;
                    set?;
                    let verdict = verdict?;
                    // The two may have been redirected in different orders while a slot was moving.
                    if verdict.as_str() == Some("unstaged") { Err(Fault::TryAgain) } else { Ok(verdict) }
                }
            })
            .await
    }

    async fn commit(
        &self,
        call: &CommitCall<'_>,
        mode: &'static str,
        staged: Bytes,
        head: Bytes,
    ) -> Result<Reply, BackendError> {
        let (keys, args) = (call.keys(staged), call.args(mode, head));
        self.client.eval(&COMMIT, call.names.bucket, keys, args, self.client.timeout()).await
    }

    /// A commit that was refused as a whole has not ended the lease.
    async fn give_back(&self, lease: Option<&Lease>) {
        if let Some(lease) = lease {
            let _ = Box::pin(self.release(lease, Release::Free)).await;
        }
    }

    pub(super) async fn drop_entry(
        &self,
        key: &PrimaryKey,
        variant: Variant,
        ticket: Ticket,
        lease: Option<&Lease>,
    ) -> Result<Discarded, BackendError> {
        let names = Names::new(self.client.keys(), key);
        let call =
            CommitCall { names, variant, tags: &[], lease, life: Duration::ZERO, vary: Bytes::new(), base: None };
        let verdict = self.commit(&call, "drop", names.entry(variant), blob::ticket_only(ticket)).await;
        let verdict = match verdict {
            Err(error) => {
                self.give_back(lease).await;
                return Err(error);
            }
            Ok(verdict) => verdict,
        };
        match verdict.as_str() {
            Some("dropped") => Ok(Discarded::Dropped),
            Some("superseded") => Ok(Discarded::Superseded),
            Some("clock_lost") => Ok(Discarded::ClockLost),
            _ => Err(Reply::unexpected(COMMIT.name())),
        }
    }
}

/// Above every tick.
const NO_SUCH_TICK: Tick = 1 << 53;

/// What `commit.lua` wants to know.
struct CommitCall<'a> {
    names: Names<'a>,
    variant: Variant,
    tags: &'a [TagDigest],
    lease: Option<&'a Lease>,
    life: Duration,
    vary: Bytes,
    base: Option<Tick>,
}

impl CommitCall<'_> {
    fn keys(&self, staged: Bytes) -> Vec<Value> {
        let names = &self.names;
        // Without a lease of its own it still wakes those who wait for the one that fills this variant.
        let fill = LeaseKey { key: names.key, variant: self.variant, kind: LeaseKind::Fill };
        let lease = names.lease(self.lease.map_or(&fill, |lease| &lease.key));
        let keys = [names.entry(self.variant), names.primary(), names.clock(), lease, staged];
        keys.into_iter().chain(self.tags.iter().map(|tag| names.tag(*tag))).map(Value::Bytes).collect()
    }

    fn args(&self, mode: &'static str, head: Bytes) -> Vec<Value> {
        let bytes = |bytes: &[u8]| Value::Bytes(Bytes::copy_from_slice(bytes));
        vec![
            self.lease.map_or(Value::from(""), |lease| bytes(lease.owner.as_bytes())),
            millis(self.life).into(),
            self.vary.clone().into(),
            self.variant.0.map_or(Value::from(""), |variant| bytes(&variant)),
            self.names.channel().into(),
            mode.into(),
            self.base.unwrap_or(0).to_string().into(),
            head.into(),
        ]
    }
}

/// Milliseconds for a script, at least 1; rounded up.
pub(super) fn millis(duration: Duration) -> i64 {
    let millis = duration.as_micros().div_ceil(1_000).max(1);
    // Redis refuses expiries that overflow when its clock is added.
    i64::try_from(millis).unwrap_or(i64::MAX).min(1 << 52)
}

fn next(values: &mut std::vec::IntoIter<Reply>) -> Option<Bytes> {
    values.next().and_then(Reply::into_bytes)
}

fn take_tags(into: &mut TagCells, tags: &[TagDigest], values: &mut std::vec::IntoIter<Reply>) {
    for tag in tags {
        into.insert(*tag, next(values).and_then(|value| Cell::parse(&value)));
    }
}

/// A time of the server in a script's reply.
pub(super) fn timestamp(reply: &Reply) -> Option<Timestamp> {
    reply.as_u64().map(Timestamp::from_micros)
}

/// The error for a reply of `script` that cannot be read.
pub(super) fn unreadable(script: &Script) -> BackendError {
    BackendError::new(ErrorKind::Protocol, format!("the script {} answered with something unexpected", script.name()))
}
