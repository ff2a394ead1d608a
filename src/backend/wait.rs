//! Waiting for the end of a lease, inside one process.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::Notify;

use super::LeaseKey;

/// Who waits for which lease; for implementers of [`Leases`](super::Leases).
///
/// Holds nothing for keys that nobody waits for.
#[derive(Clone, Default)]
pub struct WaitMap(Arc<Mutex<HashMap<LeaseKey, Weak<Bell>>>>);

struct Bell {
    key: LeaseKey,
    rung: Notify,
    map: WaitMap,
}

impl WaitMap {
    /// Starts listening at once; only wakes that come later are heard.
    pub fn watch(&self, key: &LeaseKey) -> Waiter {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bell = map.get(key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let bell = Arc::new(Bell { key: *key, rung: Notify::new(), map: self.clone() });
            map.insert(*key, Arc::downgrade(&bell));
            bell
        });
        drop(map);
        let mut rung = Box::pin(Arc::clone(&bell).rung());
        // The first poll registers with the bell.
        let _ = futures_util::FutureExt::now_or_never(rung.as_mut());
        Waiter { rung, bell }
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
    async fn rung(self: Arc<Self>) {
        self.rung.notified().await;
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
    rung: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
    bell: Arc<Bell>,
}

impl Waiter {
    /// Waits until somebody wakes this lease, but no longer than `at_most`; `true` if woken.
    ///
    /// A wake since the waiter was made counts. Cancel safe.
    pub async fn woken(&mut self, at_most: Duration) -> bool {
        if futures_util::FutureExt::now_or_never(&mut self.rung).is_some() {
            self.listen_again();
            return true;
        }
        let woken = tokio::time::timeout(at_most, &mut self.rung).await.is_ok();
        if woken {
            self.listen_again();
        }
        woken
    }

    fn listen_again(&mut self) {
        self.rung = Box::pin(Arc::clone(&self.bell).rung());
        let _ = futures_util::FutureExt::now_or_never(&mut self.rung);
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
