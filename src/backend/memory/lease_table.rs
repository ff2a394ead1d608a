//! Who holds which lease, within one shard of the keys.

use std::{collections::HashMap, time::Duration};

use crate::{
    Timestamp,
    backend::{Lease, LeaseKey, Owner, Ticket, term::Term},
};

/// Bounded: where there are too many live leases, a new one is granted without being remembered.
#[derive(Debug, Default)]
pub(super) struct LeaseTable {
    slots: HashMap<LeaseKey, Slot>,
    /// How many slots there may be until the next sweep, and when that may be.
    sweep_at: usize,
    sweep_after: Timestamp,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) state: State,
    term: Term,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    Held(Owner, Ticket),
    Uncacheable,
    Failed,
}

const FEWEST: usize = 64;
const MOST: usize = 2048;
const BETWEEN_FULL_SWEEPS: Duration = Duration::from_millis(100);

impl LeaseTable {
    /// What is there, and for how long.
    pub(super) fn get(&self, key: &LeaseKey, now: Timestamp) -> Option<(State, Duration)> {
        let slot = self.slots.get(key)?;
        Some((slot.state, slot.term.left(now)?))
    }

    pub(super) fn set(&mut self, key: LeaseKey, state: State, now: Timestamp, ttl: Duration) {
        if self.slots.len() >= self.sweep_at.max(FEWEST) && !self.slots.contains_key(&key) {
            if now >= self.sweep_after {
                self.slots.retain(|_, slot| slot.term.left(now).is_some());
                self.sweep_at = (2 * self.slots.len()).min(MOST);
                if self.sweep_at == MOST {
                    self.sweep_after = now.plus(BETWEEN_FULL_SWEEPS);
                }
            }
            if self.slots.len() >= MOST {
                return;
            }
        }
        self.slots.insert(key, Slot { state, term: Term::new(now, ttl) });
    }

    /// Whether the lease is still its owner's. One that has ended is until somebody else takes it.
    pub(super) fn is_held(&self, lease: &Lease) -> bool {
        self.slots
            .get(&lease.key)
            .is_some_and(|slot| matches!(slot.state, State::Held(owner, _) if owner == lease.owner))
    }

    /// Ends a lease, if it is still its owner's.
    pub(super) fn end(&mut self, lease: &Lease) -> bool {
        let held = self.is_held(lease);
        if held {
            self.slots.remove(&lease.key);
        }
        held
    }

    #[cfg(feature = "test-util")]
    pub(super) fn forget(&mut self) {
        self.slots.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{LeaseKind, PrimaryKey, Variant};

    fn key(n: u128) -> LeaseKey {
        let key = PrimaryKey::from_bytes(n.to_be_bytes());
        LeaseKey { key, variant: Variant(None), kind: LeaseKind::Fill }
    }

    #[test]
    fn it_is_bounded_and_makes_room_when_leases_have_ended() {
        let mut table = LeaseTable::default();
        let start = Timestamp::from_micros(1_000_000);
        for n in 0..10_000 {
            table.set(key(n), State::Failed, start, Duration::from_secs(1));
        }
        assert_eq!(table.slots.len(), MOST);
        let later = start.plus(Duration::from_secs(2));
        table.set(key(99_999), State::Failed, later, Duration::from_secs(1));
        assert_eq!(table.slots.len(), 1);
        assert!(table.get(&key(99_999), later).is_some());
    }
}
