//! What this process remembers for a while: which keys are uncacheable, which origins failed.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Values that are remembered until a moment; at most `CAPACITY` of them, the ones that end first are forgotten first.
pub(crate) struct Memo<K, V>(Mutex<HashMap<K, (V, Instant)>>);

const CAPACITY: usize = 4096;

impl<K: Eq + Hash + Clone, V: Clone> Memo<K, V> {
    /// Remembers `value` for `duration`, in place of what was remembered for this key.
    pub(crate) fn remember(&self, key: K, value: V, duration: Duration) {
        let now = Instant::now();
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= CAPACITY && !map.contains_key(&key) {
            map.retain(|_, (_, until)| *until > now);
            if map.len() >= CAPACITY {
                // A sixteenth at once, so that a flood of keys pays for the sorting only now and then.
                let mut ends: Vec<_> = map.values().map(|(_, until)| *until).collect();
                let (_, &mut end, _) = ends.select_nth_unstable(CAPACITY / 16);
                map.retain(|_, (_, until)| *until > end);
            }
        }
        map.insert(key, (value, now + duration));
    }

    /// What is remembered, and for how long.
    pub(crate) fn recall(&self, key: &K) -> Option<(V, Duration)> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, until) = map.get(key)?;
        let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        Some((value.clone(), left))
    }

    /// What was remembered last, even if its time has passed.
    pub(crate) fn last(&self, key: &K) -> Option<V> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).map(|(value, _)| value.clone())
    }

    pub(crate) fn forget(&self, key: &K) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !map.is_empty() {
            map.remove(key);
        }
    }
}

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K, V> fmt::Debug for Memo<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_forgets_in_time_and_never_grows_beyond_its_bound() {
        let memo = Memo::default();
        memo.remember(u32::MAX, 'a', Duration::from_secs(1000));
        for n in 0..20_000 {
            memo.remember(n, 'b', Duration::from_secs(1) + Duration::from_micros(n.into()));
        }
        assert!(memo.0.lock().unwrap().len() <= CAPACITY);
        assert_eq!(memo.recall(&u32::MAX).unwrap().0, 'a', "what lasts longest stays");
        assert!(memo.recall(&19_999).is_some());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(memo.recall(&19_999).is_none());
        memo.forget(&u32::MAX);
        assert!(memo.recall(&u32::MAX).is_none());
    }
}
