//! Things that end at a time, in bounded memory: nothing that lives is ever displaced.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use quick_cache::DefaultHashBuilder;

use crate::Timestamp;

/// One shard. Its owner's lock makes every operation one step.
pub(super) struct Shelf<K, V> {
    items: HashMap<K, Item<V>, DefaultHashBuilder>,
    /// The same keys by when they end.
    ends: BTreeSet<(Timestamp, K)>,
    room: Arc<Room>,
}

struct Item<V> {
    value: V,
    ends: Timestamp,
    bytes: u64,
}

/// The bytes that all shards may take together.
#[derive(Debug)]
pub(in crate::backend) struct Room {
    max: u64,
    taken: AtomicU64,
}

/// There is no room for what was to be put down.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

/// What an item takes besides its content: two keys, the entries of both maps, pointers.
pub(super) const OVERHEAD: u64 = 320;

/// How many of the ended are cleared away by each put: more than one, so that there are ever fewer.
const CLEAR_PER_PUT: usize = 4;

impl Room {
    pub(in crate::backend) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { max, taken: AtomicU64::new(0) })
    }

    pub(in crate::backend) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl<K: Clone + Eq + Hash + Ord, V> Shelf<K, V> {
    pub(super) fn new(room: Arc<Room>) -> Self {
        Self { items: HashMap::default(), ends: BTreeSet::new(), room }
    }

    /// What is there and has not ended.
    pub(super) fn get(&self, key: &K, now: Timestamp) -> Option<&V> {
        self.items.get(key).filter(|item| item.ends > now).map(|item| &item.value)
    }

    /// Puts something down in place of what was there. Nothing is changed if there is no room for what it is larger.
    pub(super) fn put(&mut self, key: K, value: V, bytes: u64, ends: Timestamp, now: Timestamp) -> Result<(), NoRoom> {
        self.clear(now, CLEAR_PER_PUT);
        let before = self.items.get(&key).map_or(0, |item| item.bytes);
        if !self.room_for(before, bytes) {
            self.clear(now, usize::MAX);
            let before = self.items.get(&key).map_or(0, |item| item.bytes);
            if !self.room_for(before, bytes) {
                return Err(NoRoom);
            }
        }
        self.put_anyway(key, value, bytes, ends);
        Ok(())
    }

    /// The same for what must not be refused, because it is small and takes away more than it brings.
    pub(super) fn put_anyway(&mut self, key: K, value: V, bytes: u64, ends: Timestamp) {
        self.take(&key);
        self.room.taken.fetch_add(bytes, Ordering::Relaxed);
        self.ends.insert((ends, key.clone()));
        self.items.insert(key, Item { value, ends, bytes });
    }

    /// What is there, ended or not, in no order.
    pub(super) fn items(&self) -> impl Iterator<Item = (&K, &V, Timestamp)> {
        self.items.iter().map(|(key, item)| (key, &item.value, item.ends))
    }

    /// Removes what is there; `None` if it has ended.
    pub(super) fn remove(&mut self, key: &K, now: Timestamp) -> Option<V> {
        self.take(key).filter(|item| item.ends > now).map(|item| item.value)
    }

    /// Clears away at most `most` of those that have ended.
    pub(super) fn clear(&mut self, now: Timestamp, most: usize) {
        for _ in 0..most {
            match self.ends.first() {
                Some((ends, key)) if *ends <= now => {
                    let key = key.clone();
                    self.take(&key);
                }
                _ => return,
            }
        }
    }

    fn take(&mut self, key: &K) -> Option<Item<V>> {
        let item = self.items.remove(key)?;
        self.ends.remove(&(item.ends, key.clone()));
        self.room.taken.fetch_sub(item.bytes, Ordering::Relaxed);
        Some(item)
    }

    fn room_for(&self, before: u64, bytes: u64) -> bool {
        bytes <= before || self.room.taken().saturating_sub(before).saturating_add(bytes) <= self.room.max
    }
}

impl<K, V> Drop for Shelf<K, V> {
    fn drop(&mut self) {
        let bytes = self.items.values().map(|item| item.bytes).sum();
        self.room.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(time: u64) -> Timestamp {
        Timestamp::from_micros(time)
    }

    #[test]
    fn what_lives_is_never_displaced_and_what_has_ended_makes_room() {
        let room = Room::new(100);
        let mut shelf = Shelf::new(room.clone());
        assert_eq!(shelf.put(1, "a", 60, at(10), at(0)), Ok(()));
        assert_eq!(shelf.put(2, "b", 60, at(20), at(0)), Err(NoRoom));
        assert_eq!(shelf.get(&1, at(9)), Some(&"a"));
        assert_eq!(shelf.get(&2, at(9)), None);
        assert_eq!(shelf.get(&1, at(10)), None, "it ends at its end");
        assert_eq!(shelf.put(2, "b", 60, at(20), at(10)), Ok(()));
        assert_eq!(room.taken(), 60);
        drop(shelf);
        assert_eq!(room.taken(), 0);
    }

    #[test]
    fn a_full_shelf_still_takes_what_is_not_larger() {
        let room = Room::new(100);
        let mut shelf = Shelf::new(room.clone());
        assert_eq!(shelf.put(1, "a", 100, at(10), at(0)), Ok(()));
        assert_eq!(shelf.put(1, "b", 100, at(30), at(0)), Ok(()));
        assert_eq!(shelf.put(1, "c", 101, at(30), at(0)), Err(NoRoom));
        assert_eq!(shelf.get(&1, at(20)), Some(&"b"));
        assert_eq!(shelf.remove(&1, at(20)), Some("b"));
        assert_eq!((room.taken(), shelf.ends.len()), (0, 0));
    }

    #[test]
    fn the_ended_are_cleared_away_little_by_little() {
        let mut shelf = Shelf::new(Room::new(1000));
        for n in 0..50 {
            shelf.put(n, (), 1, at(10), at(0)).unwrap();
        }
        for n in 50..70 {
            shelf.put(n, (), 1, at(90), at(20)).unwrap();
        }
        assert_eq!(shelf.items.len(), 20);
    }
}
