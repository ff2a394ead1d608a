//! What a holder leaves for those who waited, and who may come in between.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;
use tower_gatehouse::{
    Backend, HttpCache,
    backend::{Acquire, Acquired, BackendError, Release},
};

use crate::{
    app::Origin,
    fleet::{Held, MS, Store, alone, bounded, patient, spawn_get, until},
    support::altered::{Alter, Altered},
};

const URL: &str = "http://example.com/a";

/// A store where another process takes the turn just before this one asks for it a second time, and only collects what
/// the holder before has left.
#[derive(Debug)]
struct Overtaken {
    inner: Backend,
    turns: AtomicUsize,
    asks_again: Arc<Notify>,
    holder_has_ended: Arc<Notify>,
}

impl Alter for Overtaken {
    fn inner(&self) -> &Backend {
        &self.inner
    }

    async fn acquire(&self, acquire: Acquire<'_>) -> Result<Acquired, BackendError> {
        if self.turns.fetch_add(1, Ordering::SeqCst) == 1 {
            self.asks_again.notify_one();
            self.holder_has_ended.notified().await;
            let other = Acquire { key: acquire.key, ttl: acquire.ttl, since: acquire.since, tags: &[] };
            let Acquired::Granted(lease) = self.inner.acquire(other).await? else { panic!("somebody holds it") };
            let inner = self.inner.clone();
            tokio::spawn(async move {
                tokio::time::sleep(100 * MS).await;
                inner.release(&lease, Release::Free).await.expect("the store answers");
            });
        }
        self.inner.acquire(acquire).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_overtaken_by_another_that_waited_still_gets_what_the_holder_has_left() {
    for store in Store::both() {
        let origin = Held::new(Origin::with(&[("cache-control", "max-age=60")]));
        let (asks_again, holder_has_ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let overtaken = Overtaken {
            inner: store.process().await,
            turns: AtomicUsize::new(0),
            asks_again: Arc::clone(&asks_again),
            holder_has_ended: Arc::clone(&holder_has_ended),
        };
        let holder = alone(&patient(HttpCache::new(&store.process().await)), origin.clone());
        let follower = alone(&patient(HttpCache::new(&Backend::custom(Altered(overtaken)))), origin.clone());
        let first = spawn_get(&holder, URL);
        until("the origin is asked", || origin.0.count() == 1).await;
        let second = spawn_get(&follower, URL);
        bounded(asks_again.notified()).await;
        origin.open();
        assert_eq!(first.await.unwrap().body, "answer 1");
        holder_has_ended.notify_one();
        assert_eq!(bounded(second).await.unwrap().body, "answer 1", "{}", store.name());
        assert_eq!(origin.0.count(), 1, "{}", store.name());
    }
}
