//! The contract [`Leases`].

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future;

use super::{
    CasBackend, CasStore, Inner, Step,
    bucket::Bucket,
    codec::{Reader, Writer},
};
use crate::{
    Timestamp,
    backend::{
        Acquire, Acquired, BackendError, Entry, ErrorKind, Lease, LeaseKey, Leases, Owner, Release, Ticket, Waiter,
        blob, term::Term,
    },
};

impl<S: CasStore> Leases for CasBackend<S> {
    async fn acquire(&self, acquire: Acquire<'_>) -> Result<Acquired, BackendError> {
        self.0.agreed(self.0.acquire(&acquire)).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, BackendError> {
        self.0.timed(self.0.hold(lease, ttl)).await
    }

    /// Fails with [`ErrorKind::TooLarge`] if what is handed over is too large for the store. The lease is given up also
    /// where nothing could be handed over.
    async fn release(&self, lease: &Lease, how: Release) -> Result<bool, BackendError> {
        self.0.release(lease, how).await
    }

    fn watch(&self, key: &LeaseKey) -> Waiter {
        let waiter = self.0.waits.watch(key);
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && self.0.polled.begin(key)
        {
            runtime.spawn(Polling { inner: Arc::clone(&self.0), key: *key, ended: false }.poll());
        }
        waiter
    }

    async fn collect(&self, key: &LeaseKey, ticket: Ticket) -> Result<Option<Arc<Entry>>, BackendError> {
        let value = self.0.timed(self.0.read(&self.0.names.handed_over(key, ticket))).await?;
        Ok(value.and_then(|value| blob::decode(&value).entry).filter(|entry| entry.ticket() == ticket))
    }
}

/// A lease as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    state: State,
    term: Term,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Held(Owner, Ticket),
    Uncacheable,
    Failed,
}

/// Until then everybody has heard of it who waits, and goes on with the others: those in other processes poll.
const HEARD: Duration = LONGEST_POLL.saturating_add(Duration::from_millis(50));
/// What is handed over is kept so long.
const HANDED_OVER: Duration = Duration::from_secs(5);

impl Slot {
    fn new(state: State, now: Timestamp, ttl: Duration) -> Self {
        Self { state, term: Term::new(now, ttl) }
    }

    fn is_of(&self, lease: &Lease) -> bool {
        matches!(self.state, State::Held(owner, _) if owner == lease.owner)
    }

    fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.time(self.term.since);
        writer.time(self.term.until);
        match self.state {
            State::Held(owner, ticket) => {
                writer.u8(1);
                writer.array(owner.as_bytes());
                writer.u64(ticket.tick);
                writer.u64(ticket.born);
            }
            State::Uncacheable => writer.u8(2),
            State::Failed => writer.u8(3),
        }
        writer.finish()
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value)?;
        let term = Term { since: reader.time()?, until: reader.time()? };
        let state = match reader.u8()? {
            1 => {
                let owner = Owner::from_bytes(reader.array()?);
                State::Held(owner, Ticket { tick: reader.u64()?, born: reader.u64()? })
            }
            2 => State::Uncacheable,
            3 => State::Failed,
            _ => return None,
        };
        Some(Self { state, term })
    }

    /// Kept longer than it lives: its holder may still renew or release it, as long as nobody else took it.
    fn set<T>(&self, now: Timestamp, then: T) -> Step<T> {
        Step::Set(self.encode(), Some(self.term.until.since(now) * 2 + Duration::from_secs(1)), then)
    }
}

impl<S: CasStore> Inner<S> {
    async fn acquire(&self, acquire: &Acquire<'_>) -> Result<Acquired, BackendError> {
        let (key, lease_name) = (acquire.key, self.names.lease(&acquire.key));
        let (slot, bucket) = future::try_join(self.slot(&key), self.bucket_of(&key.key)).await?;
        // After the slot: who committed has ended the lease afterwards.
        if self.is_filled(acquire, bucket.as_ref()).await? {
            return Ok(Acquired::Filled);
        }
        if let Some(answer) = self.answer(slot, bucket.as_ref()) {
            return match answer {
                Acquired::Uncacheable { left, .. } => {
                    let ticket = self.change_bucket(&key.key, |bucket| bucket.ticket()).await?;
                    Ok(Acquired::Uncacheable { ticket, left })
                }
                answer => Ok(answer),
            };
        }
        // A tick of its own, so that what a paused holder commits is older than what its successor does.
        let ticket = self.advance(&key).await?;
        let mut lease = Lease { key, owner: Owner::random(), ticket };
        let taken = self.change(&lease_name, |value| {
            let now = self.now();
            let there = value.and_then(|value| Slot::decode(value));
            match there.filter(|slot| slot.term.left(now).is_some()) {
                // Somebody was faster.
                Some(slot) => Ok(Step::Keep(Some(slot))),
                None => Ok(Slot::new(State::Held(lease.owner, ticket), now, acquire.ttl).set(now, None)),
            }
        });
        if let Some(slot) = taken.await? {
            let bucket = self.bucket_of(&key.key).await?;
            return Ok(match self.answer(Some(slot), bucket.as_ref()) {
                Some(Acquired::Uncacheable { left, .. }) => Acquired::Uncacheable { ticket, left },
                Some(answer) => answer,
                None => Acquired::Held { left: Duration::ZERO, ticket: None },
            });
        }
        // The last holder may have committed between the two reads above.
        let bucket = self.bucket_of(&key.key).await?;
        if self.is_filled(acquire, bucket.as_ref()).await? {
            self.end(Some(&lease)).await;
            return Ok(Acquired::Filled);
        }
        if bucket.as_ref().map(Bucket::ticket) != Some(ticket) {
            // Whoever has moved the clock on meanwhile may have held this lease before, and may commit yet.
            lease.ticket = self.advance(&key).await?;
            if !self.hold(&lease, acquire.ttl).await? {
                return Ok(Acquired::Held { left: Duration::ZERO, ticket: None });
            }
        }
        Ok(Acquired::Granted(lease))
    }

    async fn advance(&self, key: &LeaseKey) -> Result<Ticket, BackendError> {
        self.change_bucket(&key.key, |bucket| bucket.advance(self.now())).await
    }

    async fn slot(&self, key: &LeaseKey) -> Result<Option<Slot>, BackendError> {
        Ok(self.read(&self.names.lease(key)).await?.and_then(|value| Slot::decode(&value)))
    }

    /// What a slot means to somebody who asks; `None` if the lease is free. The ticket of `Uncacheable` is to be had yet.
    fn answer(&self, slot: Option<Slot>, bucket: Option<&Bucket>) -> Option<Acquired> {
        let slot = slot?;
        let left = slot.term.left(self.now())?;
        Some(match slot.state {
            State::Failed => Acquired::Failed { left },
            State::Uncacheable => Acquired::Uncacheable { ticket: Ticket { tick: 0, born: 0 }, left },
            State::Held(_, ticket) => {
                let is_current = |bucket: &&Bucket| bucket.issued(ticket) && ticket.tick >= bucket.last_invalidation();
                Acquired::Held { left, ticket: bucket.filter(is_current).map(|_| ticket) }
            }
        })
    }

    /// Whether a younger entry is there than the caller saw.
    async fn is_filled(&self, acquire: &Acquire<'_>, bucket: Option<&Bucket>) -> Result<bool, BackendError> {
        let key = acquire.key;
        let (Some(bucket), Some(entry)) = (bucket, self.entry_of(&key.key, key.variant).await?) else {
            return Ok(false);
        };
        let ticket = entry.ticket();
        Ok(bucket.issued(ticket) && ticket.tick > acquire.since && self.now() < entry.keep_until())
    }

    /// Holds a lease for longer, with its ticket; `false` if it is lost.
    async fn hold(&self, lease: &Lease, ttl: Duration) -> Result<bool, BackendError> {
        self.change(&self.names.lease(&lease.key), |value| {
            let now = self.now();
            match value.and_then(|value| Slot::decode(value)).filter(|slot| slot.is_of(lease)) {
                Some(_) => Ok(Slot::new(State::Held(lease.owner, lease.ticket), now, ttl).set(now, true)),
                None => Ok(Step::Keep(false)),
            }
        })
        .await
    }

    async fn release(&self, lease: &Lease, how: Release) -> Result<bool, BackendError> {
        let mut failed = None;
        let state = match &how {
            Release::Uncacheable(hold) => Some((State::Uncacheable, (*hold).max(HEARD))),
            Release::Failed(hold) => Some((State::Failed, (*hold).max(HEARD))),
            Release::HandOver(entry) => {
                failed = self.timed(self.hand_over(lease, entry)).await.err();
                None
            }
            Release::Free => None,
        };
        // Also where nothing could be handed over: nobody is to wait until it ends by itself.
        let released = self.timed(self.replace(lease, state)).await?;
        match failed {
            Some(error) if released => Err(error),
            _ => Ok(released),
        }
    }

    /// Before anybody is woken. Who has lost the lease hands nothing over.
    async fn hand_over(&self, lease: &Lease, entry: &Entry) -> Result<(), BackendError> {
        let value = blob::encode(entry)?;
        if value.len() > self.max_value_bytes {
            let message = format!("at most {} bytes are handed over, these are {}", self.max_value_bytes, value.len());
            return Err(BackendError::new(ErrorKind::TooLarge, message));
        }
        if self.slot(&lease.key).await?.is_some_and(|slot| slot.is_of(lease)) {
            let name = self.names.handed_over(&lease.key, lease.ticket);
            self.change(&name, |_| Ok(Step::Set(value.clone(), Some(HANDED_OVER), ()))).await?;
        }
        Ok(())
    }

    async fn replace(&self, lease: &Lease, state: Option<(State, Duration)>) -> Result<bool, BackendError> {
        let name = self.names.lease(&lease.key);
        let released = self.change(&name, |value| {
            let now = self.now();
            if !value.and_then(|value| Slot::decode(value)).is_some_and(|slot| slot.is_of(lease)) {
                return Ok(Step::Keep(false));
            }
            Ok(match state {
                Some((state, hold)) => Slot::new(state, now, hold).set(now, true),
                None => Step::Remove(true),
            })
        });
        let released = released.await?;
        if released {
            self.waits.wake(&lease.key);
        }
        Ok(released)
    }

    /// Ends a lease after a commit. Where that fails it ends by itself.
    pub(super) async fn end(&self, lease: Option<&Lease>) {
        if let Some(lease) = lease {
            let _ = self.timed(self.replace(lease, None)).await;
        }
    }
}

/// The leases that a task of this process looks at now and again, because somebody waits for their end.
#[derive(Debug, Default)]
pub(super) struct Polled(Mutex<HashSet<LeaseKey>>);

const FIRST_POLL: Duration = Duration::from_millis(10);
const LONGEST_POLL: Duration = Duration::from_millis(200);

impl Polled {
    /// `true` for the first one.
    fn begin(&self, key: &LeaseKey) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*key)
    }

    /// `true` if nobody waits any more; who begins to wait afterwards begins anew.
    fn end_unless(&self, key: &LeaseKey, is_watched: impl Fn() -> bool) -> bool {
        let mut polled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = !is_watched();
        if end {
            polled.remove(key);
        }
        end
    }
}

/// Dropped before it has ended, with its runtime or because the store has panicked, it leaves its place to another one.
struct Polling<S: CasStore> {
    inner: Arc<Inner<S>>,
    key: LeaseKey,
    ended: bool,
}

impl<S: CasStore> Drop for Polling<S> {
    fn drop(&mut self) {
        if !self.ended {
            self.inner.polled.end_unless(&self.key, || false);
        }
    }
}

impl<S: CasStore> Polling<S> {
    /// Wakes those who wait for a lease when it has ended, or is another one. Ends with the last of them.
    async fn poll(mut self) {
        let (inner, key) = (Arc::clone(&self.inner), self.key);
        let mut pause = FIRST_POLL;
        let mut held_by = None;
        loop {
            tokio::time::sleep(pause).await;
            if inner.polled.end_unless(&key, || inner.waits.is_watched(&key)) {
                self.ended = true;
                return;
            }
            let holder = match inner.timed(inner.slot(&key)).await {
                Err(_) => held_by,
                Ok(slot) => {
                    slot.filter(|slot| slot.term.left(inner.now()).is_some()).and_then(|slot| match slot.state {
                        State::Held(owner, _) => Some(owner),
                        State::Uncacheable | State::Failed => None,
                    })
                }
            };
            if holder.is_none() || (held_by.is_some() && holder != held_by) {
                inner.waits.wake(&key);
            }
            if holder != held_by {
                pause = FIRST_POLL;
            }
            held_by = holder;
            pause = (pause * 2).min(LONGEST_POLL);
        }
    }
}
