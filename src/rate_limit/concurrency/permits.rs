//! Who is in progress.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::backend::LimitKey;

/// How many requests of each key are in progress. Holds nothing for keys that have none.
#[derive(Clone, Default)]
pub(super) struct Permits(Arc<Mutex<HashMap<LimitKey, u32>>>);

/// The right of one request to be in progress, until it is dropped.
pub(super) struct Permit {
    permits: Permits,
    key: LimitKey,
}

impl Permits {
    /// A permit, unless `most` are out.
    pub(super) fn acquire(&self, key: LimitKey, most: u32) -> Option<Permit> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.entry(key) {
            _ if most == 0 => return None,
            Entry::Occupied(count) if *count.get() >= most => return None,
            Entry::Occupied(mut count) => *count.get_mut() += 1,
            Entry::Vacant(none) => {
                none.insert(1);
            }
        }
        Some(Permit { permits: self.clone(), key })
    }

    /// For how many keys requests are in progress.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.permits.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(self.key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl fmt::Debug for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Permits").field("keys", &counts.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_come_back_and_leave_nothing_behind() {
        let (permits, key) = (Permits::default(), LimitKey::from_bytes([1; 16]));
        let held: Vec<_> = (0..3).map_while(|_| permits.acquire(key, 3)).collect();
        assert_eq!(held.len(), 3);
        assert!(permits.acquire(key, 3).is_none());
        assert!(permits.acquire(LimitKey::from_bytes([2; 16]), 0).is_none());
        drop(held);
        assert_eq!(permits.len(), 0);
        assert!(permits.acquire(key, 1).is_some());
    }
}
