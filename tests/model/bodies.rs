//! The shared body: readers see everything or an error, and nobody waits for ever.

use std::pin::Pin;

use bytes::Bytes;
use http_body::Body as _;
use shuttle::{future::block_on, thread};

use crate::shared::{Abandoned, SharedBody, shared};

const RUNS: usize = 3000;

/// Reads to the end: how many bytes, and whether it failed.
fn read(mut body: SharedBody) -> (usize, bool) {
    block_on(async move {
        let mut total = 0;
        loop {
            match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                Some(Ok(frame)) => total += frame.into_data().map_or(0, |data| data.len()),
                Some(Err(_)) => return (total, true),
                None => return (total, false),
            }
        }
    })
}

fn chunk() -> Bytes {
    Bytes::from_static(b"12345")
}

#[test]
fn every_reader_gets_everything_also_one_that_joins_late() {
    let run = || {
        let (mut writer, one) = shared(100, 100, None);
        let source = one.source();
        let one = thread::spawn(move || read(one));
        let two = thread::spawn(move || read(source.join().expect("it has not outgrown its cap")));
        for _ in 0..3 {
            block_on(writer.push(chunk())).unwrap();
        }
        assert_eq!(writer.content(None).unwrap().len(), 15);
        writer.finish(None);
        assert_eq!(one.join().unwrap(), (15, false));
        assert_eq!(two.join().unwrap(), (15, false));
    };
    shuttle::check_random(run, RUNS);
    shuttle::check_pct(run, RUNS, 3);
}

#[test]
fn readers_of_a_writer_that_is_dropped_hear_of_it() {
    let run = || {
        let (mut writer, one) = shared(100, 100, None);
        let two = one.source().join().unwrap();
        let (one, two) = (thread::spawn(move || read(one)), thread::spawn(move || read(two)));
        block_on(writer.push(chunk())).unwrap();
        drop(writer);
        assert_eq!(one.join().unwrap(), (5, true));
        assert_eq!(two.join().unwrap(), (5, true));
    };
    shuttle::check_random(run, RUNS);
    shuttle::check_pct(run, RUNS, 3);
}

#[test]
fn a_body_that_has_outgrown_its_cap_goes_on_for_who_keeps_up_and_cuts_who_does_not() {
    let run = || {
        let (mut writer, fast) = shared(5, 10, None);
        let stopped = fast.source().join().unwrap();
        let fast = thread::spawn(move || read(fast));
        for _ in 0..6 {
            block_on(writer.push(chunk())).unwrap();
        }
        writer.finish(None);
        assert_eq!(fast.join().unwrap(), (30, false), "the fastest is never cut");
        assert!(read(stopped).1, "it lags by more than the window");
    };
    shuttle::check_random(run, RUNS);
    shuttle::check_pct(run, RUNS, 3);
}

#[test]
fn a_writer_that_waits_for_a_reader_hears_that_it_has_left() {
    let run = || {
        let (mut writer, reader) = shared(1, 1, None);
        let leaves = thread::spawn(move || drop(reader));
        let mut pushed = 0;
        while block_on(writer.push(chunk())) != Err(Abandoned) {
            pushed += 1;
            assert!(pushed <= 2, "it runs ahead of nobody");
        }
        leaves.join().unwrap();
    };
    shuttle::check_random(run, RUNS);
    shuttle::check_pct(run, RUNS, 3);
}

#[test]
fn a_writer_that_waits_for_the_origin_hears_that_nobody_reads() {
    let run = || {
        let (writer, one) = shared(10, 10, None);
        let two = one.source().join().unwrap();
        let leave = [thread::spawn(move || drop(one)), thread::spawn(move || drop(two))];
        block_on(writer.without_readers());
        assert!(!writer.has_readers());
        for reader in leave {
            reader.join().unwrap();
        }
    };
    shuttle::check_random(run, RUNS);
    shuttle::check_pct(run, RUNS, 3);
}
