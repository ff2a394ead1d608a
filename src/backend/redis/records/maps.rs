//! Shared maps.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use fred::types::Value;

use super::{
    super::{RedisBackend, reply::Reply, responses::unreadable, script::Script},
    names::Home,
    sessions::{too_large, whole_millis},
};
use crate::backend::{BackendError, Changes, Fields, MapChange, MapChanged, MapKey, MapOp, MapSnapshot};

static CHANGE: Script = Script::new("shared_map", include_str!("../lua/shared_map.lua"));
static PARK: Script = Script::new("shared_map_park", include_str!("../lua/shared_map_park.lua"));

impl RedisBackend {
    pub(super) async fn read_map(&self, key: &MapKey) -> Result<MapSnapshot, BackendError> {
        let home = Home::new(self.client.keys(), key.owner.home());
        let args = vec![home.map(key).into()];
        let reply = self.client.command(home.bucket, "HGETALL", args, self.client.timeout()).await?;
        let map = snapshot(reply).ok_or_else(|| Reply::unexpected("HGETALL of a shared map"))?;
        Ok(map.unwrap_or_default())
    }

    pub(super) async fn write_map(&self, change: MapChange<'_>) -> Result<MapChanged, BackendError> {
        let home = Home::new(self.client.keys(), change.key.owner.home());
        let mut keys: Vec<Value> = vec![home.map(&change.key).into()];
        keys.extend(change.once.map(|(id, _)| Value::Bytes(home.result(&change.key, id))));
        let name = match change.op {
            MapOp::Add { .. } => "incr",
            MapOp::Put(_) => "set",
            MapOp::Take => "take",
        };
        let mut lives = whole_millis(change.ttl).max(1).to_string();
        if let Some((_, life)) = change.once {
            lives.push(' ');
            lives.push_str(&whole_millis(life).max(1).to_string());
        }
        let expected = change.expected.map_or_else(String::new, |version| version.to_string());
        let mut args: Vec<Value> = vec![name.into(), lives.into(), expected.into()];
        match &change.op {
            MapOp::Take => {}
            MapOp::Add { field: name, by, range } => {
                let most = MapSnapshot::MAX_INTEGER;
                let (lowest, highest) = (*range.start().max(&-most), *range.end().min(&most));
                // Whatever is beyond this leaves the range from anywhere.
                let by = (*by).clamp(-2 * most - 1, 2 * most + 1);
                args.extend([Value::Bytes(field(name)), by.into(), lowest.into(), highest.into()]);
            }
            MapOp::Put(Changes { set, remove }) => {
                let set = set.iter().filter(|(name, _)| !remove.contains(name));
                args.push(i64::try_from(set.clone().count()).unwrap_or(i64::MAX).into());
                for (name, value) in set {
                    args.extend([Value::Bytes(field(name)), Value::Bytes(value.clone())]);
                }
                args.extend(remove.iter().map(|name| Value::Bytes(field(name))));
            }
        }
        let reply = self.client.eval(&CHANGE, home.bucket, keys, args, self.client.timeout()).await?;
        changed(&change.op, reply).ok_or_else(|| unreadable(&CHANGE))?
    }

    pub(super) async fn put_map_aside(&self, key: &MapKey, ttl: Duration) -> Result<Option<MapSnapshot>, BackendError> {
        let reply = self.park(key, "park", whole_millis(ttl).max(1).to_string()).await?;
        snapshot(reply).ok_or_else(|| unreadable(&PARK))
    }

    pub(super) async fn drop_map_aside(&self, key: &MapKey, version: u64) -> Result<bool, BackendError> {
        let reply = self.park(key, "drop", version.to_string()).await?;
        reply.as_int().map(|n| n == 1).ok_or_else(|| unreadable(&PARK))
    }

    async fn park(&self, key: &MapKey, what: &'static str, arg: String) -> Result<Reply, BackendError> {
        let home = Home::new(self.client.keys(), key.owner.home());
        let keys = vec![home.map(key).into(), home.parked(key).into()];
        self.client.eval(&PARK, home.bucket, keys, vec![what.into(), arg.into()], self.client.timeout()).await
    }
}

/// What the script says happened; `None` if it cannot be read.
fn changed(op: &MapOp<'_>, reply: Reply) -> Option<Result<MapChanged, BackendError>> {
    let mut reply = reply.into_array()?.into_iter();
    let status = reply.next()?.as_int()?;
    let version = reply.next()?.as_u64()?;
    Some(Ok(match (status, op) {
        (1, MapOp::Put(_)) => MapChanged::Put { version },
        (1, MapOp::Add { .. }) => MapChanged::Added { version, value: reply.next()?.as_int()? },
        (1, MapOp::Take) => MapChanged::Taken(MapSnapshot { version, fields: fields(reply.next()?)?.0 }),
        (0, _) => MapChanged::Conflict { version },
        (2, _) => MapChanged::OutOfRange { value: reply.next()?.as_int()? },
        (3, _) => MapChanged::NotAnInteger,
        (4, _) => return Some(Err(too_large("a field of a shared map has at most 4 KiB"))),
        (5, _) => return Some(Err(too_large("a shared map has at most 1,000 fields"))),
        _ => return None,
    }))
}

/// A map with its version; `Some(None)` if there is none.
#[allow(clippy::option_option)] // cannot be read, or is not there
fn snapshot(reply: Reply) -> Option<Option<MapSnapshot>> {
    let (fields, version) = fields(reply)?;
    let Some(version) = version else { return fields.is_empty().then_some(None) };
    let version = std::str::from_utf8(&version).ok()?.parse().ok()?;
    Some(Some(MapSnapshot { version, fields }))
}

fn fields(reply: Reply) -> Option<(Fields, Option<Bytes>)> {
    let (mut fields, mut version) = (Fields::new(), None);
    let mut pairs = reply.into_array()?.into_iter();
    while let (Some(name), Some(value)) = (pairs.next(), pairs.next()) {
        let (name, value) = (name.into_bytes()?, value.into_bytes()?);
        match &name[..] {
            b"@v" => version = Some(value),
            [b':', name @ ..] => drop(fields.insert(std::str::from_utf8(name).ok()?.into(), value)),
            _ => {}
        }
    }
    Some((fields, version))
}

/// How a field is named in a hash, so that no field is taken for one of ours.
fn field(name: &str) -> Bytes {
    let mut field = BytesMut::with_capacity(name.len() + 1);
    field.put_u8(b':');
    field.put_slice(name.as_bytes());
    field.freeze()
}

/// Any reply is a map, an answer of the script, or refused.
#[cfg(fuzzing)]
pub(super) fn fuzz(reply: &Reply) {
    let changes = Changes { set: &[], remove: &[] };
    for op in [MapOp::Put(changes), MapOp::Take, MapOp::Add { field: "n", by: 1, range: 0..=9 }] {
        let _ = changed(&op, reply.clone());
    }
    let _ = snapshot(reply.clone());
}
