//! What the fuzz target of Redis' replies calls.

use bytes::Bytes;

use super::{
    cells::{self, Cell, Clock, Primary, TagCells},
    leases, limits, records,
    reply::Reply,
};
use crate::backend::blob;

/// Whatever Redis answers, it is read or refused; an entry that is read is written as it was.
pub(crate) fn reply(data: &[u8]) {
    let mut data = data;
    let reply = take_reply(&mut data, 3);
    if let Reply::Array(items) = &reply {
        leases::fuzz(items);
    }
    limits::fuzz(data);
    records::fuzz(&reply, data);
    stored(data);
}

/// The rest is taken for the value of an entry, and for its cells.
fn stored(data: &[u8]) {
    let (cells, value) = data.split_at(data.len().min(72));
    let clock = cells.get(..40).and_then(Clock::parse);
    let cell = cells.get(40..56).and_then(Cell::parse);
    let primary = cells.get(40..).and_then(Primary::parse).map(|primary| primary.cell);
    let _ = Primary::parse(value);
    let sealed = blob::seal(value);
    for value in [Bytes::copy_from_slice(value), sealed] {
        let Some(entry) = blob::decode(&value).entry else { continue };
        let Ok(again) = blob::encode(&entry) else { continue };
        let again = blob::decode(&again).entry.expect("an entry that was just written");
        assert_eq!((again.ticket(), again.tags(), again.vary()), (entry.ticket(), entry.tags(), entry.vary()));
        assert_eq!((again.head(), again.body()), (entry.head(), entry.body()));
        let tags: TagCells = entry.tags().iter().map(|tag| (*tag, cell)).collect();
        if let Some(clock) = clock {
            assert!(entry.ticket().tick <= clock.tick || cells::judge(&entry, &clock, primary, &tags) == INVALID);
        }
    }
}

const INVALID: cells::Verdict = cells::Verdict::Invalid;

/// A reply of any shape, at most `depth` deep.
fn take_reply(data: &mut &[u8], depth: usize) -> Reply {
    let Some(([kind, len], rest)) = data.split_first_chunk() else { return Reply::Nil };
    *data = rest;
    match kind % 4 {
        0 if depth > 0 => Reply::Array((0..len % 16).map(|_| take_reply(data, depth - 1)).collect()),
        1 => {
            let Some((number, rest)) = data.split_first_chunk() else { return Reply::Nil };
            *data = rest;
            Reply::Int(i64::from_le_bytes(*number))
        }
        2 => Reply::Nil,
        _ => {
            let (text, rest) = data.split_at(data.len().min(usize::from(*len)));
            *data = rest;
            Reply::Bytes(Bytes::copy_from_slice(text))
        }
    }
}
