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
    /// How often it was tried since the task began; where more comes in, it counts as tried a few times only.
    tried: u32,
    has_task: bool,
}

/// The most names: a few megabytes.
const MOST: usize = 100_000;

/// After these it waits for the last of them, again and again.
const WAITS: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)];

/// A minute and a half.
const ATTEMPTS: u32 = 20;

impl Owed {
    fn lock(&self) -> MutexGuard<'_, Debts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Debts {
    fn add(&mut self, order: Invalidate) {
        self.tags.extend(order.tags);
        self.keys.extend(order.keys);
        if self.len() > MOST {
            // The store is away for long, or takes only a part of them each time.
            tracing::error!("too much that requests changed is not invalidated: it stays as it was until it expires");
            (self.tags, self.keys) = Default::default();
        }
    }

    fn take(&mut self, cache: &HttpCache) -> Invalidate {
        let mut order = cache.invalidate();
        order.tags.extend(self.tags.drain());
        order.keys.extend(self.keys.drain());
        order
    }

    fn len(&self) -> usize {
        self.tags.len() + self.keys.len()
    }
}

impl Invalidate {
    /// Leaves it to be tried again in the background, a few times, less and less often.
    pub(super) fn owe(self) {
        let cache = self.cache.clone();
        let mut debts = cache.state.owed.lock();
        debts.add(self);
        debts.tried = debts.tried.min(1);
        if !mem::replace(&mut debts.has_task, true) {
            debts.tried = 0;
            drop(debts);
            let paying = Paying { cache: cache.clone(), order: None, ended: false };
            cache.state.tasks.spawn(paying.pay());
        }
    }
}

/// Dropped before it has ended, with its runtime, it leaves its place and what is owed to another one.
struct Paying {
    cache: HttpCache,
    /// What it is at.
    order: Option<Invalidate>,
    ended: bool,
}

impl Drop for Paying {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut debts = self.cache.state.owed.lock();
        debts.has_task = false;
        if let Some(order) = self.order.take() {
            debts.add(order);
        }
        if debts.len() > 0 {
            tracing::error!("what requests changed is not invalidated when the task ends that tries to");
        }
    }
}

impl Paying {
    async fn pay(mut self) {
        while let Some(wait) = self.next_wait() {
            tokio::time::sleep(wait).await;
            let order = self.order.insert(self.cache.state.owed.lock().take(&self.cache));
            let paid = order.run().await;
            let mut debts = self.cache.state.owed.lock();
            let order = self.order.take();
            if let (Err(error), Some(order)) = (&paid, order) {
                tracing::debug!(%error, "what requests changed is still not invalidated");
                debts.add(order);
            } else {
                tracing::info!("what requests changed is invalidated now");
                debts.tried = 0;
            }
        }
    }

    /// How long to wait; `None` where nothing is owed any more, or it was tried often enough, or for the last time.
    fn next_wait(&mut self) -> Option<Duration> {
        let mut debts = self.cache.state.owed.lock();
        let is_last = debts.tried >= ATTEMPTS || (debts.tried > 0 && self.cache.state.tasks.is_closed());
        if debts.len() > 0 && !is_last {
            let wait = WAITS[WAITS.len().min(debts.tried as usize + 1) - 1];
            debts.tried += 1;
            return Some(wait);
        }
        if debts.len() > 0 {
            tracing::error!("what requests changed stays as it was: no attempt to invalidate it has succeeded");
        }
        *debts = Debts::default();
        drop(debts);
        self.ended = true;
        None
    }
}
