//! Small maps that several services share.

use std::time::Duration;

use super::{Key, Shard, Value, shelf::OVERHEAD, too_large};
use crate::{
    Timestamp,
    backend::{BackendError, Changes, Fields, MapChange, MapChanged, MapKey, MapOp, MapSnapshot},
};

/// A map and when it ends, as the shelf does not tell.
#[derive(Clone)]
pub(in crate::backend) struct Map(MapSnapshot);

impl Map {
    pub(in crate::backend) fn new(map: MapSnapshot) -> Self {
        Self(map)
    }

    pub(in crate::backend) fn snapshot(&self) -> &MapSnapshot {
        &self.0
    }
}

impl Shard {
    pub(in crate::backend) fn map(&self, key: &MapKey, now: Timestamp) -> MapSnapshot {
        self.snapshot(Key::Map(*key), now).unwrap_or_default()
    }

    pub(in crate::backend) fn change_map(
        &mut self,
        change: &MapChange<'_>,
        now: Timestamp,
    ) -> Result<MapChanged, BackendError> {
        let result = change.once.map(|(id, life)| (Key::Result(change.key, id), life));
        if let Some((key, _)) = result
            && let Some(Value::Result(result)) = self.shelf.get(&key, now)
        {
            return Ok(result.clone());
        }
        let mut map = self.map(&change.key, now);
        if change.expected.is_some_and(|version| version != map.version) {
            return Ok(MapChanged::Conflict { version: map.version });
        }
        let changed = match &change.op {
            MapOp::Take => {
                let taken = MapChanged::Taken(map);
                self.keep_result(result, &taken, now)?;
                self.shelf.remove(&Key::Map(change.key), now);
                return Ok(taken);
            }
            MapOp::Add { field, by, range } => {
                let value = match map.fields.get(*field) {
                    None => Some(0),
                    Some(bytes) => integer(bytes),
                };
                let Some(value) = value else { return Ok(MapChanged::NotAnInteger) };
                let sum = value.saturating_add(*by);
                let allowed = -MapSnapshot::MAX_INTEGER..=MapSnapshot::MAX_INTEGER;
                if !range.contains(&sum) || !allowed.contains(&sum) {
                    return Ok(MapChanged::OutOfRange { value });
                }
                if sum == 0 {
                    map.fields.remove(*field);
                } else {
                    map.fields.insert((*field).into(), sum.to_string().into());
                }
                map.version = self.version_after(map.version, now);
                MapChanged::Added { version: map.version, value: sum }
            }
            MapOp::Put(Changes { set, remove }) => {
                map.fields.extend(set.iter().cloned());
                for field in *remove {
                    map.fields.remove(field);
                }
                map.version = self.version_after(map.version, now);
                MapChanged::Put { version: map.version }
            }
        };
        check(&map.fields)?;
        let bytes = bytes(&map.fields);
        // First the result: without room for it nothing must have happened.
        self.keep_result(result, &changed, now)?;
        let put = self.shelf.put(Key::Map(change.key), Value::Map(Map(map)), bytes, now.plus(change.ttl), now);
        if let (Err(_), Some((key, _))) = (&put, result) {
            self.shelf.remove(&key, now);
        }
        put?;
        Ok(changed)
    }

    pub(in crate::backend) fn park_map(&mut self, key: &MapKey, ttl: Duration, now: Timestamp) -> Option<MapSnapshot> {
        if let Some(parked) = self.snapshot(Key::Parked(*key), now) {
            return Some(parked);
        }
        let map = self.snapshot(Key::Map(*key), now)?;
        self.shelf.remove(&Key::Map(*key), now);
        let bytes = bytes(&map.fields);
        self.shelf.put_anyway(Key::Parked(*key), Value::Map(Map(map.clone())), bytes, now.plus(ttl));
        Some(map)
    }

    pub(in crate::backend) fn drop_parked(&mut self, key: &MapKey, version: u64, now: Timestamp) -> bool {
        let is_it = self.snapshot(Key::Parked(*key), now).is_some_and(|parked| parked.version == version);
        is_it && self.shelf.remove(&Key::Parked(*key), now).is_some()
    }

    fn snapshot(&self, key: Key, now: Timestamp) -> Option<MapSnapshot> {
        match self.shelf.get(&key, now) {
            Some(Value::Map(map)) => Some(map.0.clone()),
            _ => None,
        }
    }

    fn keep_result(
        &mut self,
        result: Option<(Key, Duration)>,
        changed: &MapChanged,
        now: Timestamp,
    ) -> Result<(), BackendError> {
        let Some((key, life)) = result else { return Ok(()) };
        let bytes = match changed {
            MapChanged::Taken(map) => bytes(&map.fields),
            _ => OVERHEAD,
        };
        self.shelf.put(key, Value::Result(changed.clone()), bytes, now.plus(life), now)?;
        Ok(())
    }

    /// A version that no map here has had: a map that was taken and begun again does not repeat its versions.
    fn version_after(&mut self, version: u64, now: Timestamp) -> u64 {
        let next = if version == 0 { now.as_micros().max(self.last_map_version + 1) } else { version + 1 };
        self.last_map_version = self.last_map_version.max(next);
        next
    }
}

fn check(fields: &Fields) -> Result<(), BackendError> {
    if fields.len() > MapSnapshot::MAX_FIELDS {
        return Err(too_large("a shared map has at most 1,000 fields"));
    }
    if fields.iter().any(|(name, value)| name.len() + value.len() > MapSnapshot::MAX_FIELD) {
        return Err(too_large("a field of a shared map has at most 4 KiB"));
    }
    Ok(())
}

fn integer(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes)
        .ok()?
        .parse()
        .ok()
        .filter(|n: &i64| n.unsigned_abs() <= MapSnapshot::MAX_INTEGER.unsigned_abs())
}

fn bytes(fields: &Fields) -> u64 {
    OVERHEAD + fields.iter().map(|(name, value)| (name.len() + value.len() + 64) as u64).sum::<u64>()
}
