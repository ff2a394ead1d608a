//! The records of sessions and of users.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Key, Shard, Value, shelf::OVERHEAD, too_large};
use crate::{
    Timestamp,
    backend::{
        BackendError, Changes, Create, Cycle, Epoch, Lifetime, Link, Receipt, Record, RecordKey, Saved, UserKey,
    },
};

/// An epoch is kept for as long as somebody may be at logging in.
const EPOCH_LIFE: Duration = Duration::from_hours(24);

impl Shard {
    pub(in crate::backend) fn session(&self, key: &RecordKey, now: Timestamp) -> Option<Arc<Record>> {
        match self.shelf.get(&Key::Session(*key), now) {
            Some(Value::Session(record)) => Some(record.clone()),
            _ => None,
        }
    }

    pub(in crate::backend) fn take_session(&mut self, key: &RecordKey, now: Timestamp) -> Option<Arc<Record>> {
        match self.shelf.remove(&Key::Session(*key), now) {
            Some(Value::Session(record)) => Some(record),
            _ => None,
        }
    }

    pub(in crate::backend) fn create(&mut self, create: &Create<'_>, now: Timestamp) -> Result<Saved, BackendError> {
        if self.session(&create.key, now).is_some() {
            return Ok(Saved::Exists);
        }
        let record = Record {
            version: 0,
            created: now,
            expires: now,
            deadline: now.plus(whole_millis(create.lifetime.absolute)),
            idle: whole_millis(create.lifetime.idle),
            user: None,
            began_as: None,
            fields: BTreeMap::new(),
        };
        self.place(record, create.key, Changes { set: create.set, remove: &[] }, create.link, now)
    }

    pub(in crate::backend) fn commit(
        &mut self,
        key: &RecordKey,
        changes: Changes<'_>,
        expected: Option<u64>,
        now: Timestamp,
    ) -> Result<Saved, BackendError> {
        let Some(record) = self.session(key, now) else { return Ok(Saved::Gone) };
        if expected.is_some_and(|version| version != record.version) {
            return Ok(Saved::Conflict);
        }
        self.place(Record::clone(&record), *key, changes, None, now)
    }

    pub(in crate::backend) fn touch(&mut self, key: &RecordKey, now: Timestamp) -> bool {
        let Some(record) = self.session(key, now) else { return false };
        let expires = record.next_end(now);
        if expires > record.expires {
            let record = Arc::new(Record { expires, ..Record::clone(&record) });
            let bytes = bytes(&record);
            self.shelf.put_anyway(Key::Session(*key), Value::Session(record), bytes, expires);
        }
        true
    }

    pub(in crate::backend) fn destroy(&mut self, key: &RecordKey, now: Timestamp) -> bool {
        self.take_session(key, now).is_some()
    }

    pub(in crate::backend) fn cycle(&mut self, cycle: &Cycle<'_>, now: Timestamp) -> Result<Saved, BackendError> {
        let Some(old) = self.session(&cycle.from, now) else { return Ok(Saved::Gone) };
        if self.session(&cycle.to, now).is_some() {
            return Ok(Saved::Exists);
        }
        // The old one goes first, so that it leaves its room and its place among the user's to its successor.
        self.take_session(&cycle.from, now);
        let saved = self.succeed(&old, cycle, now);
        if !matches!(saved, Ok(Saved::Done(_))) {
            self.put_back(cycle.from, old);
        }
        saved
    }

    /// Undoes [`take_session`](Self::take_session).
    pub(in crate::backend) fn put_back(&mut self, key: RecordKey, record: Arc<Record>) {
        let (bytes, expires) = (bytes(&record), record.expires);
        self.shelf.put_anyway(Key::Session(key), Value::Session(record), bytes, expires);
    }

    /// Places what becomes of an old record under its new key.
    pub(in crate::backend) fn succeed(
        &mut self,
        old: &Record,
        cycle: &Cycle<'_>,
        now: Timestamp,
    ) -> Result<Saved, BackendError> {
        if self.session(&cycle.to, now).is_some() {
            return Ok(Saved::Exists);
        }
        let mut record = Record { began_as: Some(old.began_as.unwrap_or(cycle.from)), ..old.clone() };
        if let Some(Lifetime { idle, absolute }) = cycle.lifetime {
            record.created = now;
            record.expires = now;
            record.idle = whole_millis(idle);
            record.deadline = now.plus(whole_millis(absolute));
        }
        self.place(record, cycle.to, cycle.changes, cycle.link, now)
    }

    pub(in crate::backend) fn epoch(&self, user: &UserKey, now: Timestamp) -> Epoch {
        match self.shelf.get(&Key::Epoch(*user), now) {
            Some(Value::Epoch(epoch)) => *epoch,
            _ => Epoch::default(),
        }
    }

    pub(in crate::backend) fn revoke_all(&mut self, user: &UserKey, now: Timestamp) -> u64 {
        let epoch = Epoch((self.epoch(user, now).0 + 1).max(now.as_micros()));
        // Not refused when there is no room: it makes some.
        self.shelf.put_anyway(Key::Epoch(*user), Value::Epoch(epoch), OVERHEAD, now.plus(EPOCH_LIFE));
        let mut ended = 0;
        for key in self.index(user, now).keys() {
            ended += u64::from(self.destroy(key, now));
        }
        self.shelf.remove(&Key::Index(*user), now);
        ended
    }

    pub(in crate::backend) fn records_of(&self, user: &UserKey, now: Timestamp) -> Vec<RecordKey> {
        let mut records: Vec<_> = self.index(user, now).into_iter().map(|(key, began)| (began, key)).collect();
        records.sort_unstable();
        records.into_iter().map(|(_, key)| key).collect()
    }

    /// The user's records that live, and when each began.
    fn index(&self, user: &UserKey, now: Timestamp) -> BTreeMap<RecordKey, Timestamp> {
        let mut index = match self.shelf.get(&Key::Index(*user), now) {
            Some(Value::Index(index)) => index.clone(),
            _ => BTreeMap::new(),
        };
        index.retain(|key, _| self.session(key, now).is_some());
        index
    }

    /// Puts down a record with its changes, once all is known to be in order.
    fn place(
        &mut self,
        mut record: Record,
        key: RecordKey,
        changes: Changes<'_>,
        link: Option<Link<'_>>,
        now: Timestamp,
    ) -> Result<Saved, BackendError> {
        for (name, value) in changes.set {
            if name.len() + value.len() > Record::MAX_FIELD {
                return Err(too_large("a field of a session has at most 4 KiB"));
            }
            record.fields.insert(name.clone(), value.clone());
        }
        for name in changes.remove {
            record.fields.remove(name);
        }
        if record.fields.len() > Record::MAX_FIELDS {
            return Err(too_large("a session has at most 256 fields"));
        }
        if record.size() > Record::MAX_SIZE {
            return Err(too_large("a session has at most 16 KiB"));
        }
        if let Some(link) = link {
            if link.name.len() > Record::MAX_USER {
                return Err(too_large("the name of a user has at most 256 bytes"));
            }
            if link.epoch.is_some_and(|epoch| epoch != self.epoch(&link.key, now)) {
                return Ok(Saved::Revoked);
            }
            record.user = Some(link.name.into());
        }
        record.version += 1;
        record.expires = record.next_end(now).max(record.expires);
        let receipt = Receipt { version: record.version, expires: record.expires, deadline: record.deadline };
        let (bytes, created) = (bytes(&record), record.created);
        self.shelf.put(Key::Session(key), Value::Session(Arc::new(record)), bytes, receipt.expires, now)?;
        if let Some(link) = link {
            self.enlist(key, created, receipt.deadline, link, now);
        }
        Ok(Saved::Done(receipt))
    }

    /// Adds a record to those of its user, and ends the oldest beyond the limit.
    fn enlist(&mut self, key: RecordKey, created: Timestamp, deadline: Timestamp, link: Link<'_>, now: Timestamp) {
        let mut index = self.index(&link.key, now);
        index.remove(&key);
        while index.len() >= link.max_sessions.max(1) as usize {
            let Some((&oldest, _)) = index.iter().min_by_key(|&(key, began)| (*began, *key)) else { break };
            index.remove(&oldest);
            self.destroy(&oldest, now);
        }
        index.insert(key, created);
        // It lives as long as the longest of the user's records may.
        let ends = index.keys().filter_map(|key| self.session(key, now)).map(|record| record.deadline).max();
        let bytes = OVERHEAD + 64 * index.len() as u64;
        self.shelf.put_anyway(Key::Index(link.key), Value::Index(index), bytes, ends.unwrap_or(deadline));
    }
}

impl Record {
    fn next_end(&self, now: Timestamp) -> Timestamp {
        now.plus(self.idle).min(self.deadline)
    }
}

fn bytes(record: &Record) -> u64 {
    let fields = record.fields.len() * 64 + record.size();
    OVERHEAD + (size_of::<Record>() + fields + record.user.as_ref().map_or(0, |user| user.len())) as u64
}

/// Other stores count in milliseconds.
fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
