//! A record as it is stored: one string, which `session_write` writes and describes.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    Timestamp,
    backend::{Fields, Record, RecordKey, blob::whole},
};

const FORM: u8 = 1;

/// The record; `None` if it is none of ours.
pub(super) fn read(mut stored: Bytes) -> Option<Record> {
    let stored = &mut stored;
    if stored.try_get_u8() != Ok(FORM) {
        return None;
    }
    let mut number = || whole(stored.try_get_f64_le().ok()?);
    let (version, [expires, deadline, created]) = (number()?, [number()?, number()?, number()?].map(from_millis));
    let idle = Duration::from_millis(number()?);
    let user = Some(text(stored)?).filter(|user| !user.is_empty());
    let began_as = match stored.try_get_u8().ok()? {
        0 => None,
        16 => Some(RecordKey::from_bytes(take(stored, 16)?[..].try_into().ok()?)),
        _ => return None,
    };
    let mut fields = Fields::new();
    while stored.has_remaining() {
        fields.insert(text(stored)?, string(stored)?);
    }
    Some(Record { version, created, expires, deadline, idle, user, began_as, fields })
}

/// What is stored of it before its fields.
pub(super) fn head(record: &Record) -> Bytes {
    let Record { version, created, expires, deadline, idle, user, began_as, fields: _ } = record;
    let mut head = BytesMut::with_capacity(64 + Record::MAX_USER);
    head.put_u8(FORM);
    let [expires, deadline, created] = [expires, deadline, created].map(|time| time.as_micros() / 1000);
    // All are less than 2^53.
    for number in [*version as f64, expires as f64, deadline as f64, created as f64, idle.as_millis() as f64] {
        head.put_f64_le(number);
    }
    put(&mut head, user.as_deref().unwrap_or_default().as_bytes());
    head.put_u8(if began_as.is_some() { 16 } else { 0 });
    head.put_slice(began_as.as_ref().map_or(&[], |key| key.as_bytes()));
    head.freeze()
}

fn text(stored: &mut Bytes) -> Option<Box<str>> {
    Some(std::str::from_utf8(&string(stored)?).ok()?.into())
}

fn string(stored: &mut Bytes) -> Option<Bytes> {
    let len = stored.try_get_u16_le().ok()?;
    take(stored, len.into())
}

fn put(stored: &mut BytesMut, string: &[u8]) {
    // Nothing of a record is longer.
    stored.put_u16_le(u16::try_from(string.len()).unwrap_or(u16::MAX));
    stored.put_slice(string);
}

fn take(stored: &mut Bytes, len: usize) -> Option<Bytes> {
    (len <= stored.len()).then(|| stored.split_to(len))
}

pub(super) fn from_millis(millis: u64) -> Timestamp {
    // Whole milliseconds also where it is the last one that there is: it is written again as it was read.
    Timestamp::from_micros(millis.min(u64::MAX / 1000) * 1000)
}

/// A record that is read is read from what is written of it.
#[cfg(fuzzing)]
pub(super) fn fuzz(stored: Bytes) {
    if let Some(record) = read(stored) {
        assert_eq!(read(write(&record)), Some(record));
    }
}

/// As the script writes it.
#[cfg(any(test, fuzzing))]
fn write(record: &Record) -> Bytes {
    let mut stored = BytesMut::from(&head(record)[..]);
    for (name, value) in &record.fields {
        put(&mut stored, name.as_bytes());
        put(&mut stored, value);
    }
    stored.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let fields = [("theme", "\"dark\""), ("", ""), ("cart", "[1,2]")];
        Record {
            version: 7,
            created: from_millis(1000),
            expires: from_millis(4000),
            deadline: from_millis(5000),
            idle: Duration::from_secs(30),
            user: Some("ann".into()),
            began_as: Some(RecordKey::from_bytes([9; 16])),
            fields: fields.map(|(name, value)| (name.into(), Bytes::from_static(value.as_bytes()))).into(),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let long = "u".repeat(Record::MAX_USER);
        for (user, began_as) in
            [(None, None), (Some("ann"), None), (Some(&*long), Some(RecordKey::from_bytes([9; 16])))]
        {
            let record = Record { user: user.map(Into::into), began_as, ..record() };
            assert_eq!(read(write(&record)), Some(record.clone()));
            let bare = Record { fields: Fields::new(), ..record };
            assert_eq!(read(head(&bare)), Some(bare));
        }
    }

    #[test]
    fn what_is_none_of_ours_is_no_record() {
        let stored = write(&record());
        let readable = (0..stored.len()).filter(|len| read(stored.slice(..*len)).is_some()).count();
        assert_eq!(readable, 3, "cut off where a field ends: none, one, two of them");
        assert_eq!(read(Bytes::from_static(b"a string")), None);
        let mut another = BytesMut::from(&stored[..]);
        another[0] = 2;
        assert_eq!(read(another.freeze()), None, "another form");
        assert_eq!(read([&stored[..], b"\x01"].concat().into()), None, "something after it");
    }
}
