//! Looking up and committing.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Harness, prelude::*};
use crate::backend::{Commit, Committed, Entry, ErrorKind, Lookup, Mode, VarySpec};

/// Within this time, what is kept for 1500 ms is there, however the clocks differ by a little.
const SOON: Duration = Duration::from_secs(1);

/// A look-up of an empty store finds nothing; a ticket is to be had, and it is good.
pub async fn an_empty_store_finds_nothing_and_gives_a_ticket<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let nothing = lookup(&backend, key(1)).await;
    assert!(nothing.found.is_none());
    assert_eq!(nothing.since, 0);
    let ticket = backend.ticket(&key(1)).await.unwrap();
    let again = lookup(&backend, key(1)).await.ticket.expect("there is a clock now");
    assert_eq!(again.born, ticket.born);
    assert!(again.tick >= ticket.tick);
    let entry = entry(&backend, ticket, "a").build();
    assert_eq!(commit(&backend, key(1), &entry).await, Committed::Stored);
}

/// Head, body, times, tags, specification and ticket come back as they were committed.
pub async fn a_look_up_finds_what_was_committed_in_every_field<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let ticket = ticket(&backend, key(1)).await;
    let now = backend.now();
    let entry = Entry::builder(ticket)
        .fresh_until(now.plus(ms(60_001)))
        .keep_until(now.plus(ms(120_003)))
        .tags([tag(3), tag(1), tag(2), tag(1)])
        .head(Bytes::from_static(b"\x00status 200\r\n\xff"))
        .body(Bytes::from_static(b"the body"))
        .build();
    assert_eq!(entry.tags().len(), 3);
    assert_eq!(commit(&backend, key(1), &entry).await, Committed::Stored);
    let seen = lookup(&backend, key(1)).await;
    assert_eq!(seen.variant, PLAIN);
    assert_eq!(seen.since, ticket.tick);
    let found = seen.found.expect("it was committed");
    assert_eq!(found.stale_since, None);
    let got = found.entry;
    assert_eq!(got.ticket(), ticket);
    assert_eq!(got.fresh_until(), entry.fresh_until());
    assert_eq!(got.keep_until(), entry.keep_until());
    assert_eq!(got.vary(), &VarySpec::none());
    assert_eq!(got.tags(), entry.tags());
    assert_eq!(got.head(), entry.head());
    assert_eq!(got.body(), entry.body());
}

/// Who looks up in another process after the commit has returned finds it.
pub async fn a_commit_is_visible_to_every_process<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    for n in 0..50 {
        assert!(found(&peer, key(n)).await.is_none());
        fill(&backend, key(n), "a", &[tag(n)]).await;
        assert_eq!(body(&peer, key(n)).await.unwrap(), "a");
        fill(&peer, key(n), "b", &[tag(n + 1)]).await;
        assert_eq!(body(&backend, key(n)).await.unwrap(), "b");
    }
}

/// Bodies and heads are bytes: any, none, and many.
pub async fn bodies_of_any_bytes_and_of_none_come_back<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let all: Vec<u8> = (0..=255).cycle().take(256 * 1024 + 3).collect();
    for (n, bytes) in (0..).zip([Vec::new(), vec![0], vec![255; 7], all]) {
        let ticket = ticket(&backend, key(n)).await;
        let entry = entry(&backend, ticket, bytes.clone()).head(Bytes::from(bytes[..bytes.len() / 8].to_vec())).build();
        assert_eq!(commit(&backend, key(n), &entry).await, Committed::Stored);
        let got = found(&backend, key(n)).await.expect("it was committed").entry;
        assert!(got.body() == entry.body() && got.head() == entry.head(), "{} bytes", bytes.len());
    }
}

/// `keep_until` is the end, also when it was still fresh.
pub async fn an_entry_is_not_handed_out_after_keep_until<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let (key, outcome, seen) = in_time(async |n| {
        let ticket = ticket(&backend, key(n)).await;
        let entry = entry(&backend, ticket, "a").keep_until(backend.now().plus(ms(1500))).build();
        let start = Instant::now();
        let (outcome, seen) = (commit(&backend, key(n), &entry).await, body(&backend, key(n)).await);
        (start.elapsed() < SOON).then_some((key(n), outcome, seen))
    })
    .await;
    assert_eq!(outcome, Committed::Stored);
    assert_eq!(seen.unwrap(), "a");
    harness.pass(ms(1600) + harness.facts().clock_tolerance / 10).await;
    assert!(found(&backend, key).await.is_none());
    assert!(found(&harness.peer(), key).await.is_none());
}

/// Stores keep stale entries; who serves them decides.
pub async fn an_entry_is_handed_out_after_fresh_until<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let ticket = ticket(&backend, key(1)).await;
    let entry = entry(&backend, ticket, "a").fresh_until(backend.now().plus(ms(200))).build();
    assert_eq!(commit(&backend, key(1), &entry).await, Committed::Stored);
    harness.pass(ms(400)).await;
    let found = found(&backend, key(1)).await.expect("kept");
    assert_eq!(found.stale_since, None, "that is said of invalidations only");
    assert!(found.entry.fresh_until() < backend.now());
}

/// Where a store answers a look-up at once, it answers as if it had been asked: with what is there, not with what was
/// invalidated, of another variant, or has expired.
pub async fn what_is_at_hand_is_what_a_look_up_finds<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let both = async |key, value| {
        let asked = backend.lookup(&key, &request(value)).await.expect("lookup");
        let at_hand = backend.lookup_now(&key, &request(value), backend.now()).unwrap_or_else(|| asked.clone());
        (asked, at_hand)
    };
    let agree = |(asked, at_hand): (Lookup, Lookup), expected: Option<&str>, stale: bool| {
        for seen in [&asked, &at_hand] {
            let found = seen.found.as_ref();
            assert_eq!(found.map(|found| &found.entry.body()[..]), expected.map(str::as_bytes));
            assert_eq!(found.is_some_and(|found| found.stale_since.is_some()), stale);
        }
        assert_eq!((at_hand.variant, at_hand.since), (asked.variant, asked.since));
        assert_eq!((at_hand.ticket, at_hand.floor), (asked.ticket, asked.floor));
    };
    agree(both(key(1), "").await, None, false);
    fill(&backend, key(1), "a", &[tag(1)]).await;
    agree(both(key(1), "").await, Some("a"), false);
    invalidate(&backend, What::Tag, 1, Mode::Soft).await;
    agree(both(key(1), "").await, Some("a"), true);
    invalidate(&backend, What::Tag, 1, Mode::Hard).await;
    agree(both(key(1), "").await, None, false);
    let vary = spec("language");
    let key = in_time(async |n| {
        let key = key(1 + n);
        let ticket = ticket(&backend, key).await;
        let entry = entry(&backend, ticket, "b").vary(vary.clone()).keep_until(backend.now().plus(ms(1500)));
        let start = Instant::now();
        let commit = Commit { key, variant: variant(&vary, "en"), entry: entry.build(), refresh: None, lease: None };
        assert_eq!(backend.commit(commit).await.expect("commit"), Committed::Stored);
        let seen = both(key, "en").await;
        (start.elapsed() < SOON).then(|| {
            agree(seen, Some("b"), false);
            key
        })
    })
    .await;
    agree(both(key, "fr").await, None, false);
    harness.pass(ms(1600) + harness.facts().clock_tolerance / 10).await;
    agree(both(key, "en").await, None, false);
}

/// An expired entry shuts nobody out, not even a ticket that is as old.
pub async fn an_expired_entry_is_replaced<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let (key, ticket, outcome) = in_time(async |n| {
        let ticket = ticket(&backend, key(n)).await;
        let short = entry(&backend, ticket, "a").keep_until(backend.now().plus(ms(1500))).build();
        let start = Instant::now();
        let outcome = commit(&backend, key(n), &short).await;
        (start.elapsed() < SOON).then_some((key(n), ticket, outcome))
    })
    .await;
    assert_eq!(outcome, Committed::Stored);
    harness.pass(ms(1600) + harness.facts().clock_tolerance / 10).await;
    let next = entry(&backend, ticket, "b").build();
    assert_eq!(commit(&backend, key, &next).await, Committed::Stored);
    assert_eq!(body(&backend, key).await.unwrap(), "b");
}

/// A commit under one key changes nothing under another.
pub async fn keys_do_not_know_of_each_other<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let names: Vec<&'static str> = vec!["a", "b", "c", "d", "e"];
    for (n, name) in (0..).zip(&names) {
        fill(&backend, key(n), name, &[tag(1)]).await;
    }
    for (n, name) in (0..).zip(&names) {
        assert_eq!(body(&backend, key(n)).await.unwrap(), *name);
    }
    assert!(found(&backend, key(99)).await.is_none());
}

/// [`Entry::MAX_TAGS`] tags are stored, one more is refused with [`ErrorKind::TooLarge`].
pub async fn too_many_tags_are_refused<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let ticket = ticket(&backend, key(1)).await;
    let with = |n| entry(&backend, ticket, "a").tags((0..n).map(tag)).build();
    let most = Entry::MAX_TAGS as u64;
    let one_more = Commit { key: key(1), variant: PLAIN, entry: with(most + 1), refresh: None, lease: None };
    let error = backend.commit(one_more).await.expect_err("too many tags");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(found(&backend, key(1)).await.is_none());
    assert_eq!(commit(&backend, key(1), &with(most)).await, Committed::Stored);
    assert_eq!(found(&backend, key(1)).await.expect("stored").entry.tags().len(), Entry::MAX_TAGS);
}

/// An entry beyond the store's limit is refused with [`ErrorKind::TooLarge`]; what is there stays, and the lease ends.
pub async fn too_large_entries_are_refused_and_displace_nothing<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let Some(bytes) = harness.facts().too_large else { return };
    for n in 0..20 {
        fill(&backend, key(n), "a", &[]).await;
    }
    let since = lookup(&backend, key(1)).await.since;
    let lease = granted(acquire_since(&backend, lease_key(1), LONG, since).await);
    let large = entry(&backend, lease.ticket, vec![b'x'; bytes]).build();
    let too_large = Commit { key: key(1), variant: PLAIN, entry: large, refresh: None, lease: Some(&lease) };
    let error = backend.commit(too_large).await.expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    for n in 0..20 {
        assert_eq!(body(&backend, key(n)).await.unwrap(), "a");
    }
    granted(acquire_since(&backend, lease_key(1), LONG, since).await);
}

/// What passes in the harness passes on [`CacheBackend::now`](crate::backend::CacheBackend::now), for all alike.
pub async fn time_passes_on_the_store_s_clock<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    let tolerance = harness.facts().clock_tolerance;
    let near = || {
        let (before, other, after) = (backend.now(), peer.now(), backend.now());
        other.plus(tolerance) >= before && after.plus(tolerance) >= other
    };
    assert!(near());
    let before = backend.now();
    harness.pass(ms(300)).await;
    let passed = backend.now().since(before);
    assert!(passed + tolerance / 10 >= ms(300), "only {passed:?}");
    assert!(near());
}

/// It does.
pub async fn the_store_answers_a_ping<H: Harness>(harness: &H) {
    harness.backend().ping().await.unwrap();
    assert!(!harness.backend().name().is_empty());
}
