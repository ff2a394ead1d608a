//! A store that breaks one rule, to see whether the test finds out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_gatehouse::{
    Backend,
    backend::{
        BackendError, Commit, Committed, Entry, Found, InvalidateError, Lookup, Mode, PrimaryKey, Scope, Variant,
        VaryOf,
    },
};

use crate::support::altered::{Alter, Altered};

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
    pub(crate) fn backend(inner: Backend, fault: Fault) -> Backend {
        Backend::custom(Altered(Self { inner, fault, seen: Mutex::default() }))
    }
}

impl Alter for Faulty {
    fn inner(&self) -> &Backend {
        &self.inner
    }

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
