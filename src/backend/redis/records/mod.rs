//! Sessions and shared maps.
//!
//! What has one home is in one bucket, hence in one slot, and each operation is one command or one script on it.
//!
//! | key | content |
//! |---|---|
//! | `gh:{b}:session:<key>` | a record, as one string; ends when it expires |
//! | `gh:{b}:user:<user>` | sorted set: the user's records, by when they began; ends with the last |
//! | `gh:{b}:epoch:<user>` | when the user's records were last revoked; 24 h |
//! | `gh:{b}:map:<name>:u<user>` or `:s<session>` | hash: a shared map |
//! | `gh:{b}:parked:…`, `gh:{b}:op:…:<id>` | a map that is being moved; the result of a change that may be repeated |
//!
//! The keys are hashes: a dump of Redis has no token in it.

mod loads;
mod maps;
mod names;
mod record;
mod sessions;

pub(super) use self::loads::Loads;

use std::{sync::Arc, time::Duration};

use super::RedisBackend;
use crate::backend::{
    BackendError, Changes, Create, Cycle, Epoch, MapChange, MapChanged, MapKey, MapSnapshot, Record, RecordKey,
    Records, Saved, UserKey,
};

impl Records for RedisBackend {
    async fn load(&self, key: &RecordKey) -> Result<Option<Arc<Record>>, BackendError> {
        self.loads.load(key).await
    }

    async fn create(&self, create: Create<'_>) -> Result<Saved, BackendError> {
        self.create_record(create).await
    }

    async fn commit(
        &self,
        key: &RecordKey,
        changes: Changes<'_>,
        expected: Option<u64>,
    ) -> Result<Saved, BackendError> {
        self.commit_record(key, changes, expected).await
    }

    async fn touch(&self, key: &RecordKey) -> Result<bool, BackendError> {
        self.touch_record(key).await
    }

    async fn destroy(&self, key: &RecordKey) -> Result<bool, BackendError> {
        self.destroy_record(key).await
    }

    async fn cycle(&self, cycle: Cycle<'_>) -> Result<Saved, BackendError> {
        self.cycle_record(cycle).await
    }

    async fn epoch(&self, user: &UserKey) -> Result<Epoch, BackendError> {
        self.user_epoch(user).await
    }

    async fn revoke_all(&self, user: &UserKey) -> Result<u64, BackendError> {
        self.revoke_records(user).await
    }

    async fn records_of(&self, user: &UserKey) -> Result<Vec<RecordKey>, BackendError> {
        self.list_records(user).await
    }

    async fn map(&self, key: &MapKey) -> Result<MapSnapshot, BackendError> {
        self.read_map(key).await
    }

    async fn change_map(&self, change: MapChange<'_>) -> Result<MapChanged, BackendError> {
        self.write_map(change).await
    }

    async fn park_map(&self, key: &MapKey, ttl: Duration) -> Result<Option<MapSnapshot>, BackendError> {
        self.put_map_aside(key, ttl).await
    }

    async fn drop_parked(&self, key: &MapKey, version: u64) -> Result<bool, BackendError> {
        self.drop_map_aside(key, version).await
    }
}

/// Any reply is a map, an answer of a script, or refused; what is stored is a record, or none.
#[cfg(fuzzing)]
pub(super) fn fuzz(reply: &super::reply::Reply, stored: &[u8]) {
    sessions::fuzz(reply);
    maps::fuzz(reply);
    record::fuzz(bytes::Bytes::copy_from_slice(stored));
}
