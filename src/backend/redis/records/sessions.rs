//! The records of sessions and of users.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::types::Value;

use super::{
    super::{RedisBackend, keys::Bucket, reply::Reply, responses::unreadable, script::Script},
    names::Home,
    record::{from_millis, head, read},
};
use crate::backend::{
    BackendError, Changes, Create, Cycle, Epoch, ErrorKind, Lifetime, Link, Receipt, Record, RecordKey, Saved, UserKey,
};

static WRITE: Script = Script::new("session_write", include_str!("../lua/session_write.lua"));
static TOUCH: Script = Script::new("session_touch", include_str!("../lua/session_touch.lua"));
static MOVE: Script = Script::new("session_move", include_str!("../lua/session_move.lua"));
static REVOKE: Script = Script::new("session_revoke", include_str!("../lua/session_revoke.lua"));
static LIST: Script = Script::new("session_list", include_str!("../lua/session_list.lua"));

/// An epoch is kept for as long as somebody may be at logging in.
const EPOCH_LIFE: Duration = Duration::from_hours(24);
/// How often a record that is moved between homes may change meanwhile.
const MOVES: u32 = 32;
/// Which argument of `session_write` says until when somebody waits for it.
const UNTIL: usize = 1;

/// A call of `session_write`; what is not named is empty.
#[derive(Default)]
struct Write<'a> {
    mode: &'static str,
    from: Option<RecordKey>,
    expected: Option<u64>,
    lifetime: Option<Lifetime>,
    link: Option<Link<'a>>,
    began_as: Option<RecordKey>,
    base: Option<Bytes>,
    changes: Changes<'a>,
}

impl RedisBackend {
    pub(super) async fn create_record(&self, create: Create<'_>) -> Result<Saved, BackendError> {
        let Create { key, set, lifetime, link } = create;
        let changes = Changes { set, remove: &[] };
        self.write(&key, Write { mode: "create", lifetime: Some(lifetime), link, changes, ..Write::default() }).await
    }

    pub(super) async fn commit_record(
        &self,
        key: &RecordKey,
        changes: Changes<'_>,
        expected: Option<u64>,
    ) -> Result<Saved, BackendError> {
        self.write(key, Write { mode: "commit", expected, changes, ..Write::default() }).await
    }

    pub(super) async fn touch_record(&self, key: &RecordKey) -> Result<bool, BackendError> {
        let home = Home::new(self.client.keys(), key.home());
        let keys = vec![home.record(key).into()];
        let reply = self.client.eval(&TOUCH, home.bucket, keys, Vec::new(), self.client.timeout()).await?;
        flag(&reply).ok_or_else(|| unreadable(&TOUCH))
    }

    pub(super) async fn destroy_record(&self, key: &RecordKey) -> Result<bool, BackendError> {
        let home = Home::new(self.client.keys(), key.home());
        let args = vec![home.record(key).into()];
        let reply = self.client.command(home.bucket, "UNLINK", args, self.client.timeout()).await?;
        flag(&reply).ok_or_else(|| Reply::unexpected("UNLINK"))
    }

    pub(super) async fn cycle_record(&self, cycle: Cycle<'_>) -> Result<Saved, BackendError> {
        let Cycle { from, to, changes, lifetime, link } = cycle;
        let keys = self.client.keys();
        let (old, new) = (Home::new(keys, from.home()), Home::new(keys, to.home()));
        if old.bucket == new.bucket {
            let began_as = Some(from);
            let write =
                Write { mode: "cycle", from: Some(from), lifetime, link, began_as, changes, ..Write::default() };
            return self.write(&to, write).await;
        }
        for _ in 0..MOVES {
            let (asked, keys) = (Instant::now(), vec![old.record(&from).into()]);
            let reply = self.client.eval(&MOVE, old.bucket, keys.clone(), Vec::new(), self.client.timeout()).await?;
            let mut reply = reply.into_array().ok_or_else(|| unreadable(&MOVE))?.into_iter();
            let server_millis = reply.next().and_then(|now| now.as_u64()).ok_or_else(|| unreadable(&MOVE))?;
            let record = reply.next().and_then(Reply::into_bytes).and_then(read);
            let Some(record) = record else { return Ok(Saved::Gone) };
            let version = record.version;
            // The new one first: whatever fails, there is one. Nobody has its token yet; if nobody asks for it, it ends by
            // itself.
            let saved = match self.succeed_record(&cycle, record).await? {
                saved @ Saved::Done(_) => saved,
                refused => return Ok(refused),
            };
            // A server that was frozen would do it when the login has failed long since.
            let until = from_millis(server_millis).plus(asked.elapsed() + self.client.timeout()).as_micros() / 1000;
            let args = vec![version.to_string().into(), until.to_string().into()];
            let left = self.client.eval(&MOVE, old.bucket, keys, args, self.client.timeout()).await;
            // Where it is not known whether the old one has gone, the new one stays.
            match left?.as_int() {
                Some(1) => return Ok(saved),
                // Logged out meanwhile.
                Some(0) => return self.destroy_record(&to).await.map(|_| Saved::Gone),
                // Changed meanwhile, and that is to come along.
                Some(-1) => drop(self.destroy_record(&to).await?),
                Some(-2) => return Err(self.not_moved(&to).await),
                _ => return Err(unreadable(&MOVE)),
            }
        }
        Ok(Saved::Conflict)
    }

    /// Takes back what was created; if not even that can be done, it ends by itself.
    async fn not_moved(&self, to: &RecordKey) -> BackendError {
        if let Err(error) = self.destroy_record(to).await {
            tracing::debug!(session = %to, %error, "half of a move could not be undone");
        }
        late()
    }

    /// Creates what becomes of a record under its new key.
    async fn succeed_record(&self, cycle: &Cycle<'_>, mut record: Record) -> Result<Saved, BackendError> {
        let Cycle { from, to, changes, lifetime, link } = *cycle;
        record.fields.extend(changes.set.iter().cloned());
        for name in changes.remove {
            record.fields.remove(name);
        }
        let (base, began_as) = (Some(head(&record)), Some(from));
        let set: Vec<_> = record.fields.into_iter().collect();
        let changes = Changes { set: &set, remove: &[] };
        self.write(&to, Write { mode: "succeed", lifetime, link, began_as, base, changes, ..Write::default() }).await
    }

    pub(super) async fn user_epoch(&self, user: &UserKey) -> Result<Epoch, BackendError> {
        let home = Home::new(self.client.keys(), user.home());
        let args = vec![home.epoch(user).into()];
        match self.client.command(home.bucket, "GET", args, self.client.timeout()).await? {
            Reply::Nil => Ok(Epoch::default()),
            reply => reply.as_u64().map(Epoch).ok_or_else(|| Reply::unexpected("GET of an epoch")),
        }
    }

    pub(super) async fn revoke_records(&self, user: &UserKey) -> Result<u64, BackendError> {
        let home = Home::new(self.client.keys(), user.home());
        let keys = vec![home.index(user).into(), home.epoch(user).into()];
        let args = vec![home.record_prefix().into(), whole_millis(EPOCH_LIFE).into()];
        let reply = self.client.eval(&REVOKE, home.bucket, keys, args, self.client.timeout()).await?;
        reply.as_u64().ok_or_else(|| unreadable(&REVOKE))
    }

    pub(super) async fn list_records(&self, user: &UserKey) -> Result<Vec<RecordKey>, BackendError> {
        let home = Home::new(self.client.keys(), user.home());
        let (keys, args) = (vec![home.index(user).into()], vec![home.record_prefix().into()]);
        let reply = self.client.eval(&LIST, home.bucket, keys, args, self.client.timeout()).await?;
        let keys = reply.into_array().ok_or_else(|| unreadable(&LIST))?;
        Ok(keys.iter().filter_map(|key| RecordKey::from_hex(key.as_str()?)).collect())
    }

    async fn write(&self, key: &RecordKey, write: Write<'_>) -> Result<Saved, BackendError> {
        let Write { mode, from, expected, lifetime, link, began_as, base, changes } = write;
        if link.is_some_and(|link| link.name.len() > Record::MAX_USER) {
            return Err(too_large("the name of a user has at most 256 bytes"));
        }
        let home = Home::new(self.client.keys(), key.home());
        let mut keys: Vec<Value> = vec![home.record(key).into()];
        keys.extend(from.map(|from| Value::Bytes(home.record(&from))));
        if let Some(link) = &link {
            keys.extend([Value::Bytes(home.index(&link.key)), Value::Bytes(home.epoch(&link.key))]);
        }
        let set = changes.set.iter().filter(|(name, _)| !changes.remove.contains(name));
        let text = |text: Option<String>| Value::from(text.unwrap_or_default());
        let mut args: Vec<Value> = vec![
            mode.into(),
            text(expected.map(|version| version.to_string())),
            text(lifetime.map(|lifetime| whole_millis(lifetime.idle).to_string())),
            text(lifetime.map(|lifetime| whole_millis(lifetime.absolute).to_string())),
            text(link.map(|link| link.name.to_owned())),
            text(link.and_then(|link| link.epoch).map(|epoch| epoch.0.to_string())),
            link.map_or(0, |link| i64::from(link.max_sessions.max(1))).into(),
            key.to_string().into(),
            text(from.map(|from| from.to_string())),
            home.record_prefix().into(),
            began_as.map_or(Bytes::new(), |began| Bytes::copy_from_slice(began.as_bytes())).into(),
            base.unwrap_or_default().into(),
            i64::try_from(set.clone().count()).unwrap_or(i64::MAX).into(),
        ];
        for (name, value) in set {
            args.extend([Value::from(&**name), Value::Bytes(value.clone())]);
        }
        args.extend(changes.remove.iter().map(|name| Value::from(&**name)));
        let reply = if mode == "commit" {
            self.client.eval(&WRITE, home.bucket, keys, args, self.client.timeout()).await?
        } else {
            self.write_in_time(home.bucket, keys, args).await?
        };
        let reply = reply.into_array().unwrap_or_default();
        match reply.first().and_then(Reply::as_str) {
            Some("done") => receipt(&reply).map(Saved::Done).ok_or_else(|| unreadable(&WRITE)),
            Some("gone") => Ok(Saved::Gone),
            Some("exists") => Ok(Saved::Exists),
            Some("conflict") => Ok(Saved::Conflict),
            Some("revoked") => Ok(Saved::Revoked),
            Some("late") => Err(late()),
            Some("field") => Err(too_large("a field of a session has at most 4 KiB")),
            Some("fields") => Err(too_large("a session has at most 256 fields")),
            Some("size") => Err(too_large("a session has at most 16 KiB")),
            _ => Err(unreadable(&WRITE)),
        }
    }

    /// Writes, or has nothing written: a server that was frozen would give a session another key, or end another one, when
    /// the client has been told long since that it failed.
    async fn write_in_time(
        &self,
        bucket: Bucket,
        keys: Vec<Value>,
        mut args: Vec<Value>,
    ) -> Result<Reply, BackendError> {
        let deadline = Instant::now() + self.client.timeout();
        let mut call = async || {
            let (asked, left) = (Instant::now(), deadline.saturating_duration_since(Instant::now()));
            let until = self.client.now().plus(left).as_micros() / 1000;
            args[UNTIL] = until.to_string().into();
            let reply = self.client.eval(&WRITE, bucket, keys.clone(), args.clone(), left).await?;
            let is_late = self.learn_if_late(&reply, asked);
            Ok((reply, is_late))
        };
        match call().await? {
            // It answers in time, so its clock was set.
            (_, true) => call().await.map(|(reply, _)| reply),
            (reply, false) => Ok(reply),
        }
    }

    /// Whether the script was too late by the server's clock, which is known then.
    fn learn_if_late(&self, reply: &Reply, asked: Instant) -> bool {
        let Reply::Array(items) = reply else { return false };
        let is_late = items.first().and_then(Reply::as_str) == Some("late");
        if let (true, Some(now)) = (is_late, items.get(1).and_then(Reply::as_u64)) {
            self.client.learn_time(from_millis(now), asked);
        }
        is_late
    }
}

fn late() -> BackendError {
    BackendError::new(ErrorKind::Timeout, "Redis did not write the session in time")
}

fn receipt(reply: &[Reply]) -> Option<Receipt> {
    let millis = |i: usize| reply.get(i)?.as_u64().map(from_millis);
    Some(Receipt { version: reply.get(1)?.as_u64()?, expires: millis(2)?, deadline: millis(3)? })
}

fn flag(reply: &Reply) -> Option<bool> {
    reply.as_int().map(|n| n == 1)
}

/// Far below where a double, or Redis, would be at its end.
pub(super) fn whole_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).min(1 << 50)
}

pub(super) fn too_large(what: &str) -> BackendError {
    BackendError::new(ErrorKind::TooLarge, what)
}

/// Any reply is a receipt, or refused.
#[cfg(fuzzing)]
pub(super) fn fuzz(reply: &Reply) {
    if let Reply::Array(items) = reply {
        let _ = receipt(items);
    }
}
