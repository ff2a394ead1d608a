//! Commit and discard.

use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use futures_util::future;

use super::{RedisBackend, error::Fault, names::Names, reply::Reply, script::Script};
use crate::{
    TagDigest, Timestamp,
    backend::{
        BackendError, Commit, Committed, Discarded, Entry, ErrorKind, Lease, LeaseKey, LeaseKind, Leases as _,
        PrimaryKey, Release, Tick, Ticket, Variant, blob,
    },
};

pub(super) static COMMIT: Script = Script::new("commit", include_str!("lua/commit.lua"));

/// A staged value that no commit takes lives this long.
const STAGED_MS: i64 = 60_000;

impl RedisBackend {
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

/// A time of the server in a script's reply.
pub(super) fn timestamp(reply: &Reply) -> Option<Timestamp> {
    reply.as_u64().map(Timestamp::from_micros)
}

/// The error for a reply of `script` that cannot be read.
pub(super) fn unreadable(script: &Script) -> BackendError {
    BackendError::new(ErrorKind::Protocol, format!("the script {} answered with something unexpected", script.name()))
}
