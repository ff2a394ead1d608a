//! Waiting for the end of a lease, inside one process.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::{Notify, futures::OwnedNotified};

use super::LeaseKey;

/// Who waits for which lease; for implementers of [`Leases`](super::Leases).
///
/// Holds nothing for keys that nobody waits for.
#[derive(Clone, Default)]
pub struct WaitMap(Arc<Mutex<HashMap<LeaseKey, Weak<Bell>>>>);

struct Bell {
    key: LeaseKey,
    rung: Arc<Notify>,
    map: WaitMap,
}

impl WaitMap {
    /// Starts listening at once; only wakes that come later are heard.
    pub fn watch(&self, key: &LeaseKey) -> Waiter {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bell = map.get(key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let bell = Arc::new(Bell { key: *key, rung: Arc::default(), map: self.clone() });
            map.insert(*key, Arc::downgrade(&bell));
            bell
        });
        drop(map);
        Waiter { rung: bell.listen(), bell }
    }

    /// Wakes all who wait for this lease.
    pub fn wake(&self, key: &LeaseKey) {
        let bell = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).and_then(Weak::upgrade);
        if let Some(bell) = bell {
            bell.rung.notify_waiters();
        }
    }

    /// Whether somebody waits for this lease in this process.
    pub fn is_watched(&self, key: &LeaseKey) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }
}

impl Bell {
    /// Hears every wake from now on, whether it is polled by then or not.
    fn listen(&self) -> Pin<Box<OwnedNotified>> {
        Box::pin(Arc::clone(&self.rung).notified_owned())
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let mut map = self.map.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have hung up a new bell since the last one let go of this.
        if map.get(&self.key).is_some_and(|bell| bell.strong_count() == 0) {
            map.remove(&self.key);
        }
    }
}

impl fmt::Debug for WaitMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.0.lock().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("WaitMap").field("watched", &len).finish()
    }
}

/// Hears when a lease ends; see [`Leases::watch`](super::Leases::watch).
pub struct Waiter {
    rung: Pin<Box<OwnedNotified>>,
    bell: Arc<Bell>,
}

impl Waiter {
    /// Waits until somebody wakes this lease, but no longer than `at_most`; `true` if woken.
    ///
    /// A wake since the waiter was made counts. Cancel safe.
    pub async fn woken(&mut self, at_most: Duration) -> bool {
        let woken = tokio::time::timeout(at_most, &mut self.rung).await.is_ok();
        if woken {
            self.rung = self.bell.listen();
        }
        woken
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{LeaseKind, PrimaryKey, Variant};

    fn key(n: u8) -> LeaseKey {
        LeaseKey { key: PrimaryKey::from_bytes([n; 16]), variant: Variant(None), kind: LeaseKind::Fill }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wake_between_watching_and_waiting_is_not_lost() {
        let map = WaitMap::default();
        let mut one = map.watch(&key(1));
        let mut two = map.watch(&key(1));
        let mut other = map.watch(&key(2));
        map.wake(&key(1));
        assert!(one.woken(Duration::ZERO).await);
        assert!(two.woken(Duration::from_secs(1)).await);
        assert!(!other.woken(Duration::from_secs(1)).await);
        assert!(!one.woken(Duration::from_secs(1)).await, "one wake is heard once");
        map.wake(&key(1));
        assert!(one.woken(Duration::from_secs(1)).await, "and the next one again");
    }

    /// The waiter used to poll once to begin to listen. A wake from another thread within that poll completed it, and
    /// the wait then polled what was complete and panicked. The randomized test of the conformance kit found it.
    #[test]
    fn a_wake_while_somebody_begins_to_listen_is_heard_or_not_but_does_no_harm() {
        let map = WaitMap::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Bounded, so that a panic of the other side ends the test.
                for _ in 0..5_000_000 {
                    map.wake(&key(1));
                    if stop.load(std::sync::atomic::Ordering::SeqCst) {
                        break;
                    }
                }
            });
            for _ in 0..5_000 {
                let mut waiter = map.watch(&key(1));
                for _ in 0..3 {
                    runtime.block_on(waiter.woken(Duration::ZERO));
                }
            }
            stop.store(true, std::sync::atomic::Ordering::SeqCst);
        });
    }

    #[tokio::test]
    async fn nothing_is_held_for_leases_that_nobody_waits_for() {
        let map = WaitMap::default();
        let (one, two) = (map.watch(&key(1)), map.watch(&key(1)));
        drop(one);
        assert!(map.is_watched(&key(1)));
        drop(two);
        assert!(!map.is_watched(&key(1)));
    }
}
