//! Records of sessions, and the sessions of a user.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;

use super::{Harness, prelude::*};
use crate::{
    Timestamp,
    backend::{
        Backend, Changes, Create, Cycle, Epoch, ErrorKind, Lifetime, Link, Receipt, Record, RecordKey, Saved, UserKey,
    },
};

const HOUR: Lifetime = Lifetime { idle: Duration::from_mins(20), absolute: Duration::from_hours(1) };

fn record_key(home: u16, n: u64) -> RecordKey {
    let mut bytes = *key(n).as_bytes();
    bytes[..2].copy_from_slice(&home.to_be_bytes());
    RecordKey::from_bytes(bytes)
}

fn ann() -> UserKey {
    UserKey::of("ann")
}

fn anns(n: u64) -> RecordKey {
    record_key(ann().home(), n)
}

fn fields(fields: &[(&str, &str)]) -> Vec<(Box<str>, Bytes)> {
    fields.iter().map(|(name, value)| ((*name).into(), Bytes::copy_from_slice(value.as_bytes()))).collect()
}

#[track_caller]
fn done(saved: Saved) -> Receipt {
    match saved {
        Saved::Done(receipt) => receipt,
        other => panic!("expected Done, got {other:?}"),
    }
}

async fn create(backend: &Backend, key: RecordKey, set: &[(&str, &str)]) -> Receipt {
    let create = Create { key, set: &fields(set), lifetime: HOUR, link: None };
    done(backend.create(create).await.expect("create"))
}

async fn put(backend: &Backend, key: &RecordKey, set: &[(&str, &str)], expected: Option<u64>) -> Saved {
    backend.commit_record(key, Changes { set: &fields(set), remove: &[] }, expected).await.expect("commit")
}

async fn load(backend: &Backend, key: &RecordKey) -> Option<Record> {
    let asked = backend.load(key).await.expect("load");
    if let Some(at_hand) = backend.load_now(key) {
        assert_eq!(at_hand.expect("load_now"), asked, "with and without waiting");
    }
    asked.map(|record| Record::clone(&record))
}

async fn is_there(backend: &Backend, key: &RecordKey) -> bool {
    load(backend, key).await.is_some()
}

fn link(epoch: Option<Epoch>, max_sessions: u32) -> Link<'static> {
    Link { key: ann(), name: "ann", epoch, max_sessions }
}

async fn create_for_ann(backend: &Backend, n: u64, epoch: Option<Epoch>, max: u32) -> Saved {
    let create = Create { key: anns(n), set: &[], lifetime: HOUR, link: Some(link(epoch, max)) };
    backend.create(create).await.expect("create")
}

fn about(time: Timestamp, expected: Timestamp) -> bool {
    time.since(expected).max(expected.since(time)) < Duration::from_secs(10)
}

/// With its values, its times and its version.
pub async fn a_record_is_loaded_by_every_process_as_it_was_created<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    assert!(!is_there(&backend, &record_key(1, 1)).await);
    let receipt =
        create(&backend, record_key(1, 1), &[("theme", "\"dark\""), ("", "1"), ("@v", "2"), ("ä", "3")]).await;
    let now = backend.now();
    for backend in [&backend, &peer] {
        let record = load(backend, &record_key(1, 1)).await.expect("a record");
        assert_eq!((record.version, record.idle, record.user.as_deref()), (1, HOUR.idle, None));
        assert_eq!((receipt.version, receipt.expires, receipt.deadline), (1, record.expires, record.deadline));
        assert!(about(record.created, now) && about(record.expires, now.plus(HOUR.idle)), "{record:?}");
        assert!(about(record.deadline, now.plus(HOUR.absolute)), "{record:?}");
        let expected = fields(&[("theme", "\"dark\""), ("", "1"), ("@v", "2"), ("ä", "3")]);
        assert_eq!(record.fields, expected.into_iter().collect());
    }
}

/// And leaves it as it was.
pub async fn nothing_is_created_over_a_record<H: Harness>(harness: &H) {
    let backend = harness.backend();
    create(&backend, record_key(1, 1), &[("a", "1")]).await;
    let again = Create { key: record_key(1, 1), set: &fields(&[("a", "2")]), lifetime: HOUR, link: None };
    assert_eq!(backend.create(again).await.unwrap(), Saved::Exists);
    assert_eq!(load(&backend, &record_key(1, 1)).await.unwrap().fields["a"], "1");
}

/// Set, replaced and removed; the rest stays.
pub async fn a_commit_changes_the_fields_that_it_names<H: Harness>(harness: &H) {
    let (backend, key) = (harness.backend(), record_key(1, 1));
    create(&backend, key, &[("a", "1"), ("b", "2"), ("c", "3")]).await;
    let (set, remove) =
        (fields(&[("b", "22"), ("d", "4"), ("e", "5")]), [Box::from("c"), Box::from("e"), Box::from("x")]);
    let saved = backend.commit_record(&key, Changes { set: &set, remove: &remove }, None).await.unwrap();
    assert_eq!(done(saved).version, 2);
    let record = load(&harness.peer(), &key).await.unwrap();
    assert_eq!(record.fields, fields(&[("a", "1"), ("b", "22"), ("d", "4")]).into_iter().collect());
    assert_eq!(record.version, 2);
}

/// Neither by a commit nor by a touch.
pub async fn what_is_gone_does_not_come_back<H: Harness>(harness: &H) {
    let (backend, peer, key) = (harness.backend(), harness.peer(), record_key(1, 1));
    create(&backend, key, &[("a", "1")]).await;
    assert!(backend.destroy(&key).await.unwrap());
    assert_eq!(put(&peer, &key, &[("a", "2")], None).await, Saved::Gone);
    assert!(!peer.touch(&key).await.unwrap());
    assert!(!backend.destroy(&key).await.unwrap());
    assert!(!is_there(&backend, &key).await);
}

/// With the record's version only; nothing is changed otherwise.
pub async fn a_strict_commit_needs_the_version<H: Harness>(harness: &H) {
    let (backend, key) = (harness.backend(), record_key(1, 1));
    create(&backend, key, &[("a", "1")]).await;
    assert_eq!(put(&backend, &key, &[("a", "2")], Some(2)).await, Saved::Conflict);
    assert_eq!(done(put(&backend, &key, &[("a", "3")], Some(1)).await).version, 2);
    assert_eq!(put(&backend, &key, &[("a", "4")], Some(1)).await, Saved::Conflict);
    assert_eq!(load(&backend, &key).await.unwrap().fields["a"], "3");
}

/// Of each field.
pub async fn of_200_commits_to_different_fields_all_survive<H: Harness>(harness: &H) {
    let (backend, peer, key) = (harness.backend(), harness.peer(), record_key(1, 1));
    create(&backend, key, &[]).await;
    let commits = (0..200).map(|n| {
        let backend = if n % 2 == 0 { &backend } else { &peer };
        async move { put(backend, &key, &[(&format!("f{n}"), "1")], None).await }
    });
    let versions: BTreeSet<_> = join_all(commits).await.into_iter().map(|saved| done(saved).version).collect();
    assert_eq!(versions, (2..=201).collect());
    assert_eq!(load(&backend, &key).await.unwrap().fields.len(), 200);
}

/// So a counter counts.
pub async fn of_64_strict_commits_on_one_version_one_succeeds<H: Harness>(harness: &H) {
    let (backend, peer, key) = (harness.backend(), harness.peer(), record_key(1, 1));
    create(&backend, key, &[]).await;
    for version in 1..=5 {
        let commits = (0..64).map(|n| {
            let backend = if n % 2 == 0 { &backend } else { &peer };
            async move { put(backend, &key, &[("n", &n.to_string())], Some(version)).await }
        });
        let saved = join_all(commits).await;
        assert_eq!(saved.iter().filter(|saved| matches!(saved, Saved::Done(_))).count(), 1);
        assert_eq!(saved.iter().filter(|saved| matches!(saved, Saved::Conflict)).count(), 63);
    }
}

/// A logout that races a slow request wins.
pub async fn no_commit_survives_a_destroy<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    for n in 0..50 {
        let key = record_key(1, n);
        create(&backend, key, &[]).await;
        let commits = join_all((0..4).map(|_| put(&peer, &key, &[("a", "1")], None)));
        let touches = join_all((0..4).map(|_| peer.touch(&key)));
        let (destroyed, _, _) = tokio::join!(backend.destroy(&key), commits, touches);
        assert!(destroyed.unwrap());
        assert!(!is_there(&peer, &key).await, "it came back");
    }
}

/// And a touch or a commit gives it another idle time.
pub async fn an_unused_record_ends_after_its_idle_time<H: Harness>(harness: &H) {
    let (backend, idle) = (harness.backend(), ms(600));
    let lifetime = Lifetime { idle, absolute: Duration::from_mins(1) };
    let (keys, there) = in_time(async |n| {
        let keys = [0, 1, 2].map(|key| record_key(1, 3 * n + key));
        let mut used = Instant::now();
        for key in keys {
            done(backend.create(Create { key, set: &[], lifetime, link: None }).await.unwrap());
        }
        for _ in 0..3 {
            harness.pass(idle / 2).await;
            let next = Instant::now();
            let before = load(&backend, &keys[1]).await;
            let touched = backend.touch(&keys[1]).await.unwrap();
            let after = load(&backend, &keys[1]).await;
            let saved = put(&backend, &keys[2], &[("a", "1")], None).await;
            if used.elapsed() >= idle {
                return None;
            }
            assert!(touched && after.expect("it was touched").expires > before.expect("it was created").expires);
            done(saved);
            used = next;
        }
        let there = join_all(keys.iter().map(|key| is_there(&backend, key))).await;
        (used.elapsed() < idle).then_some((keys, there))
    })
    .await;
    assert_eq!(there, [false, true, true]);
    harness.pass(idle).await;
    assert!(!is_there(&backend, &keys[1]).await && !is_there(&backend, &keys[2]).await);
}

/// Whatever touches and changes it.
pub async fn no_record_lives_beyond_its_deadline<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let lifetime = Lifetime { idle: Duration::from_mins(1), absolute: ms(600) };
    let (key, touched, saved) = in_time(async |n| {
        let (key, start) = (record_key(1, n), Instant::now());
        let receipt = done(backend.create(Create { key, set: &[], lifetime, link: None }).await.unwrap());
        assert_eq!(receipt.expires, receipt.deadline);
        harness.pass(ms(200)).await;
        let touched = backend.touch(&key).await.unwrap();
        let saved = put(&backend, &key, &[("a", "1")], None).await;
        (start.elapsed() < lifetime.absolute).then_some((key, touched, saved))
    })
    .await;
    assert!(touched);
    let receipt = done(saved);
    assert_eq!(receipt.expires, receipt.deadline);
    harness.pass(ms(500)).await;
    assert!(!is_there(&backend, &key).await);
    assert!(!backend.touch(&key).await.unwrap());
    assert_eq!(put(&backend, &key, &[], None).await, Saved::Gone);
}

/// Nothing is truncated, nothing half written.
pub async fn what_is_too_large_is_refused_as_a_whole<H: Harness>(harness: &H) {
    let (backend, key) = (harness.backend(), record_key(1, 1));
    create(&backend, key, &[("a", "1")]).await;
    let long = |bytes: usize| "x".repeat(bytes);
    let many: Vec<_> =
        (0..Record::MAX_FIELDS).map(|n| (Box::from(format!("f{n}")), Bytes::from_static(b"1"))).collect();
    let large: Vec<_> = (0..5).map(|n| (Box::from(format!("f{n}")), Bytes::from(long(3500)))).collect();
    for set in [fields(&[("b", &long(4096))]), many.clone(), large] {
        let error = backend.commit_record(&key, Changes { set: &set, remove: &[] }, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        let create = Create {
            key: record_key(1, 2),
            set: &[set, fields(&[("one", "more")])].concat(),
            lifetime: HOUR,
            link: None,
        };
        assert_eq!(backend.create(create).await.unwrap_err().kind(), ErrorKind::TooLarge);
        assert!(!is_there(&backend, &record_key(1, 2)).await);
    }
    assert_eq!(load(&backend, &key).await.unwrap().fields, fields(&[("a", "1")]).into_iter().collect());
    // To the byte, and with what goes taken into account.
    done(put(&backend, &key, &[("b", &long(4095))], None).await);
    let changes = Changes { set: &many, remove: &[Box::from("a"), Box::from("b")] };
    done(backend.commit_record(&key, changes, None).await.unwrap());
    assert_eq!(load(&backend, &key).await.unwrap().fields.len(), Record::MAX_FIELDS);
    let full: Vec<_> = ["a", "b", "c", "d"].map(|name| (Box::from(name), Bytes::from(long(4095)))).into();
    let create = |key, set| backend.create(Create { key, set, lifetime: HOUR, link: None });
    done(create(record_key(1, 3), &full).await.unwrap());
    assert_eq!(load(&backend, &record_key(1, 3)).await.unwrap().size(), Record::MAX_SIZE);
    let one_more = fields(&[("", "x")]);
    let changes = Changes { set: &one_more, remove: &[] };
    let error = backend.commit_record(&record_key(1, 3), changes, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    // The last of a name counts, and no other.
    let twice = fields(&[("a", &long(4000)), ("a", &long(4000)), ("a", &long(4000)), ("a", &long(4000)), ("a", "5")]);
    done(create(record_key(1, 4), &twice).await.unwrap());
    assert_eq!(load(&backend, &record_key(1, 4)).await.unwrap().fields, fields(&[("a", "5")]).into_iter().collect());
    done(backend.commit_record(&record_key(1, 4), Changes { set: &twice, remove: &[] }, None).await.unwrap());
    assert_eq!(load(&backend, &record_key(1, 4)).await.unwrap().size(), 2);
}

/// In one step where both are at home together, in two where they are not.
pub async fn a_cycle_moves_the_record_and_the_old_key_is_dead<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    for (n, home) in [(10, 7), (20, 7), (30, 8000)] {
        let (from, to, last) = (record_key(7, n), record_key(home, n + 1), record_key(home, n + 2));
        let before = create(&backend, from, &[("a", "1"), ("b", "2")]).await;
        let (set, remove) = (fields(&[("c", "3")]), [Box::from("b")]);
        let changes = Changes { set: &set, remove: &remove };
        let cycle = Cycle { from, to, changes, lifetime: None, link: None };
        let receipt = done(backend.cycle(cycle).await.unwrap());
        assert_eq!((receipt.version, receipt.deadline), (2, before.deadline));
        assert!(!is_there(&peer, &from).await);
        assert_eq!(put(&peer, &from, &[("a", "9")], None).await, Saved::Gone);
        assert_eq!(backend.cycle(cycle).await.unwrap(), Saved::Gone);
        let record = load(&peer, &to).await.unwrap();
        assert_eq!(record.fields, fields(&[("a", "1"), ("c", "3")]).into_iter().collect());
        assert_eq!(record.began_as, Some(from));
        // It stays known where it began.
        let cycle = Cycle { from: to, to: last, changes: Changes::default(), lifetime: Some(HOUR), link: None };
        let receipt = done(backend.cycle(cycle).await.unwrap());
        assert!(receipt.deadline >= before.deadline);
        assert_eq!(load(&peer, &last).await.unwrap().began_as, Some(from));
        // A limit holds over the move.
        for n in 0..3 {
            done(put(&backend, &last, &[(&n.to_string(), &"x".repeat(4000))], None).await);
        }
        let large = [(Box::from("3"), Bytes::from("x".repeat(4090))), (Box::from("4"), Bytes::from("x".repeat(400)))];
        let error = backend.commit_record(&last, Changes { set: &large, remove: &[] }, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }
}

/// Of what was committed before it, nothing is lost; of what comes after, nothing is left.
pub async fn commits_that_race_a_cycle_are_moved_or_refused<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    for n in 0..30 {
        let home = if n % 2 == 0 { 7 } else { 8000 };
        let (from, to) = (record_key(7, 1000 + n), record_key(home, 2000 + n));
        create(&backend, from, &[]).await;
        let commits = join_all((0..8).map(|n| {
            let peer = &peer;
            async move { (n, put(peer, &from, &[(&format!("f{n}"), "1")], None).await) }
        }));
        let cycle = Cycle { from, to, changes: Changes::default(), lifetime: Some(HOUR), link: None };
        let (saved, commits) = tokio::join!(backend.cycle(cycle), commits);
        done(saved.unwrap());
        let record = load(&peer, &to).await.unwrap();
        for (n, saved) in commits {
            let kept = record.fields.contains_key(&*format!("f{n}"));
            assert_eq!(kept, matches!(saved, Saved::Done(_)), "f{n}: {saved:?}");
        }
        assert!(!is_there(&peer, &from).await);
    }
}

/// Oldest first, and only what lives.
pub async fn the_records_of_a_user_are_listed<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    assert!(backend.records_of(&ann()).await.unwrap().is_empty());
    for n in 1..=3 {
        done(create_for_ann(&backend, n, None, 10).await);
        harness.pass(ms(5)).await;
    }
    assert_eq!(load(&peer, &anns(1)).await.unwrap().user.as_deref(), Some("ann"));
    assert_eq!(peer.records_of(&ann()).await.unwrap(), [anns(1), anns(2), anns(3)]);
    assert!(backend.destroy(&anns(2)).await.unwrap());
    let cycle =
        Cycle { from: anns(1), to: anns(4), changes: Changes::default(), lifetime: None, link: Some(link(None, 10)) };
    done(backend.cycle(cycle).await.unwrap());
    let listed: BTreeSet<_> = peer.records_of(&ann()).await.unwrap().into_iter().collect();
    assert_eq!(listed, [anns(3), anns(4)].into());
}

/// The oldest goes; those that ended do not count.
pub async fn a_user_has_no_more_sessions_than_allowed<H: Harness>(harness: &H) {
    let backend = harness.backend();
    for n in 1..=6 {
        done(create_for_ann(&backend, n, None, 3).await);
        if n == 5 {
            backend.destroy(&anns(4)).await.unwrap();
        }
        harness.pass(ms(5)).await;
    }
    assert_eq!(backend.records_of(&ann()).await.unwrap(), [anns(3), anns(5), anns(6)]);
    assert!(!is_there(&backend, &anns(1)).await && !is_there(&backend, &anns(2)).await);
    let cycle =
        Cycle { from: anns(5), to: anns(7), changes: Changes::default(), lifetime: None, link: Some(link(None, 3)) };
    done(backend.cycle(cycle).await.unwrap());
    assert_eq!(backend.records_of(&ann()).await.unwrap().len(), 3, "a session that moves is no further one");
}

/// At once and for every process; other users' stay.
pub async fn all_records_of_a_user_end_together<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    for n in 1..=5 {
        done(create_for_ann(&backend, n, None, 10).await);
    }
    let (bob, bobs) = (UserKey::of("bob"), record_key(UserKey::of("bob").home(), 1));
    let link = Some(Link { key: bob, name: "bob", epoch: None, max_sessions: 10 });
    done(backend.create(Create { key: bobs, set: &[], lifetime: HOUR, link }).await.unwrap());
    assert_eq!(peer.revoke_all(&ann()).await.unwrap(), 5);
    for n in 1..=5 {
        assert!(!is_there(&backend, &anns(n)).await);
        assert_eq!(put(&backend, &anns(n), &[("a", "1")], None).await, Saved::Gone);
    }
    assert!(backend.records_of(&ann()).await.unwrap().is_empty());
    assert!(is_there(&backend, &bobs).await);
    assert_eq!(peer.revoke_all(&ann()).await.unwrap(), 0, "repeating is harmless");
    done(create_for_ann(&backend, 6, None, 10).await);
    assert!(is_there(&peer, &anns(6)).await);
}

/// Neither a new session nor one that would become the user's.
pub async fn a_login_that_began_before_a_revocation_fails<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    for round in 0..3 {
        let epoch = Some(backend.epoch(&ann()).await.unwrap());
        done(create_for_ann(&backend, round, epoch, 10).await);
        let (near, far) = (anns(100 + round), record_key(ann().home() ^ 0x5555, 200 + round));
        create(&backend, near, &[]).await;
        create(&backend, far, &[]).await;
        assert_eq!(peer.revoke_all(&ann()).await.unwrap(), 1);
        assert_eq!(create_for_ann(&backend, 10 + round, epoch, 10).await, Saved::Revoked);
        assert!(!is_there(&backend, &anns(10 + round)).await);
        for from in [near, far] {
            let to = anns(300 + round);
            let cycle =
                Cycle { from, to, changes: Changes::default(), lifetime: Some(HOUR), link: Some(link(epoch, 10)) };
            assert_eq!(backend.cycle(cycle).await.unwrap(), Saved::Revoked);
            assert!(!is_there(&backend, &to).await);
            assert!(is_there(&backend, &from).await, "what was there before the login stays");
        }
        let now = backend.epoch(&ann()).await.unwrap();
        assert_ne!(Some(now), epoch);
        assert_eq!(peer.epoch(&ann()).await.unwrap(), now);
    }
}

/// Whoever comes first.
pub async fn no_login_survives_a_revocation_that_it_races<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    for round in 0..30 {
        let epoch = Some(backend.epoch(&ann()).await.unwrap());
        let logins = join_all((0..4).map(|n| create_for_ann(&backend, round * 10 + n, epoch, 100)));
        let user = ann();
        let (revoked, _) = tokio::join!(peer.revoke_all(&user), logins);
        revoked.unwrap();
        for n in 0..4 {
            assert!(!is_there(&backend, &anns(round * 10 + n)).await);
        }
        assert!(backend.records_of(&ann()).await.unwrap().is_empty());
    }
}
