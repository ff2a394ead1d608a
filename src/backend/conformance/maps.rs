//! Shared maps.

use std::{
    collections::BTreeSet,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;

use super::{Harness, prelude::*};
use crate::backend::{
    Backend, Changes, ErrorKind, Fields, MapChange, MapChanged, MapKey, MapOp, MapOwner, MapSnapshot, OpId, RecordKey,
    UserKey,
};

fn cart() -> MapKey {
    MapKey { owner: MapOwner::User(UserKey::of("ann")), name: "cart" }
}

fn change(op: MapOp<'_>) -> MapChange<'_> {
    MapChange { key: cart(), op, expected: None, once: None, ttl: LONG }
}

fn op(n: u8) -> (OpId, Duration) {
    (OpId([n; 16]), LONG)
}

fn add(field: &str, by: i64, range: RangeInclusive<i64>) -> MapChange<'_> {
    change(MapOp::Add { field, by, range })
}

async fn changed(backend: &Backend, change: MapChange<'_>) -> MapChanged {
    backend.change_map(change).await.expect("change")
}

async fn added(backend: &Backend, field: &str, by: i64) -> i64 {
    match changed(backend, add(field, by, 0..=1000)).await {
        MapChanged::Added { value, .. } => value,
        other => panic!("expected Added, got {other:?}"),
    }
}

async fn put(backend: &Backend, set: &[(&str, &str)]) -> u64 {
    let set: Vec<_> =
        set.iter().map(|(name, value)| (Box::from(*name), Bytes::copy_from_slice(value.as_bytes()))).collect();
    match changed(backend, change(MapOp::Put(Changes { set: &set, remove: &[] }))).await {
        MapChanged::Put { version } => version,
        other => panic!("expected Put, got {other:?}"),
    }
}

async fn read(backend: &Backend) -> MapSnapshot {
    backend.map(&cart()).await.expect("map")
}

fn fields(fields: &[(&str, &str)]) -> Fields {
    fields.iter().map(|(name, value)| ((*name).into(), Bytes::copy_from_slice(value.as_bytes()))).collect()
}

/// By every process.
pub async fn a_map_holds_what_was_put<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    assert_eq!(read(&backend).await, MapSnapshot::default());
    let first = put(&backend, &[("a", "1"), ("@v", "2"), ("", "3")]).await;
    let second = put(&peer, &[("a", "11")]).await;
    assert!(first > 0 && second > first);
    let both = [("b".into(), Bytes::from_static(b"4")), ("a".into(), Bytes::from_static(b"5"))];
    let op = MapOp::Put(Changes { set: &both, remove: &["a".into(), "x".into()] });
    changed(&backend, change(op)).await;
    let map = read(&peer).await;
    assert_eq!(map.fields, fields(&[("@v", "2"), ("", "3"), ("b", "4")]));
    assert!(map.version > second);
}

/// Nor do maps of other names.
pub async fn maps_of_other_owners_do_not_know_of_each_other<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let (user, same) = (UserKey::of("ann"), RecordKey::from_bytes(*UserKey::of("ann").as_bytes()));
    let keys = [
        cart(),
        MapKey { name: "wishes", ..cart() },
        MapKey { owner: MapOwner::Session(same), name: "cart" },
        MapKey { owner: MapOwner::User(UserKey::of("bob")), name: "cart" },
    ];
    assert_eq!(same.as_bytes(), user.as_bytes());
    for (n, key) in keys.into_iter().enumerate() {
        let by = i64::try_from(n).unwrap() + 1;
        let op = MapOp::Add { field: "n", by, range: 0..=9 };
        let answer = changed(&backend, MapChange { key, ..change(op) }).await;
        assert!(matches!(answer, MapChanged::Added { value, .. } if value == by), "{key:?}: {answer:?}");
    }
}

/// Within its range, and as text that is an integer.
pub async fn integers_are_added_within_their_range<H: Harness>(harness: &H) {
    let backend = harness.backend();
    assert_eq!(added(&backend, "n", 3).await, 3);
    assert_eq!(added(&backend, "n", -1).await, 2);
    assert_eq!(read(&backend).await.fields, fields(&[("n", "2")]));
    let version = read(&backend).await.version;
    for refused in
        [add("n", 9, 0..=10), add("n", -3, 0..=10), add("n", i64::MAX, 0..=i64::MAX), add("n", i64::MIN, i64::MIN..=0)]
    {
        assert_eq!(changed(&backend, refused).await, MapChanged::OutOfRange { value: 2 });
    }
    assert_eq!(read(&backend).await.version, version);
    let most = MapSnapshot::MAX_INTEGER;
    let answer = changed(&backend, add("n", most - 2, i64::MIN..=i64::MAX)).await;
    assert!(matches!(answer, MapChanged::Added { value, .. } if value == most), "{answer:?}");
    assert_eq!(changed(&backend, add("n", 1, i64::MIN..=i64::MAX)).await, MapChanged::OutOfRange { value: most });
    assert_eq!(added(&backend, "z", 0).await, 0);
    changed(&backend, add("n", -most, 0..=0)).await;
    assert!(read(&backend).await.fields.is_empty(), "what is 0 goes");
    let others = [("t", "\"text\""), ("f", "1.5"), ("l", "90071992547409930"), ("m", "-9223372036854775808")];
    put(&backend, &others).await;
    for (field, _) in others {
        assert_eq!(changed(&backend, add(field, 1, 0..=9)).await, MapChanged::NotAnInteger);
    }
}

/// Nothing is changed then, and the version is told.
pub async fn an_old_version_is_refused_always<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let mut old = vec![0];
    for n in 0..4 {
        old.push(put(&backend, &[("a", &n.to_string())]).await);
        if n == 1 {
            let expected = old.last().copied();
            assert!(matches!(
                changed(&backend, MapChange { expected, ..change(MapOp::Take) }).await,
                MapChanged::Taken(_)
            ));
        }
    }
    let now = old.pop().unwrap();
    for version in old {
        for op in [MapOp::Take, MapOp::Add { field: "b", by: 1, range: 0..=9 }, MapOp::Put(Changes::default())] {
            let answer = changed(&backend, MapChange { expected: Some(version), ..change(op) }).await;
            assert_eq!(answer, MapChanged::Conflict { version: now });
        }
    }
    assert_eq!(read(&backend).await, MapSnapshot { version: now, fields: fields(&[("a", "3")]) });
}

/// From two processes.
pub async fn of_64_additions_none_is_lost<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    let adding = (0..64).map(|n| {
        let backend = if n % 2 == 0 { &backend } else { &peer };
        async move { added(backend, "n", 1).await }
    });
    let values: BTreeSet<_> = join_all(adding).await.into_iter().collect();
    assert_eq!(values, (1..=64).collect());
}

/// The others get an empty map, or with a version are told of the conflict.
pub async fn of_four_takers_one_gets_the_map<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    for round in 0..100_u8 {
        let expected = Some(put(&backend, &[("a", "1")]).await).filter(|_| round % 2 == 0);
        let attempts = (0..4_u8).map(|n| {
            let backend = if n % 2 == 0 { &backend } else { &peer };
            let mut id = [n; 16];
            id[0] = round;
            let take = MapChange { expected, once: Some((OpId(id), LONG)), ..change(MapOp::Take) };
            async move { (changed(backend, take.clone()).await, changed(backend, take).await) }
        });
        let taken = join_all(attempts).await;
        let winners =
            taken.iter().filter(|(taken, _)| matches!(taken, MapChanged::Taken(map) if !map.fields.is_empty()));
        assert_eq!(winners.count(), 1, "{taken:?}");
        assert!(taken.iter().all(|(first, again)| first == again), "a retry gets the same: {taken:?}");
    }
}

/// And does nothing, whatever has happened since.
pub async fn a_repetition_gets_the_first_result<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    let one = MapChange { once: Some(op(1)), ..add("n", 2, 0..=9) };
    let first = changed(&backend, one.clone()).await;
    added(&backend, "n", 3).await;
    assert_eq!(changed(&peer, one).await, first);
    assert_eq!(read(&backend).await.fields, fields(&[("n", "5")]));
    let expected = Some(read(&backend).await.version);
    let take = MapChange { once: Some(op(2)), expected, ..change(MapOp::Take) };
    let taken = changed(&backend, take.clone()).await;
    assert!(matches!(&taken, MapChanged::Taken(map) if map.fields == fields(&[("n", "5")])), "{taken:?}");
    added(&backend, "n", 1).await;
    assert_eq!(changed(&peer, take).await, taken);
    assert_eq!(read(&backend).await.fields, fields(&[("n", "1")]));
    // A refusal is no result: it may succeed the next time.
    let refused = MapChange { once: Some(op(3)), ..add("n", 9, 0..=9) };
    assert!(matches!(changed(&backend, refused.clone()).await, MapChanged::OutOfRange { .. }));
    added(&backend, "n", -1).await;
    assert!(matches!(changed(&backend, refused).await, MapChanged::Added { value: 9, .. }));
}

/// In fields, and in bytes of a field.
pub async fn what_is_too_large_is_refused_as_a_whole<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let long = "x".repeat(4096);
    let many: Vec<_> = (0..=1000).map(|n| (Box::from(n.to_string()), Bytes::from_static(b"1"))).collect();
    let large = [("a".into(), Bytes::from_static(b"1")), ("b".into(), Bytes::from(long.clone()))];
    for set in [&many[..], &large] {
        let put = change(MapOp::Put(Changes { set, remove: &[] }));
        assert_eq!(backend.change_map(put).await.unwrap_err().kind(), ErrorKind::TooLarge);
    }
    assert_eq!(read(&backend).await, MapSnapshot::default());
    changed(&backend, change(MapOp::Put(Changes { set: &many[1..], remove: &[] }))).await;
    assert_eq!(backend.change_map(add("new", 1, 0..=9)).await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(added(&backend, "1", 1).await, 2);
    let swap = MapOp::Put(Changes { set: &[("new".into(), Bytes::from_static(b"1"))], remove: &["1".into()] });
    changed(&backend, change(swap)).await;
    assert_eq!(read(&backend).await.fields.len(), 1000);
    assert_eq!(backend.change_map(add(&long, 1, 0..=9)).await.unwrap_err().kind(), ErrorKind::TooLarge);
}

/// And its results.
pub async fn a_map_ends_by_itself<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let short = MapChange { ttl: ms(500), once: Some((OpId([1; 16]), ms(500))), ..add("n", 1, 0..=9) };
    let (version, seen, again) = in_time(async |_| {
        let first = Instant::now();
        changed(&backend, short.clone()).await;
        let version = read(&backend).await.version;
        harness.pass(ms(300)).await;
        let second = Instant::now();
        changed(&backend, MapChange { once: None, ..short.clone() }).await;
        let late = first.elapsed() >= short.ttl;
        harness.pass(ms(300)).await;
        let (seen, again) = (read(&backend).await.fields, changed(&backend, short.clone()).await);
        if late || second.elapsed() >= short.ttl {
            harness.pass(ms(700)).await;
            return None;
        }
        Some((version, seen, again))
    })
    .await;
    assert_eq!(seen, fields(&[("n", "2")]), "a change gives it another life");
    assert!(matches!(again, MapChanged::Added { value: 3, .. }), "the result is gone");
    harness.pass(ms(700)).await;
    assert_eq!(read(&backend).await, MapSnapshot::default());
    changed(&backend, short).await;
    assert!(read(&backend).await.version > version + 2, "no version comes back");
}

/// Until it is dropped, whoever asks gets it; what is written meanwhile is another map.
pub async fn a_map_is_put_aside_to_be_moved<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    assert_eq!(backend.park_map(&cart(), LONG).await.unwrap(), None);
    let version = put(&backend, &[("a", "1")]).await;
    let parked = backend.park_map(&cart(), LONG).await.unwrap().unwrap();
    assert_eq!(parked, MapSnapshot { version, fields: fields(&[("a", "1")]) });
    assert_eq!(read(&backend).await, MapSnapshot::default());
    let later = put(&peer, &[("a", "2")]).await;
    assert!(later > version);
    assert_eq!(peer.park_map(&cart(), LONG).await.unwrap(), Some(parked));
    assert!(!backend.drop_parked(&cart(), later).await.unwrap());
    assert!(backend.drop_parked(&cart(), version).await.unwrap());
    assert!(!backend.drop_parked(&cart(), version).await.unwrap());
    assert_eq!(backend.park_map(&cart(), LONG).await.unwrap().unwrap().version, later);
}
