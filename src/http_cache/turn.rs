//! Whose turn it is to ask the origin.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{HttpCache, lease::HeldLease, unshared::Unshared};
use crate::{
    TagDigest,
    backend::{Acquire, Acquired, Entry, LeaseKey, Lookup, Release, Ticket, VaryOf},
};

/// What this process is to do about a key for which it has nothing usable.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Ask the origin on this ticket; under a lease of the fleet, or without one because the store is out of reach or
    /// the holder takes too long.
    Ask { ticket: Option<Ticket>, lease: Option<HeldLease> },
    /// Somebody else has filled it meanwhile.
    Found(Lookup),
    /// Somebody else has asked the origin and hands the answer over.
    HandedOver(Arc<Entry>),
    /// The answer cannot be shared: everybody asks, on the ticket of its own look-up.
    Everybody,
    /// The origin failed a moment ago.
    Failed,
}

/// Asks for a turn.
pub(crate) struct TurnRequest<'a> {
    pub(crate) key: LeaseKey,
    /// What was found before; its ticket is good for asking without a lease.
    pub(crate) lookup: &'a Lookup,
    pub(crate) vary: &'a VaryOf<'a>,
    /// Tags that the answer is known to carry.
    pub(crate) tags: &'a [TagDigest],
}

/// A wake-up may be lost; then one looks again after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Of so many holders in a row it is known that they may have left something.
const HOLDERS: usize = 8;

impl HttpCache {
    /// Takes a turn: at most one process of the fleet gets [`Turn::Ask`] with a lease at any time.
    ///
    /// `usable` says whether what another has filled is good for the caller.
    pub(crate) async fn turn(&self, request: TurnRequest<'_>, usable: impl Fn(&Lookup) -> bool) -> Turn {
        let TurnRequest { mut key, lookup, vary, tags } = request;
        let backend = &self.state.backend;
        let settings = &self.config.coalesce;
        if self.is_uncacheable(&key) {
            return Turn::Everybody;
        }
        let give_up = Instant::now() + settings.wait;
        let mut ticket = lookup.ticket;
        let mut since = lookup.since;
        let mut filled = 0;
        // The tickets of the holders that were waited for: what one of them hands over is for this caller. The last is
        // not enough, for it may only have collected what the one before it left.
        let mut awaited = Vec::new();
        let mut has_waited = false;
        loop {
            let mut waiter = backend.watch(&key);
            let acquire = Acquire { key, ttl: settings.lease, since, tags };
            let held = match backend.acquire(acquire).await {
                Ok(Acquired::Granted(lease)) => {
                    let lease = HeldLease::new(backend, &self.state.tasks, lease, settings.lease);
                    // The holder may have ended just after it was looked for.
                    if let Some(entry) = self.collect(&awaited).await {
                        lease.release(Release::Free).await;
                        return Turn::HandedOver(entry);
                    }
                    return Turn::Ask { ticket: lease.lease().map(|lease| lease.ticket), lease: Some(lease) };
                }
                Ok(Acquired::Uncacheable { left, .. }) => {
                    self.state.unshared.remember(key, Unshared::Lasting, left);
                    return Turn::Everybody;
                }
                // It failed for those who waited; who comes now tries again, unless errors are held.
                Ok(Acquired::Failed { .. }) if !has_waited && settings.hold_errors.is_zero() => {
                    return Turn::Ask { ticket, lease: None };
                }
                Ok(Acquired::Failed { .. }) => return Turn::Failed,
                Ok(Acquired::Held { left, ticket }) => Some((left, ticket)),
                Ok(Acquired::Filled) if filled < 3 => {
                    filled += 1;
                    None
                }
                // Others fill it again and again with what is of no use here.
                Ok(Acquired::Filled) => return Turn::Ask { ticket, lease: None },
                Err(error) => {
                    let ticket = if error.is_outage() { None } else { ticket };
                    return Turn::Ask { ticket, lease: None };
                }
            };
            if let Some((left, handing)) = held {
                match handing.map(|ticket| (key, ticket)) {
                    // Something was invalidated since.
                    None => awaited.clear(),
                    Some(holder) if awaited.contains(&holder) => {}
                    Some(holder) => {
                        if awaited.len() == HOLDERS {
                            awaited.remove(0);
                        }
                        awaited.push(holder);
                    }
                }
                has_waited = true;
                let now = Instant::now();
                if now >= give_up {
                    return Turn::Ask { ticket, lease: None };
                }
                waiter.woken(jitter(left).min(LOOK_AGAIN).min(give_up - now)).await;
            }
            let again = match backend.lookup(&key.key, vary).await {
                Ok(again) => Ok(self.unpacked(again).await),
                Err(error) => Err(error),
            };
            match again {
                Ok(again) if usable(&again) => return Turn::Found(again),
                Ok(again) => {
                    ticket = again.ticket;
                    since = again.since;
                    // By now it may be known how the answer varies, and others ask for this variant. Where nothing is
                    // stored, only those who have waited know it.
                    if again.variant.0.is_some() {
                        key.variant = again.variant;
                    }
                }
                Err(_) => return Turn::Ask { ticket: None, lease: None },
            }
            if let Some(entry) = self.collect(&awaited).await {
                return Turn::HandedOver(entry);
            }
        }
    }

    /// What one of these has handed over, the last one first.
    async fn collect(&self, awaited: &[(LeaseKey, Ticket)]) -> Option<Arc<Entry>> {
        for (key, ticket) in awaited.iter().rev() {
            // An error costs a request to the origin.
            if let Some(entry) = self.state.backend.collect(key, *ticket).await.ok()? {
                return Some(entry);
            }
        }
        None
    }
}

/// A little longer than the lease, and not the same for all who wait for it.
fn jitter(left: Duration) -> Duration {
    left + Duration::from_millis(1 + super::random(50))
}
