//! The contract [`Leases`] in memory.

use std::{sync::Arc, time::Duration};

use super::{MemoryBackend, Pages, lease_table::State, lock, store::weight};
use crate::{
    Timestamp,
    backend::{
        Acquire, Acquired, BackendError, Entry, ErrorKind, Lease, LeaseKey, Leases, Owner, Release, Ticket, Waiter,
    },
};

impl Leases for MemoryBackend {
    async fn acquire(&self, acquire: Acquire<'_>) -> Result<Acquired, BackendError> {
        Ok(self.0.pages.acquire(&acquire, self.0.clock.now()))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, BackendError> {
        let mut leases = lock(self.0.pages.shard(&lease.key.key));
        let held = leases.is_held(lease);
        if held {
            leases.set(lease.key, State::Held(lease.owner, lease.ticket), self.0.clock.now(), ttl);
        }
        Ok(held)
    }

    /// Fails with [`ErrorKind::TooLarge`] if what is handed over is too large for the store; the lease is given up
    /// nevertheless.
    async fn release(&self, lease: &Lease, how: Release) -> Result<bool, BackendError> {
        self.0.pages.release(lease, how, self.0.clock.now())
    }

    fn watch(&self, key: &LeaseKey) -> Waiter {
        self.0.pages.waits.watch(key)
    }

    async fn collect(&self, key: &LeaseKey, ticket: Ticket) -> Result<Option<Arc<Entry>>, BackendError> {
        Ok(self.0.pages.handed.get(key, ticket, self.0.clock.now()))
    }
}

impl Pages {
    /// [`Acquire::tags`] need no care: every invalidation leaves its cell here, known beforehand or not.
    fn acquire(&self, acquire: &Acquire<'_>, now: Timestamp) -> Acquired {
        let key = acquire.key;
        let mut leases = lock(self.shard(&key.key));
        if self.is_filled(&key, acquire.since, now) {
            return Acquired::Filled;
        }
        match leases.get(&key, now) {
            Some((State::Failed, left)) => return Acquired::Failed { left },
            Some((State::Uncacheable, left)) => return Acquired::Uncacheable { ticket: self.clock.ticket(), left },
            Some((State::Held(_, ticket), left)) => {
                let ticket = Some(ticket).filter(|ticket| self.is_current(&key, *ticket));
                return Acquired::Held { left, ticket };
            }
            None => {}
        }
        // A tick of its own, so that what a paused holder commits is older than what its successor does.
        let tick = self.clock.advance(now);
        let lease = Lease { key, owner: Owner::random(), ticket: Ticket { tick, born: self.clock.born() } };
        leases.set(key, State::Held(lease.owner, lease.ticket), now, acquire.ttl);
        Acquired::Granted(lease)
    }

    fn is_filled(&self, key: &LeaseKey, since: u64, now: Timestamp) -> bool {
        self.store.peek(&key.key).is_some_and(|record| {
            record.find(key.variant).is_some_and(|stored| {
                stored.entry.ticket().tick > since
                    && now < stored.entry.keep_until()
                    && stored.valid(&record, &self.clock).is_some()
            })
        })
    }

    /// Whether nothing was invalidated since the ticket was given that its answer might carry.
    fn is_current(&self, key: &LeaseKey, ticket: Ticket) -> bool {
        ticket.born == self.clock.born()
            && ticket.tick >= self.clock.invalidated()
            && ticket.tick >= self.keys.ticks(&key.key).last()
    }

    fn release(&self, lease: &Lease, how: Release, now: Timestamp) -> Result<bool, BackendError> {
        let mut leases = lock(self.shard(&lease.key.key));
        if !leases.end(lease) {
            return Ok(false);
        }
        let mut outcome = Ok(true);
        match how {
            Release::Free => {}
            Release::Uncacheable(ttl) => leases.set(lease.key, State::Uncacheable, now, ttl),
            Release::Failed(ttl) => leases.set(lease.key, State::Failed, now, ttl),
            Release::HandOver(entry) if weight(&entry) > self.max_entry_bytes => {
                outcome = Err(BackendError::new(
                    ErrorKind::TooLarge,
                    format!("at most {} bytes are handed over, these are {}", self.max_entry_bytes, weight(&entry)),
                ));
            }
            // Before anybody is woken.
            Release::HandOver(entry) => self.handed.put(lease.key, lease.ticket, entry, now),
        }
        drop(leases);
        self.waits.wake(&lease.key);
        outcome
    }
}
