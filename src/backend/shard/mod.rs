//! Sessions and shared maps of some homes: what a store does with them in one step, as plain data. The store that keeps
//! a shard sees to it that only one step runs at a time.

mod maps;
mod sessions;
mod shelf;

pub(super) use maps::Map;
#[cfg(feature = "memory")]
pub(super) use shelf::Room;

use std::{collections::BTreeMap, sync::Arc};

use self::shelf::{NoRoom, Shelf};
use super::{BackendError, Epoch, ErrorKind, MapChanged, MapKey, OpId, Record, RecordKey, UserKey};
use crate::Timestamp;

pub(super) struct Shard {
    shelf: Shelf<Key, Value>,
    /// The highest version that a map ever had here.
    last_map_version: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    Session(RecordKey),
    Epoch(UserKey),
    /// The records of a user.
    Index(UserKey),
    Map(MapKey),
    Parked(MapKey),
    /// The result of a change that may be repeated.
    Result(MapKey, OpId),
}

pub(super) enum Value {
    Session(Arc<Record>),
    Epoch(Epoch),
    /// With when each began.
    Index(BTreeMap<RecordKey, Timestamp>),
    Map(Map),
    Result(MapChanged),
}

impl Shard {
    /// An empty one in this room.
    #[cfg(feature = "memory")]
    pub(super) fn new(room: Arc<Room>) -> Self {
        Self { shelf: Shelf::new(room), last_map_version: 0 }
    }

    /// One whose size somebody else bounds.
    pub(super) fn unbounded(last_map_version: u64) -> Self {
        Self { shelf: Shelf::new(shelf::Room::new(u64::MAX)), last_map_version }
    }

    /// Clears away what has ended.
    pub(super) fn clear(&mut self, now: Timestamp) {
        self.shelf.clear(now, usize::MAX);
    }

    /// When all that is here will have ended; `None` if nothing is here.
    pub(super) fn ends(&self) -> Option<Timestamp> {
        self.shelf.items().map(|(.., ends)| ends).max()
    }

    /// What is here, in no order, and when each ends.
    pub(super) fn items(&self) -> impl Iterator<Item = (&Key, &Value, Timestamp)> {
        self.shelf.items()
    }

    /// Puts back what [`items`](Self::items) told.
    pub(super) fn restore(&mut self, key: Key, value: Value, ends: Timestamp) {
        self.shelf.put_anyway(key, value, 0, ends);
    }

    pub(super) fn last_map_version(&self) -> u64 {
        self.last_map_version
    }
}

impl From<NoRoom> for BackendError {
    fn from(_: NoRoom) -> Self {
        Self::new(ErrorKind::Full, "the memory backend is full of live sessions and shared maps")
    }
}

/// What has a longer name or value than a field may.
fn too_large(what: &str) -> BackendError {
    BackendError::new(ErrorKind::TooLarge, what)
}
