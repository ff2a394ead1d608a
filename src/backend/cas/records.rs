//! The contract [`Records`]: what has one home is one value, and so is each shared map.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    CasBackend, CasStore, Inner, Step,
    codec::{Reader, Writer},
};
use crate::{
    Timestamp,
    backend::{
        BackendError, Changes, Create, Cycle, Epoch, ErrorKind, Fields, MapChange, MapChanged, MapKey, MapSnapshot,
        OpId, Record, RecordKey, Records, Saved, UserKey,
        shard::{Key, Map, Shard, Value},
    },
};

/// How often a move is begun again because the record was changed meanwhile.
const MOVES: usize = 8;

impl<S: CasStore> Records for CasBackend<S> {
    async fn load(&self, key: &RecordKey) -> Result<Option<Arc<Record>>, BackendError> {
        self.0.look(&self.0.names.home(key.home()), None, |shard, now| shard.session(key, now)).await
    }

    async fn create(&self, create: Create<'_>) -> Result<Saved, BackendError> {
        self.0.alter(&self.0.names.home(create.key.home()), None, |shard, now| shard.create(&create, now)).await
    }

    async fn commit(
        &self,
        key: &RecordKey,
        changes: Changes<'_>,
        expected: Option<u64>,
    ) -> Result<Saved, BackendError> {
        let name = self.0.names.home(key.home());
        self.0.alter(&name, None, |shard, now| shard.commit(key, changes, expected, now)).await
    }

    async fn touch(&self, key: &RecordKey) -> Result<bool, BackendError> {
        self.0.alter(&self.0.names.home(key.home()), None, |shard, now| Ok(shard.touch(key, now))).await
    }

    async fn destroy(&self, key: &RecordKey) -> Result<bool, BackendError> {
        self.0.alter(&self.0.names.home(key.home()), None, |shard, now| Ok(shard.destroy(key, now))).await
    }

    async fn cycle(&self, cycle: Cycle<'_>) -> Result<Saved, BackendError> {
        let (from, to) = (self.0.names.home(cycle.from.home()), self.0.names.home(cycle.to.home()));
        if from == to {
            return self.0.alter(&to, None, |shard, now| shard.cycle(&cycle, now)).await;
        }
        for _ in 0..MOVES {
            let old = self.0.look(&from, None, |shard, now| shard.session(&cycle.from, now)).await?;
            let Some(old) = old else { return Ok(Saved::Gone) };
            // The new one first: whatever fails, there is one. Nobody has its token yet.
            let saved = self.0.alter(&to, None, |shard, now| shard.succeed(&old, &cycle, now)).await?;
            if !matches!(saved, Saved::Done(_)) {
                return Ok(saved);
            }
            let left = self.0.alter(&from, None, |shard, now| {
                let there = shard.session(&cycle.from, now).map(|there| there.version);
                if there == Some(old.version) {
                    shard.destroy(&cycle.from, now);
                }
                Ok(there)
            });
            // After an error it is not known whether the old one has gone, so the new one stays; it ends by itself.
            let left = left.await?;
            if left == Some(old.version) {
                return Ok(saved);
            }
            // Logged out meanwhile, or changed, and that is to come along.
            self.destroy(&cycle.to).await?;
            if left.is_none() {
                return Ok(Saved::Gone);
            }
        }
        Ok(Saved::Conflict)
    }

    async fn epoch(&self, user: &UserKey) -> Result<Epoch, BackendError> {
        self.0.look(&self.0.names.home(user.home()), None, |shard, now| shard.epoch(user, now)).await
    }

    async fn revoke_all(&self, user: &UserKey) -> Result<u64, BackendError> {
        self.0.alter(&self.0.names.home(user.home()), None, |shard, now| Ok(shard.revoke_all(user, now))).await
    }

    async fn records_of(&self, user: &UserKey) -> Result<Vec<RecordKey>, BackendError> {
        self.0.look(&self.0.names.home(user.home()), None, |shard, now| shard.records_of(user, now)).await
    }

    async fn map(&self, key: &MapKey) -> Result<MapSnapshot, BackendError> {
        self.0.look(&self.0.names.map(key), Some(*key), |shard, now| shard.map(key, now)).await
    }

    async fn change_map(&self, change: MapChange<'_>) -> Result<MapChanged, BackendError> {
        let name = self.0.names.map(&change.key);
        self.0.alter(&name, Some(change.key), |shard, now| shard.change_map(&change, now)).await
    }

    async fn park_map(&self, key: &MapKey, ttl: Duration) -> Result<Option<MapSnapshot>, BackendError> {
        self.0.alter(&self.0.names.map(key), Some(*key), |shard, now| Ok(shard.park_map(key, ttl, now))).await
    }

    async fn drop_parked(&self, key: &MapKey, version: u64) -> Result<bool, BackendError> {
        self.0.alter(&self.0.names.map(key), Some(*key), |shard, now| Ok(shard.drop_parked(key, version, now))).await
    }
}

impl<S: CasStore> Inner<S> {
    /// Reads from what is kept under a name; `map` is whose value it is, if it is a map's.
    async fn look<T>(
        &self,
        name: &str,
        map: Option<MapKey>,
        look: impl FnOnce(&Shard, Timestamp) -> T,
    ) -> Result<T, BackendError> {
        let value = self.timed(self.read(name)).await?;
        Ok(look(&decode(value.as_ref(), map), self.now()))
    }

    /// Changes it in one step.
    async fn alter<T>(
        &self,
        name: &str,
        map: Option<MapKey>,
        mut step: impl FnMut(&mut Shard, Timestamp) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let changed = self.change(name, |before| {
            let now = self.now();
            let mut shard = decode(before, map);
            let then = step(&mut shard, now)?;
            shard.clear(now);
            let Some(ends) = shard.ends() else {
                return Ok(if before.is_some() { Step::Remove(then) } else { Step::Keep(then) });
            };
            let value = encode(&shard);
            if before == Some(&value) {
                return Ok(Step::Keep(then));
            }
            // What became smaller is never refused.
            if value.len() > self.max_value_bytes.max(before.map_or(0, Bytes::len)) {
                return Err(BackendError::new(ErrorKind::Full, "the sessions of one home do not fit into one value"));
            }
            // A second longer, for clocks that differ.
            Ok(Step::Set(value, Some(ends.since(now) + Duration::from_secs(1)), then))
        });
        self.timed(changed).await
    }
}

fn encode(shard: &Shard) -> Bytes {
    let mut writer = Writer::new();
    writer.u64(shard.last_map_version());
    let mut items: Vec<_> = shard.items().collect();
    // The same content is the same value.
    items.sort_unstable_by_key(|(key, ..)| **key);
    writer.u64(items.len() as u64);
    for (key, value, ends) in items {
        writer.time(ends);
        match (key, value) {
            (Key::Session(key), Value::Session(record)) => {
                writer.u8(1);
                writer.array(key.as_bytes());
                put_record(&mut writer, record);
            }
            (Key::Epoch(user), Value::Epoch(epoch)) => {
                writer.u8(2);
                writer.array(user.as_bytes());
                writer.u64(epoch.0);
            }
            (Key::Index(user), Value::Index(index)) => {
                writer.u8(3);
                writer.array(user.as_bytes());
                writer.u64(index.len() as u64);
                for (key, began) in index {
                    writer.array(key.as_bytes());
                    writer.time(*began);
                }
            }
            (Key::Map(_), Value::Map(map)) => {
                writer.u8(4);
                put_snapshot(&mut writer, map.snapshot());
            }
            (Key::Parked(_), Value::Map(map)) => {
                writer.u8(5);
                put_snapshot(&mut writer, map.snapshot());
            }
            (Key::Result(_, id), Value::Result(result)) => {
                writer.u8(6);
                writer.array(&id.0);
                put_result(&mut writer, result);
            }
            // The shard has no other pairs.
            _ => writer.u8(0),
        }
    }
    writer.finish()
}

/// What cannot be read is as good as lost.
fn decode(value: Option<&Bytes>, map: Option<MapKey>) -> Shard {
    let decoded = value.and_then(|value| {
        let mut reader = Reader::new(value)?;
        let mut shard = Shard::unbounded(reader.u64()?);
        for item in reader.many(|reader| item(reader, map))? {
            if let (Some((key, value)), ends) = item {
                shard.restore(key, value, ends);
            }
        }
        Some(shard)
    });
    decoded.unwrap_or_else(|| Shard::unbounded(0))
}

type Item = (Option<(Key, Value)>, Timestamp);

fn item(reader: &mut Reader<'_>, map: Option<MapKey>) -> Option<Item> {
    let ends = reader.time()?;
    let item = match reader.u8()? {
        0 => None,
        1 => {
            let key = RecordKey::from_bytes(reader.array()?);
            Some((Key::Session(key), Value::Session(Arc::new(take_record(reader)?))))
        }
        2 => Some((Key::Epoch(UserKey::from_bytes(reader.array()?)), Value::Epoch(Epoch(reader.u64()?)))),
        3 => {
            let user = UserKey::from_bytes(reader.array()?);
            let index = reader.many(|reader| Some((RecordKey::from_bytes(reader.array()?), reader.time()?)))?;
            Some((Key::Index(user), Value::Index(index.into_iter().collect())))
        }
        4 => Some((Key::Map(map?), Value::Map(Map::new(take_snapshot(reader)?)))),
        5 => Some((Key::Parked(map?), Value::Map(Map::new(take_snapshot(reader)?)))),
        6 => Some((Key::Result(map?, OpId(reader.array()?)), Value::Result(take_result(reader)?))),
        _ => return None,
    };
    Some((item, ends))
}

fn put_record(writer: &mut Writer, record: &Record) {
    writer.u64(record.version);
    for time in [record.created, record.expires, record.deadline] {
        writer.time(time);
    }
    writer.u64(u64::try_from(record.idle.as_micros()).unwrap_or(u64::MAX));
    writer.u8(record.user.is_some().into());
    writer.bytes(record.user.as_deref().unwrap_or_default().as_bytes());
    writer.u8(record.began_as.is_some().into());
    writer.array(&record.began_as.map_or([0; 16], |key| *key.as_bytes()));
    put_fields(writer, &record.fields);
}

fn take_record(reader: &mut Reader<'_>) -> Option<Record> {
    let version = reader.u64()?;
    let (created, expires, deadline) = (reader.time()?, reader.time()?, reader.time()?);
    let idle = Duration::from_micros(reader.u64()?);
    let (has_user, user) = (reader.u8()? == 1, reader.text()?);
    let (began, key) = (reader.u8()? == 1, RecordKey::from_bytes(reader.array()?));
    Some(Record {
        version,
        created,
        expires,
        deadline,
        idle,
        user: has_user.then(|| user.into()),
        began_as: began.then_some(key),
        fields: take_fields(reader)?,
    })
}

fn put_fields(writer: &mut Writer, fields: &Fields) {
    writer.u64(fields.len() as u64);
    for (name, value) in fields {
        writer.bytes(name.as_bytes());
        writer.bytes(value);
    }
}

fn take_fields(reader: &mut Reader<'_>) -> Option<Fields> {
    let fields = reader.many(|reader| Some((reader.text()?.into(), Bytes::copy_from_slice(reader.bytes()?))))?;
    Some(fields.into_iter().collect::<BTreeMap<_, _>>())
}

fn put_snapshot(writer: &mut Writer, map: &MapSnapshot) {
    writer.u64(map.version);
    put_fields(writer, &map.fields);
}

fn take_snapshot(reader: &mut Reader<'_>) -> Option<MapSnapshot> {
    Some(MapSnapshot { version: reader.u64()?, fields: take_fields(reader)? })
}

/// Only what was done is kept for a repetition.
fn put_result(writer: &mut Writer, result: &MapChanged) {
    match result {
        MapChanged::Put { version } => {
            writer.u8(1);
            writer.u64(*version);
        }
        MapChanged::Added { version, value } => {
            writer.u8(2);
            writer.u64(*version);
            writer.array(&value.to_le_bytes());
        }
        MapChanged::Taken(map) => {
            writer.u8(3);
            put_snapshot(writer, map);
        }
        MapChanged::Conflict { version } => {
            writer.u8(4);
            writer.u64(*version);
        }
        MapChanged::OutOfRange { value } => {
            writer.u8(5);
            writer.array(&value.to_le_bytes());
        }
        MapChanged::NotAnInteger => writer.u8(6),
    }
}

fn take_result(reader: &mut Reader<'_>) -> Option<MapChanged> {
    let integer = |reader: &mut Reader<'_>| reader.array().map(i64::from_le_bytes);
    Some(match reader.u8()? {
        1 => MapChanged::Put { version: reader.u64()? },
        2 => MapChanged::Added { version: reader.u64()?, value: integer(reader)? },
        3 => MapChanged::Taken(take_snapshot(reader)?),
        4 => MapChanged::Conflict { version: reader.u64()? },
        5 => MapChanged::OutOfRange { value: integer(reader)? },
        6 => MapChanged::NotAnInteger,
        _ => return None,
    })
}
