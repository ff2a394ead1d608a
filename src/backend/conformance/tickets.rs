//! Which commits, refreshes and discards are accepted.

use bytes::Bytes;

use super::{Harness, prelude::*};
use crate::backend::{Committed, Discarded, Mode, Ticket};

/// So that what this process fetches next is not taken for the entry it saw.
pub async fn who_sees_an_entry_has_a_younger_ticket<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let mut last = 0;
    for _ in 0..10 {
        let entry = fill(&backend, key(1), "a", &[]).await;
        for backend in [&backend, &harness.peer()] {
            let seen = lookup(backend, key(1)).await;
            let ticket = seen.ticket.expect("there is a clock");
            assert_eq!(ticket.born, entry.ticket().born);
            assert!(ticket.tick > entry.ticket().tick);
            assert!(ticket.tick > last && ticket.tick < 1 << 53);
        }
        last = entry.ticket().tick;
    }
}

/// Content only ever becomes younger.
pub async fn an_older_ticket_does_not_replace_a_younger_entry<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let old = ticket(&backend, key(1)).await;
    fill(&backend, key(1), "before", &[]).await;
    fill(&backend, key(1), "young", &[]).await;
    let late = entry(&backend, old, "old").build();
    assert_eq!(commit(&harness.peer(), key(1), &late).await, Committed::Superseded);
    assert_eq!(body(&backend, key(1)).await.unwrap(), "young");
}

/// A refresh names its base by its ticket, so two entries never have the same one.
pub async fn of_two_commits_on_one_ticket_the_first_stays<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let ticket = ticket(&backend, key(1)).await;
    let first = entry(&backend, ticket, "first").build();
    let second = entry(&backend, ticket, "second").build();
    assert_eq!(commit(&backend, key(1), &first).await, Committed::Stored);
    assert_eq!(commit(&harness.peer(), key(1), &second).await, Committed::Superseded);
    assert_eq!(body(&backend, key(1)).await.unwrap(), "first");
}

/// A leader that slept through its lease commits before or after its successor: the successor's answer stays.
pub async fn a_paused_leader_neither_replaces_nor_shuts_out_its_successor<H: Harness>(harness: &H) {
    let backend = harness.backend();
    for (n, leader_first) in [(1, true), (2, false)] {
        let paused = granted(acquire(&backend, lease_key(n), ms(100)).await);
        harness.pass(ms(300)).await;
        let successor = granted(acquire(&backend, lease_key(n), LONG).await);
        let (late, next) =
            (entry(&backend, paused.ticket, "late").build(), entry(&backend, successor.ticket, "next").build());
        if leader_first {
            assert_eq!(commit_lease(&backend, &paused, &late).await, Committed::Stored);
            assert_eq!(commit_lease(&backend, &successor, &next).await, Committed::Stored);
        } else {
            assert_eq!(commit_lease(&backend, &successor, &next).await, Committed::Stored);
            assert_eq!(commit_lease(&backend, &paused, &late).await, Committed::Superseded);
        }
        assert_eq!(body(&backend, key(n)).await.unwrap(), "next");
    }
}

/// The identity of a clock is compared for equality.
pub async fn a_ticket_of_another_clock_is_refused<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let good = ticket(&backend, key(1)).await;
    for born in [good.born - 1, good.born + 1] {
        let foreign = entry(&backend, Ticket { born, ..good }, "foreign").build();
        assert_eq!(commit(&backend, key(1), &foreign).await, Committed::ClockLost);
    }
    assert!(found(&backend, key(1)).await.is_none());
    // The same after everything was invalidated.
    invalidate(&backend, What::All, 0, Mode::Hard).await;
    let late = entry(&backend, good, "late").build();
    assert_eq!(commit(&backend, key(1), &late).await, Committed::ClockLost);
    assert!(found(&backend, key(1)).await.is_none());
}

/// A tick above the clock's cannot have been read from it.
pub async fn a_ticket_from_the_future_is_refused<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let good = ticket(&backend, key(1)).await;
    let future = Ticket { tick: good.tick + 3_600_000_000, ..good };
    let entry = entry(&backend, future, "future").build();
    assert_eq!(commit(&backend, key(1), &entry).await, Committed::ClockLost);
    assert!(found(&backend, key(1)).await.is_none());
}

/// After a 304: new head, new times, new ticket, the body as it was.
pub async fn a_refresh_changes_the_head_and_keeps_the_body<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let base = fill(&backend, key(1), "body", &[tag(1)]).await;
    harness.pass(ms(10)).await;
    let ticket = ticket(&backend, key(1)).await;
    let next = entry(&backend, ticket, "body").head(Bytes::from_static(b"HEAD")).tags([tag(1)]).build();
    assert_eq!(refresh(&backend, key(1), &base, &next).await, Committed::Refreshed);
    for backend in [backend, harness.peer()] {
        let got = found(&backend, key(1)).await.expect("refreshed").entry;
        assert_eq!(got.head(), next.head());
        assert_eq!(got.body(), "body");
        assert_eq!(got.ticket(), ticket);
        assert_eq!(got.fresh_until(), next.fresh_until());
        assert_eq!(got.keep_until(), next.keep_until());
    }
}

/// Whatever the length of the new head, what was stored before is replaced as a whole.
pub async fn a_refresh_whose_head_has_grown_is_stored<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let mut base = fill(&backend, key(1), "body", &[]).await;
    for len in [0, 1, 50, 100, 10_000, 3, 200] {
        let ticket = ticket(&backend, key(1)).await;
        let next = entry(&backend, ticket, "body").head(Bytes::from(vec![b'h'; len])).tags([tag(1), tag(2)]).build();
        assert_eq!(refresh(&backend, key(1), &base, &next).await, Committed::Refreshed, "a head of {len} bytes");
        let got = found(&backend, key(1)).await.expect("refreshed").entry;
        assert!(got.head() == next.head() && got.body() == "body" && got.tags() == next.tags());
        base = next;
    }
}

/// Somebody stored another body since: putting the head on that would tear the response.
pub async fn a_refresh_on_a_base_that_was_replaced_changes_nothing<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let base = fill(&backend, key(1), "one", &[]).await;
    let between = ticket(&backend, key(1)).await;
    fill(&harness.peer(), key(1), "two", &[]).await;
    let young = ticket(&backend, key(1)).await;
    for (ticket, expected) in [(between, Committed::Superseded), (young, Committed::Gone)] {
        let next = entry(&backend, ticket, "one").head(Bytes::from_static(b"HEAD")).build();
        let outcome = refresh(&backend, key(1), &base, &next).await;
        // A ticket between the two is also older than what is there, or, where a look-up reads the same tick, as old.
        assert!(outcome == expected || outcome == Committed::Gone, "{outcome:?}");
        let got = found(&backend, key(1)).await.expect("stays").entry;
        assert!(got.head() == "head".as_bytes() && got.body() == "two");
    }
}

/// A head alone is not stored.
pub async fn a_refresh_without_its_base_stores_nothing<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let base = fill(&backend, key(1), "body", &[]).await;
    let ticket = ticket(&backend, key(1)).await;
    let dropped = backend.discard(&key(1), PLAIN, ticket, None).await.unwrap();
    assert_eq!(dropped, Discarded::Dropped);
    let next = entry(&backend, ticket, "body").build();
    assert_eq!(refresh(&backend, key(1), &base, &next).await, Committed::Gone);
    assert!(found(&backend, key(1)).await.is_none());
}

/// The refreshed entry is invalidated by its new tags, and not by those that it has lost.
pub async fn a_refresh_carries_its_new_tags<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    let base = fill(&backend, key(1), "body", &[tag(1)]).await;
    assert!(found(&peer, key(1)).await.is_some());
    let ticket = ticket(&backend, key(1)).await;
    let next = entry(&backend, ticket, "body").tags([tag(2)]).build();
    assert_eq!(refresh(&backend, key(1), &base, &next).await, Committed::Refreshed);
    invalidate(&backend, What::Tag, 1, Mode::Hard).await;
    assert!(found(&peer, key(1)).await.is_some());
    invalidate(&backend, What::Tag, 2, Mode::Hard).await;
    assert!(found(&peer, key(1)).await.is_none());
    assert!(found(&backend, key(1)).await.is_none());
}

/// The origin said that it must not be reused: what the answer is younger than, or as old as, goes.
pub async fn a_discard_removes_what_is_as_old_as_its_ticket<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let older = fill(&backend, key(1), "a", &[]).await;
    let ticket = ticket(&backend, key(1)).await;
    assert!(ticket.tick > older.ticket().tick);
    assert_eq!(backend.discard(&key(1), PLAIN, ticket, None).await.unwrap(), Discarded::Dropped);
    assert!(found(&harness.peer(), key(1)).await.is_none());
    let same = fill(&backend, key(2), "a", &[]).await;
    assert_eq!(backend.discard(&key(2), PLAIN, same.ticket(), None).await.unwrap(), Discarded::Dropped);
    assert!(found(&backend, key(2)).await.is_none());
    fill(&backend, key(2), "again", &[]).await;
    assert_eq!(body(&backend, key(2)).await.unwrap(), "again");
}

/// A younger answer knows better.
pub async fn a_discard_leaves_a_younger_entry<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let old = ticket(&backend, key(1)).await;
    fill(&backend, key(1), "a", &[]).await;
    fill(&backend, key(1), "young", &[]).await;
    assert_eq!(backend.discard(&key(1), PLAIN, old, None).await.unwrap(), Discarded::Superseded);
    assert_eq!(body(&backend, key(1)).await.unwrap(), "young");
}

/// Repeating is harmless.
pub async fn a_discard_of_nothing_is_done<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let ticket = backend.ticket(&key(1)).await.unwrap();
    for variant in [PLAIN, variant(&spec("accept"), "text/html")] {
        for _ in 0..2 {
            assert_eq!(backend.discard(&key(1), variant, ticket, None).await.unwrap(), Discarded::Dropped);
        }
    }
}

/// A ticket from before says nothing about entries of a new clock.
pub async fn a_discard_on_a_ticket_of_a_lost_clock_leaves_what_came_later<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let old = ticket(&backend, key(1)).await;
    invalidate(&backend, What::All, 0, Mode::Hard).await;
    fill_again(&backend, key(1), "new", &[]).await;
    assert_eq!(backend.discard(&key(1), PLAIN, old, None).await.unwrap(), Discarded::ClockLost);
    assert_eq!(body(&backend, key(1)).await.unwrap(), "new");
}
