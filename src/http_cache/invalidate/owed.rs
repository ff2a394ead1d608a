//! What requests have changed, and the store could not be told.

use std::{
    collections::HashSet,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Invalidate;
use crate::{HttpCache, TagDigest, backend::PrimaryKey};

/// What is still to be invalidated, of all requests together: however long the store is away, and whatever is changed
/// meanwhile, one task tries again, and it is bounded.
#[derive(Default)]
pub(crate) struct Owed(Mutex<Debts>);

#[derive(Default)]
struct Debts {
    tags: HashSet<TagDigest>,
    keys: HashSet<PrimaryKey>,
    /// It is everything.
    all: bool,
    /// How often it was tried since the task began, or the last of it came in.
    tried: usize,
    has_task: bool,
}

/// More names are everything: a few megabytes.
const MOST: usize = 100_000;

/// How long it waits before each attempt.
const WAITS: [f32; 5] = [0.2, 1.0, 5.0, 15.0, 60.0];

impl Owed {
    fn lock(&self) -> MutexGuard<'_, Debts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Debts {
    fn add(&mut self, order: Invalidate) {
        self.all |= order.all;
        self.tags.extend(order.tags);
        self.keys.extend(order.keys);
        self.all |= self.tags.len() + self.keys.len() > MOST;
        if self.all {
            (self.tags, self.keys) = Default::default();
        }
    }

    fn is_empty(&self) -> bool {
        !self.all && self.tags.is_empty() && self.keys.is_empty()
    }
}

impl Invalidate {
    /// Leaves it to be tried again in the background, a few times, less and less often.
    pub(super) fn owe(self) {
        let cache = self.cache.clone();
        let mut debts = cache.state.owed.lock();
        debts.add(self);
        // Once more at least.
        debts.tried = debts.tried.min(WAITS.len() - 1);
        if mem::replace(&mut debts.has_task, true) {
            return;
        }
        debts.tried = 0;
        drop(debts);
        let paying = Paying { cache: cache.clone(), ended: false };
        cache.state.tasks.spawn(paying.pay());
    }
}

/// Dropped before it has ended, with its runtime, it leaves its place to another one.
struct Paying {
    cache: HttpCache,
    ended: bool,
}

impl Drop for Paying {
    fn drop(&mut self) {
        if !self.ended {
            self.cache.state.owed.lock().has_task = false;
        }
    }
}

impl Paying {
    async fn pay(mut self) {
        while let Some(wait) = self.next_wait() {
            tokio::time::sleep(wait).await;
            let order = self.take();
            match order.run().await {
                Ok(()) => {
                    tracing::info!("what requests changed is invalidated now");
                    self.cache.state.owed.lock().tried = 0;
                }
                Err(error) => {
                    tracing::debug!(%error, "what requests changed is still not invalidated");
                    self.cache.state.owed.lock().add(order);
                }
            }
        }
    }

    /// How long to wait; `None` where nothing is owed any more, or it was tried often enough.
    fn next_wait(&mut self) -> Option<Duration> {
        let mut debts = self.cache.state.owed.lock();
        let wait = WAITS.get(debts.tried).filter(|_| !debts.is_empty());
        if let Some(wait) = wait {
            debts.tried += 1;
            return Some(Duration::from_secs_f32(*wait));
        }
        if !debts.is_empty() {
            tracing::error!("what requests changed stays as it was: no attempt to invalidate it has succeeded");
        }
        *debts = Debts::default();
        drop(debts);
        self.ended = true;
        None
    }

    fn take(&self) -> Invalidate {
        let mut debts = self.cache.state.owed.lock();
        let mut order = self.cache.invalidate();
        order.all = mem::take(&mut debts.all);
        order.tags.extend(debts.tags.drain());
        order.keys.extend(debts.keys.drain());
        order
    }
}
