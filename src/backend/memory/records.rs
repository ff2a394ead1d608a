//! Sessions and shared maps in this process.
//!
//! What has one home is behind one lock, so that every operation of the contract is one critical section.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::MemoryBackend;
use crate::{
    Timestamp,
    backend::{
        BackendError, Changes, Create, Cycle, Epoch, ErrorKind, MapChange, MapChanged, MapKey, MapSnapshot, Record,
        RecordKey, Records, Saved, UserKey,
        shard::{Room, Shard},
    },
    metrics,
};

/// All records of a backend.
pub(super) struct AllRecords {
    shards: Box<[Mutex<Shard>]>,
    room: Arc<Room>,
}

const SHARDS: usize = 64;

impl AllRecords {
    pub(super) fn new(max_bytes: u64) -> Self {
        let room = Room::new(max_bytes);
        let shard = || Shard::new(room.clone());
        Self { shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(), room: room.clone() }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.room.taken()
    }

    fn shard(&self, home: u16) -> MutexGuard<'_, Shard> {
        self.lock(usize::from(home) % SHARDS)
    }

    fn lock(&self, at: usize) -> MutexGuard<'_, Shard> {
        // Every critical section leaves its data whole, so what a panic left behind can be used.
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves a record, also from behind one lock to behind another.
    fn cycle(&self, cycle: &Cycle<'_>, now: Timestamp) -> Result<Saved, BackendError> {
        let [from, to] = [cycle.from.home(), cycle.to.home()].map(|home| usize::from(home) % SHARDS);
        if from == to {
            return self.shard(cycle.to.home()).cycle(cycle, now);
        }
        // Always in the same order, so that two that move the other way round do not wait for each other.
        let (mut first, mut second) = (self.lock(from.min(to)), self.lock(from.max(to)));
        let (old_shard, new_shard) = if from < to { (&mut first, &mut second) } else { (&mut second, &mut first) };
        let Some(old) = old_shard.take_session(&cycle.from, now) else { return Ok(Saved::Gone) };
        let saved = new_shard.succeed(&old, cycle, now);
        if !matches!(saved, Ok(Saved::Done(_))) {
            old_shard.put_back(cycle.from, old);
        }
        saved
    }

    /// Clears away what has ended everywhere, for when there is no room.
    fn clear(&self, now: Timestamp) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).clear(now);
        }
    }

    /// Tries again after a sweep where there was no room.
    fn with_room<T>(
        &self,
        home: u16,
        now: Timestamp,
        step: impl Fn(&mut Shard) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let mut result = step(&mut self.shard(home));
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Full) {
            self.clear(now);
            result = step(&mut self.shard(home));
        }
        metrics::gauge(&metrics::MEMORY_BYTES, ["records".into()], || self.bytes() as f64);
        result
    }
}

impl MemoryBackend {
    fn record(&self, key: &RecordKey) -> Option<Arc<Record>> {
        let shard = self.0.records.shard(key.home());
        // What lives for half a second more need not wait for the exact time.
        let about = self.0.clock.about_now().plus(Duration::from_millis(500));
        shard.session(key, about).or_else(|| shard.session(key, self.0.clock.now()))
    }
}

impl Records for MemoryBackend {
    async fn load(&self, key: &RecordKey) -> Result<Option<Arc<Record>>, BackendError> {
        Ok(self.record(key))
    }

    fn load_now(&self, key: &RecordKey) -> Option<Result<Option<Arc<Record>>, BackendError>> {
        Some(Ok(self.record(key)))
    }

    async fn create(&self, create: Create<'_>) -> Result<Saved, BackendError> {
        let now = self.0.clock.now();
        self.0.records.with_room(create.key.home(), now, |shard| shard.create(&create, now))
    }

    async fn commit(
        &self,
        key: &RecordKey,
        changes: Changes<'_>,
        expected: Option<u64>,
    ) -> Result<Saved, BackendError> {
        let now = self.0.clock.now();
        self.0.records.with_room(key.home(), now, |shard| shard.commit(key, changes, expected, now))
    }

    async fn touch(&self, key: &RecordKey) -> Result<bool, BackendError> {
        Ok(self.0.records.shard(key.home()).touch(key, self.0.clock.now()))
    }

    async fn destroy(&self, key: &RecordKey) -> Result<bool, BackendError> {
        Ok(self.0.records.shard(key.home()).destroy(key, self.0.clock.now()))
    }

    async fn cycle(&self, cycle: Cycle<'_>) -> Result<Saved, BackendError> {
        let now = self.0.clock.now();
        match self.0.records.cycle(&cycle, now) {
            Err(error) if error.kind() == ErrorKind::Full => {
                self.0.records.clear(now);
                self.0.records.cycle(&cycle, now)
            }
            saved => saved,
        }
    }

    async fn epoch(&self, user: &UserKey) -> Result<Epoch, BackendError> {
        Ok(self.0.records.shard(user.home()).epoch(user, self.0.clock.now()))
    }

    async fn revoke_all(&self, user: &UserKey) -> Result<u64, BackendError> {
        Ok(self.0.records.shard(user.home()).revoke_all(user, self.0.clock.now()))
    }

    async fn records_of(&self, user: &UserKey) -> Result<Vec<RecordKey>, BackendError> {
        Ok(self.0.records.shard(user.home()).records_of(user, self.0.clock.now()))
    }

    async fn map(&self, key: &MapKey) -> Result<MapSnapshot, BackendError> {
        Ok(self.0.records.shard(key.owner.home()).map(key, self.0.clock.now()))
    }

    async fn change_map(&self, change: MapChange<'_>) -> Result<MapChanged, BackendError> {
        let now = self.0.clock.now();
        self.0.records.with_room(change.key.owner.home(), now, |shard| shard.change_map(&change, now))
    }

    async fn park_map(&self, key: &MapKey, ttl: Duration) -> Result<Option<MapSnapshot>, BackendError> {
        Ok(self.0.records.shard(key.owner.home()).park_map(key, ttl, self.0.clock.now()))
    }

    async fn drop_parked(&self, key: &MapKey, version: u64) -> Result<bool, BackendError> {
        Ok(self.0.records.shard(key.owner.home()).drop_parked(key, version, self.0.clock.now()))
    }
}
