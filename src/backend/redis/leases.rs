//! Leases, tickets, and what is handed over.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fred::types::Value;
use futures_util::future;

use super::{
    RedisBackend,
    names::Names,
    reply::Reply,
    responses::{millis, timestamp, unreadable},
    script::Script,
};
use crate::backend::{
    Acquire, Acquired, BackendError, Entry, Lease, LeaseKey, LeaseKind, Owner, PrimaryKey, Release, Tick, Ticket,
    Variant, blob,
};

pub(super) static ACQUIRE: Script = Script::new("acquire", include_str!("lua/acquire.lua"));
pub(super) static RELEASE: Script = Script::new("release", include_str!("lua/release.lua"));

/// The life of cells that are pinned for a fill: longer than fills take.
const PIN: Duration = Duration::from_mins(2);
/// How long those who waited may collect what was handed over.
const HANDED_OVER_MS: i64 = 5_000;
/// Above every tick: whatever is stored is not news.
const ANY: Tick = 1 << 53;

impl RedisBackend {
    pub(super) async fn ask_lease(&self, acquire: Acquire<'_>) -> Result<Acquired, BackendError> {
        let owner = Owner::random();
        // Listen first, so that what happens between the answer and the wait is not missed.
        self.wakeups.listening(&acquire.key, self.client.timeout()).await;
        let hinted = self.hints.tags(&acquire.key.key, acquire.key.variant).unwrap_or_default();
        let more = hinted.iter().filter(|tag| !acquire.tags.contains(tag));
        let names = Names::new(self.client.keys(), &acquire.key.key);
        let mut keys = vec![
            names.lease(&acquire.key).into(),
            names.entry(acquire.key.variant).into(),
            names.clock().into(),
            names.primary().into(),
        ];
        keys.extend(acquire.tags.iter().chain(more).map(|tag| Value::Bytes(names.tag(*tag))));
        let args = vec![
            bytes(owner.as_bytes()),
            millis(acquire.ttl).into(),
            acquire.since.to_string().into(),
            millis(PIN.max(acquire.ttl * 2)).into(),
        ];
        Ok(match self.run_acquire(&names, keys, args).await? {
            Answer::Granted(ticket) => Acquired::Granted(Lease { key: acquire.key, owner, ticket }),
            Answer::Uncacheable(ticket, left) => Acquired::Uncacheable { ticket, left },
            Answer::Filled => Acquired::Filled,
            Answer::Held(left, ticket) => Acquired::Held { left, ticket },
            Answer::Failed(left) => Acquired::Failed { left },
            Answer::Ticket(_) => return Err(unreadable(&ACQUIRE)),
        })
    }

    pub(super) async fn ask_ticket(&self, key: &PrimaryKey) -> Result<Ticket, BackendError> {
        let names = Names::new(self.client.keys(), key);
        let lease = LeaseKey { key: *key, variant: Variant(None), kind: LeaseKind::Fill };
        let keys = [names.lease(&lease), names.entry(Variant(None)), names.clock()].map(Value::Bytes).to_vec();
        let args = vec!["".into(), 0.into(), ANY.to_string().into(), 0.into()];
        match self.run_acquire(&names, keys, args).await? {
            Answer::Ticket(ticket) => Ok(ticket),
            _ => Err(unreadable(&ACQUIRE)),
        }
    }

    async fn run_acquire(&self, names: &Names<'_>, keys: Vec<Value>, args: Vec<Value>) -> Result<Answer, BackendError> {
        let asked = Instant::now();
        let reply = self.client.eval(&ACQUIRE, names.bucket, keys, args, self.client.timeout()).await?;
        let reply = reply.into_array().unwrap_or_default();
        let answer = Answer::parse(&reply).ok_or_else(|| unreadable(&ACQUIRE))?;
        if let (Answer::Granted(_) | Answer::Ticket(_) | Answer::Uncacheable(..), Some(now)) =
            (&answer, reply.get(3).and_then(timestamp))
        {
            self.client.learn_time(now, asked);
        }
        Ok(answer)
    }

    pub(super) async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, BackendError> {
        self.end(lease, "renew", ttl).await
    }

    pub(super) async fn end_lease(&self, lease: &Lease, how: Release) -> Result<bool, BackendError> {
        match how {
            Release::Free => self.end(lease, "release", Duration::ZERO).await,
            Release::Uncacheable(hold) => self.end(lease, "uncacheable", hold).await,
            Release::Failed(hold) => self.end(lease, "error", hold).await,
            Release::HandOver(entry) => self.hand_over(lease, &entry).await,
        }
    }

    async fn end(&self, lease: &Lease, mode: &'static str, time: Duration) -> Result<bool, BackendError> {
        let names = Names::new(self.client.keys(), &lease.key.key);
        let (keys, args) = release_call(&names, lease, mode, time);
        let reply = self.client.eval(&RELEASE, names.bucket, keys, args, self.client.timeout()).await?;
        released(&reply)
    }

    /// Sends the entry and ends the lease, one behind the other in one go.
    async fn hand_over(&self, lease: &Lease, entry: &Entry) -> Result<bool, BackendError> {
        let names = Names::new(self.client.keys(), &lease.key.key);
        let (blob, timeout) = (blob::encode(entry)?, self.client.timeout());
        let key = names.handed_over(&lease.key, lease.ticket.tick);
        let (keys, args) = release_call(&names, lease, "release", Duration::ZERO);
        let set = vec![key.into(), blob.into(), "PX".into(), HANDED_OVER_MS.into()];
        let set = self.client.command(names.bucket, "SET", set, timeout);
        let release = self.client.eval(&RELEASE, names.bucket, keys, args, timeout);
        let (set, release) = future::join(set, release).await;
        let released = released(&release?)?;
        // The lease is ended; without the answer the others fetch for themselves.
        set.map(|_| released)
    }

    pub(super) async fn collect_handed_over(
        &self,
        key: &LeaseKey,
        ticket: Ticket,
    ) -> Result<Option<Arc<Entry>>, BackendError> {
        let names = Names::new(self.client.keys(), &key.key);
        let name = names.handed_over(key, ticket.tick).into();
        let reply = self.client.command(names.bucket, "GET", vec![name], self.client.timeout()).await?;
        let entry = reply.into_bytes().and_then(|value| self.malformed.counted(blob::decode(&value).entry));
        Ok(entry.filter(|entry| entry.ticket() == ticket))
    }
}

/// What `acquire.lua` answers.
enum Answer {
    Granted(Ticket),
    Ticket(Ticket),
    Uncacheable(Ticket, Duration),
    Filled,
    Held(Duration, Option<Ticket>),
    Failed(Duration),
}

impl Answer {
    fn parse(reply: &[Reply]) -> Option<Self> {
        let number = |i: usize| reply.get(i).and_then(Reply::as_u64);
        let ticket = |i| Some(Ticket { tick: number(i)?, born: number(i + 1)? });
        let left = |i| number(i).map(Duration::from_millis);
        Some(match reply.first()?.as_str()? {
            "granted" => Self::Granted(ticket(1)?),
            "ticket" => Self::Ticket(ticket(1)?),
            "uncacheable" => Self::Uncacheable(ticket(1)?, left(4)?),
            "filled" => Self::Filled,
            "held" => Self::Held(left(1)?, ticket(2).filter(|ticket| ticket.tick > 0)),
            "error" => Self::Failed(left(1)?),
            _ => return None,
        })
    }
}

/// Any array is an answer or none.
#[cfg(fuzzing)]
pub(super) fn fuzz(reply: &[Reply]) {
    drop(Answer::parse(reply));
    drop(reply.first().map(released));
}

fn release_call(names: &Names<'_>, lease: &Lease, mode: &'static str, time: Duration) -> (Vec<Value>, Vec<Value>) {
    let keys = vec![names.lease(&lease.key).into()];
    (keys, vec![bytes(lease.owner.as_bytes()), mode.into(), millis(time).into(), names.channel().into()])
}

fn released(reply: &Reply) -> Result<bool, BackendError> {
    reply.as_int().map(|n| n == 1).ok_or_else(|| unreadable(&RELEASE))
}

fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(Bytes::copy_from_slice(bytes))
}
