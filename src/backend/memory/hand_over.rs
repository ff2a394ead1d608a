//! What is handed to those who wait, for a few seconds, without being stored.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{lock, store::weight};
use crate::{
    Timestamp,
    backend::{Entry, LeaseKey, Ticket},
};

/// Bounded by bytes; the oldest goes first.
#[derive(Debug)]
pub(super) struct HandOvers {
    max_bytes: u64,
    inner: Mutex<Inner>,
}

type Name = (LeaseKey, Ticket);

#[derive(Debug, Default)]
struct Inner {
    handed: HashMap<Name, (Arc<Entry>, Timestamp)>,
    oldest_first: VecDeque<Name>,
    bytes: u64,
}

/// How long it is kept.
pub(super) const KEPT: Duration = Duration::from_secs(5);

impl HandOvers {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, inner: Mutex::default() }
    }

    pub(super) fn put(&self, key: LeaseKey, ticket: Ticket, entry: Arc<Entry>, now: Timestamp) {
        let name = (key, ticket);
        let mut inner = lock(&self.inner);
        inner.drop_expired(now);
        inner.bytes += weight(&entry);
        if let Some((before, _)) = inner.handed.insert(name, (entry, now.plus(KEPT))) {
            inner.bytes -= weight(&before);
        } else {
            inner.oldest_first.push_back(name);
        }
        while inner.bytes > self.max_bytes {
            inner.drop_oldest();
        }
    }

    pub(super) fn get(&self, key: &LeaseKey, ticket: Ticket, now: Timestamp) -> Option<Arc<Entry>> {
        let mut inner = lock(&self.inner);
        inner.drop_expired(now);
        inner.handed.get(&(*key, ticket)).filter(|(_, until)| now < *until).map(|(entry, _)| Arc::clone(entry))
    }

    #[cfg(feature = "test-util")]
    pub(super) fn forget(&self) {
        *lock(&self.inner) = Inner::default();
    }
}

impl Inner {
    fn drop_expired(&mut self, now: Timestamp) {
        while self.oldest_first.front().and_then(|name| self.handed.get(name)).is_some_and(|(_, until)| *until <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((entry, _)) = self.oldest_first.pop_front().and_then(|name| self.handed.remove(&name)) {
            self.bytes -= weight(&entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{LeaseKind, PrimaryKey, Variant};

    #[test]
    fn it_is_bounded_by_bytes_and_by_time() {
        let handed = HandOvers::new(10_000);
        let key = LeaseKey { key: PrimaryKey::from_bytes([1; 16]), variant: Variant(None), kind: LeaseKind::Fill };
        let ticket = |tick| Ticket { tick, born: 1 };
        let now = Timestamp::from_micros(1);
        for tick in 0..100 {
            let entry = Entry::builder(ticket(tick)).body(vec![0; 1000].into()).build();
            handed.put(key, ticket(tick), entry, now);
        }
        let inner = lock(&handed.inner);
        assert!(inner.bytes <= 10_000 && inner.handed.len() == inner.oldest_first.len());
        drop(inner);
        assert!(handed.get(&key, ticket(0), now).is_none());
        assert!(handed.get(&key, ticket(99), now).is_some());
        assert!(handed.get(&key, ticket(99), now.plus(KEPT)).is_none());
        assert_eq!(lock(&handed.inner).bytes, 0);
    }
}
