//! Sessions that are asked for at the same moment are read together, and each once; that changes nothing else.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    future::{join, join_all},
    poll,
};
use tower_gatehouse::{
    Backend,
    backend::{BackendError, Changes, Create, Lifetime, Record, RecordKey, Saved, UserKey},
};

use crate::{
    redis::PATIENT,
    support::{RedisCluster, RedisServer},
};

const HOUR: Duration = Duration::from_hours(1);

async fn connect(url: &str) -> Backend {
    let backend = Backend::redis(url).operation_timeout(PATIENT).limit_timeout(PATIENT);
    backend.connect().await.expect("a connection")
}

/// All of one home.
fn key(n: u8) -> RecordKey {
    let mut bytes = [0; 16];
    bytes[15] = n;
    RecordKey::from_bytes(bytes)
}

fn value(n: u8) -> Vec<(Box<str>, Bytes)> {
    vec![("n".into(), Bytes::from(n.to_string()))]
}

async fn create(backend: &Backend, n: u8) {
    let lifetime = Lifetime { idle: HOUR, absolute: HOUR };
    let saved = backend.create(Create { key: key(n), set: &value(n), lifetime, link: None }).await;
    assert!(matches!(saved, Ok(Saved::Done(_))), "{saved:?}");
}

async fn load(backend: &Backend, n: u8) -> Result<Option<Arc<Record>>, BackendError> {
    backend.load(&key(n)).await
}

/// What is in the record, as text.
fn text(record: &Record) -> &str {
    std::str::from_utf8(&record.fields["n"]).unwrap()
}

#[tokio::test]
async fn who_asks_the_same_has_the_same_answer_and_each_of_the_others_its_own() {
    let server = RedisServer::start();
    let backend = connect(&server.url()).await;
    join_all((1..=100).map(|n| create(&backend, n))).await;
    // One that is none of ours does not disturb the others.
    server.command(&["SET", &format!("gh:{{0}}:session:{}", key(101)), "a string"]);
    server.command(&["HSET", &format!("gh:{{0}}:session:{}", key(102)), "a", "hash"]);
    server.reset_stats();
    // In turns one that all ask for, and one that nobody else asks for; the last are not there.
    let asked = (0..240_u8).map(|n| if n % 2 == 0 { 1 } else { n / 2 + 1 }).collect::<Vec<_>>();
    let loaded = join_all(asked.iter().map(|n| load(&backend, *n))).await;
    for (n, loaded) in asked.iter().zip(loaded) {
        match n {
            1..=100 => assert_eq!(text(&loaded.unwrap().unwrap()), n.to_string()),
            // Neither one that is there, nor what is none of ours.
            _ => assert!(loaded.unwrap().is_none()),
        }
    }
    // The first is alone, and the second goes with all the others.
    let stats = server.commandstats();
    assert_eq!((stats.calls("get"), stats.calls("mget")), (1, 2), "at most 64 together, and 120 records");
}

#[tokio::test]
async fn records_of_every_size_are_read_together_as_they_are_alone() {
    let server = RedisServer::start();
    let backend = connect(&server.url()).await;
    let lifetime = Lifetime { idle: HOUR, absolute: HOUR };
    for (n, (fields, len)) in
        (1_u8..).zip([(0, 0), (1, 0), (7, 31), (8, 32), (9, 255), (60, 256), (4, 4000), (256, 40)])
    {
        let value = |field: usize| (format!("{field}").into(), Bytes::from(vec![b'\xff'; len]));
        let set: Vec<(Box<str>, Bytes)> = (0..fields).map(value).collect();
        let saved = backend.create(Create { key: key(n), set: &set, lifetime, link: None }).await;
        assert!(matches!(saved, Ok(Saved::Done(_))), "{saved:?}");
    }
    let together = join_all((0..=8).map(|n| load(&backend, n))).await;
    for (n, loaded) in (0..=8).zip(together) {
        let loaded = loaded.unwrap();
        assert_eq!(loaded.is_some(), n > 0);
        assert_eq!(loaded, load(&backend, n).await.unwrap(), "{n}");
    }
}

#[tokio::test]
async fn what_is_none_of_ours_is_no_record_whatever_is_asked_for() {
    let server = RedisServer::start();
    let backend = connect(&server.url()).await;
    let name = |n| format!("gh:{{0}}:session:{}", key(n));
    create(&backend, 1).await;
    // A record whose last field is cut off, and one of another form.
    let cut = "return redis.call('SET', KEYS[2], string.sub(redis.call('GET', KEYS[1]), 1, -2))";
    server.command(&["EVAL", cut, "2", &name(1), &name(2)]);
    server.command(&["COPY", &name(1), &name(3)]);
    server.command(&["SETRANGE", &name(3), "0", "2"]);
    server.command(&["SET", &name(4), ""]);
    server.command(&["HSET", &name(5), "@", "1 7 5000 4000 1000 30000 11 1"]);
    let user = UserKey::of("ann");
    for n in 2..=5 {
        assert!(load(&backend, n).await.unwrap().is_none(), "{n}");
        let (epoch, loaded) = join(backend.epoch(&user), load(&backend, n)).await;
        assert!(epoch.is_ok() && loaded.unwrap().is_none(), "{n}, and it is not all that is read");
        let changes = Changes { set: &value(9), remove: &[] };
        assert_eq!(backend.commit_record(&key(n), changes, None).await.unwrap(), Saved::Gone, "{n}");
        let lifetime = Lifetime { idle: HOUR, absolute: HOUR };
        let again = Create { key: key(n), set: &value(9), lifetime, link: None };
        assert_eq!(backend.create(again).await.unwrap(), Saved::Exists, "{n}");
    }
    assert_eq!(text(&load(&backend, 1).await.unwrap().unwrap()), "1");
}

#[tokio::test]
async fn a_load_that_begins_after_a_change_has_no_part_in_one_from_before() {
    let server = RedisServer::start();
    let backend = connect(&server.url()).await;
    create(&backend, 1).await;
    for round in 10..30 {
        let (mut before, mut with_it) = (pin!(load(&backend, 1)), pin!(load(&backend, 1)));
        assert!(poll!(&mut before).is_pending() && poll!(&mut with_it).is_pending());
        let changes = Changes { set: &value(round), remove: &[] };
        let saved = backend.commit_record(&key(1), changes, None).await;
        assert!(matches!(saved, Ok(Saved::Done(_))), "{saved:?}");
        for loaded in join_all((0..10).map(|_| load(&backend, 1))).await {
            assert_eq!(text(&loaded.unwrap().unwrap()), round.to_string());
        }
        let (before, with_it) = join(before, with_it).await;
        assert!(before.unwrap().is_some() && with_it.unwrap().is_some());
    }
}

#[tokio::test]
async fn an_outage_is_told_to_each() {
    let mut server = RedisServer::start();
    let backend = Backend::redis(server.url()).operation_timeout(Duration::from_secs(1)).connect().await.unwrap();
    server.kill();
    let answers = join_all((0..50).map(|n| load(&backend, n % 20)));
    let answers = tokio::time::timeout(Duration::from_mins(1), answers).await;
    for answer in answers.expect("all are answered") {
        assert!(answer.unwrap_err().is_outage());
    }
}

#[tokio::test]
async fn while_a_slot_is_being_moved_each_is_asked_for_where_it_is() {
    let cluster = RedisCluster::start();
    let backend = connect(&cluster.url()).await;
    join_all((0..20).map(|n| create(&backend, n))).await;
    let mut names = cluster.nodes()[..3].iter().flat_map(RedisServer::keys);
    let name = names.find(|name| name.contains(":session:")).unwrap();
    let to = (cluster.owner(&name) + 1) % 3;
    let (slot, from) = cluster.begin_move(&name, to);
    // These are with the new master as soon as they are written, the others still with the old one.
    join_all((20..40).map(|n| create(&backend, n))).await;
    let all_are_there = async || {
        for (n, loaded) in (0..40_u8).zip(join_all((0..40).map(|n| load(&backend, n))).await) {
            assert_eq!(text(&loaded.unwrap().expect("a record")), n.to_string());
        }
    };
    all_are_there().await;
    cluster.finish_move(slot, from, to);
    all_are_there().await;
}
