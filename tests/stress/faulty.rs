//! A store that breaks one rule, to see whether the test finds out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_gatehouse::{
    Backend, Timestamp,
    backend::{
        Acquire, Acquired, BackendError, CacheBackend, Changes, Commit, Committed, Create, Cycle, Discarded, Entry,
        Epoch, Found, InvalidateError, Lease, LeaseKey, Leases, Limits, Lookup, MapChange, MapChanged, MapKey,
        MapSnapshot, Mode, PrimaryKey, Record, RecordKey, Records, Release, Responses, Saved, Scope, Settle, Take,
        Taken, Ticket, UserKey, Variant, VaryOf, Waiter,
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The ticket is read by the commit instead of before the fetch.
    LateTicket,
    /// What was once there is found again, invalidated or not.
    Blind,
    /// `Ok` is said before it is invalidated.
    Hasty,
    /// What was softly invalidated still counts as fresh.
    DeafToSoft,
}

impl Fault {
    pub(crate) fn parse(text: &str) -> Self {
        let all = [Self::None, Self::LateTicket, Self::Blind, Self::Hasty, Self::DeafToSoft];
        all.into_iter().find(|fault| format!("{fault:?}") == text).expect("a fault")
    }
}

#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Backend,
    fault: Fault,
    seen: Mutex<HashMap<(PrimaryKey, Variant), Arc<Entry>>>,
}

impl Faulty {
    pub(crate) fn new(inner: Backend, fault: Fault) -> Self {
        Self { inner, fault, seen: Mutex::default() }
    }
}

impl Responses for Faulty {
    async fn lookup(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> Result<Lookup, BackendError> {
        let mut lookup = self.inner.lookup(key, vary).await?;
        match self.fault {
            Fault::Blind => {
                let mut seen = self.seen.lock().unwrap();
                let known = (*key, lookup.variant);
                if let Some(found) = &lookup.found {
                    seen.insert(known, Arc::clone(&found.entry));
                } else {
                    let entry = seen.get(&known).cloned();
                    lookup.found = entry.map(|entry| Found { entry, stale_since: None });
                }
            }
            Fault::DeafToSoft => lookup.found = lookup.found.map(|found| Found { stale_since: None, ..found }),
            _ => {}
        }
        Ok(lookup)
    }

    async fn ticket(&self, key: &PrimaryKey) -> Result<Ticket, BackendError> {
        self.inner.ticket(key).await
    }

    async fn commit(&self, mut commit: Commit<'_>) -> Result<Committed, BackendError> {
        if self.fault == Fault::LateTicket {
            let (ticket, entry) = (self.inner.ticket(&commit.key).await?, &commit.entry);
            let late = Entry::builder(ticket)
                .fresh_until(entry.fresh_until())
                .keep_until(entry.keep_until())
                .vary(entry.vary().clone())
                .tags(entry.tags().iter().copied())
                .head(entry.head().clone())
                .body(entry.body().clone());
            commit.entry = late.build();
        }
        self.inner.commit(commit).await
    }

    async fn discard(
        &self,
        key: &PrimaryKey,
        variant: Variant,
        ticket: Ticket,
        lease: Option<&Lease>,
    ) -> Result<Discarded, BackendError> {
        self.inner.discard(key, variant, ticket, lease).await
    }

    async fn invalidate(&self, scope: Scope<'_>, mode: Mode) -> Result<(), InvalidateError> {
        if self.fault != Fault::Hasty {
            return self.inner.invalidate(scope, mode).await;
        }
        let (keys, tags) = match scope {
            Scope::Keys(keys) => (keys.to_vec(), Vec::new()),
            Scope::Tags(tags) => (Vec::new(), tags.to_vec()),
            _ => (Vec::new(), Vec::new()),
        };
        let inner = self.inner.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let scope = match (&*keys, &*tags) {
                ([], []) => Scope::All,
                ([], tags) => Scope::Tags(tags),
                (keys, _) => Scope::Keys(keys),
            };
            inner.invalidate(scope, mode).await
        });
        Ok(())
    }
}

impl Leases for Faulty {
    async fn acquire(&self, acquire: Acquire<'_>) -> Result<Acquired, BackendError> {
        self.inner.acquire(acquire).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, BackendError> {
        self.inner.renew(lease, ttl).await
    }

    async fn release(&self, lease: &Lease, how: Release) -> Result<bool, BackendError> {
        self.inner.release(lease, how).await
    }

    fn watch(&self, key: &LeaseKey) -> Waiter {
        self.inner.watch(key)
    }

    async fn collect(&self, key: &LeaseKey, ticket: Ticket) -> Result<Option<Arc<Entry>>, BackendError> {
        self.inner.collect(key, ticket).await
    }
}

impl Records for Faulty {
    async fn load(&self, key: &RecordKey) -> Result<Option<Arc<Record>>, BackendError> {
        self.inner.load(key).await
    }

    async fn create(&self, create: Create<'_>) -> Result<Saved, BackendError> {
        self.inner.create(create).await
    }

    async fn commit(
        &self,
        key: &RecordKey,
        changes: Changes<'_>,
        expected: Option<u64>,
    ) -> Result<Saved, BackendError> {
        self.inner.commit_record(key, changes, expected).await
    }

    async fn touch(&self, key: &RecordKey) -> Result<bool, BackendError> {
        self.inner.touch(key).await
    }

    async fn destroy(&self, key: &RecordKey) -> Result<bool, BackendError> {
        self.inner.destroy(key).await
    }

    async fn cycle(&self, cycle: Cycle<'_>) -> Result<Saved, BackendError> {
        self.inner.cycle(cycle).await
    }

    async fn epoch(&self, user: &UserKey) -> Result<Epoch, BackendError> {
        self.inner.epoch(user).await
    }

    async fn revoke_all(&self, user: &UserKey) -> Result<u64, BackendError> {
        self.inner.revoke_all(user).await
    }

    async fn records_of(&self, user: &UserKey) -> Result<Vec<RecordKey>, BackendError> {
        self.inner.records_of(user).await
    }

    async fn map(&self, key: &MapKey) -> Result<MapSnapshot, BackendError> {
        self.inner.map(key).await
    }

    async fn change_map(&self, change: MapChange<'_>) -> Result<MapChanged, BackendError> {
        self.inner.change_map(change).await
    }

    async fn park_map(&self, key: &MapKey, ttl: Duration) -> Result<Option<MapSnapshot>, BackendError> {
        self.inner.park_map(key, ttl).await
    }

    async fn drop_parked(&self, key: &MapKey, version: u64) -> Result<bool, BackendError> {
        self.inner.drop_parked(key, version).await
    }
}

impl Limits for Faulty {
    async fn take(&self, takes: &[Take<'_>]) -> Result<Taken, BackendError> {
        self.inner.take(takes).await
    }

    async fn settle(&self, settle: Settle<'_>) -> Result<(), BackendError> {
        self.inner.settle(settle).await
    }
}

impl CacheBackend for Faulty {
    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn name(&self) -> &'static str {
        "faulty"
    }

    async fn ping(&self) -> Result<(), BackendError> {
        self.inner.ping().await
    }
}
