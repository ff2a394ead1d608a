//! Leases, waiting for their end, and handing over.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;

use super::{Harness, prelude::*};
use crate::backend::{
    Acquired, Backend, Committed, Discarded, Entry, Lease, LeaseKey, LeaseKind, Mode, Release, Variant,
};

/// The first is granted; the others learn for how long at most, and the holder's ticket.
pub async fn one_is_granted_and_the_others_are_told_who_holds_it<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let lease = granted(acquire(&backend, lease_key(1), LONG).await);
    assert_eq!(lease.key, lease_key(1));
    for backend in [&backend, &harness.peer()] {
        let (left, ticket) = held(acquire(backend, lease_key(1), LONG).await);
        assert!(left > LONG / 2 && left <= LONG, "{left:?}");
        assert_eq!(ticket, Some(lease.ticket));
    }
}

/// So a paused holder's answer is older than that of its successor.
pub async fn a_lease_s_ticket_is_younger_than_every_ticket_before<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    for _ in 0..20 {
        let before = ticket(&peer, key(1)).await;
        let lease = granted(acquire(&backend, lease_key(1), LONG).await);
        assert_eq!(lease.ticket.born, before.born);
        assert!(lease.ticket.tick > before.tick);
        assert!(ticket(&peer, key(1)).await.tick >= lease.ticket.tick);
        assert!(backend.release(&lease, Release::Free).await.unwrap());
    }
}

/// What was asked for before the invalidation is not for who comes after it.
pub async fn the_holder_s_ticket_is_not_told_after_an_invalidation<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    let mut n = 0;
    for what in What::ALL {
        for mode in MODES {
            n += 1;
            granted(acquire(&backend, lease_key(n), LONG).await);
            assert!(held(acquire(&peer, lease_key(n), LONG).await).1.is_some());
            // A tag that the answer may turn out to carry.
            invalidate(&backend, what, n, mode).await;
            assert_eq!(held(acquire(&peer, lease_key(n), LONG).await).1, None, "{what:?} {mode:?}");
        }
    }
}

/// Who comes late looks up again instead of fetching.
pub async fn a_younger_entry_answers_filled<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    let older = fill(&backend, key(1), "a", &[]).await;
    assert!(matches!(acquire(&peer, lease_key(1), LONG).await, Acquired::Filled));
    let entry = fill(&backend, key(1), "b", &[]).await;
    assert!(matches!(acquire_since(&peer, lease_key(1), LONG, older.ticket().tick).await, Acquired::Filled));
    granted(acquire_since(&peer, lease_key(1), LONG, entry.ticket().tick).await);
}

/// In the same step.
pub async fn a_commit_ends_the_lease<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let lease = granted(acquire(&backend, lease_key(1), LONG).await);
    let entry = entry(&backend, lease.ticket, "a").build();
    assert_eq!(commit_lease(&backend, &lease, &entry).await, Committed::Stored);
    assert!(matches!(acquire(&backend, lease_key(1), LONG).await, Acquired::Filled));
    granted(acquire_since(&harness.peer(), lease_key(1), LONG, lease.ticket.tick).await);
    assert!(!backend.release(&lease, Release::Free).await.unwrap());
}

/// Whatever the outcome.
pub async fn a_commit_that_was_refused_ends_the_lease_too<H: Harness>(harness: &H) {
    let backend = harness.backend();
    for (n, what) in (1..).zip(What::ALL) {
        let lease = granted(acquire(&backend, lease_key(n), LONG).await);
        invalidate(&backend, what, n, Mode::Hard).await;
        let entry = entry(&backend, lease.ticket, "a").tags([tag(n)]).build();
        assert!(is_refusal(commit_lease(&backend, &lease, &entry).await));
        granted(acquire(&harness.peer(), lease_key(n), LONG).await);
    }
}

/// Somebody else's commit is not the holder's.
pub async fn a_commit_without_the_lease_leaves_it_held<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let lease = granted(acquire(&backend, lease_key(1), LONG).await);
    let entry = fill(&harness.peer(), key(1), "a", &[]).await;
    let since = entry.ticket().tick;
    held(acquire_since(&backend, lease_key(1), LONG, since).await);
    assert!(backend.renew(&lease, LONG).await.unwrap());
    assert!(backend.release(&lease, Release::Free).await.unwrap());
}

/// In the same step.
pub async fn a_discard_ends_the_lease<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let since = fill(&backend, key(1), "a", &[]).await.ticket().tick;
    let lease = granted(acquire_since(&backend, lease_key(1), LONG, since).await);
    let outcome = backend.discard(&key(1), PLAIN, lease.ticket, Some(&lease)).await.unwrap();
    assert_eq!(outcome, Discarded::Dropped);
    granted(acquire(&harness.peer(), lease_key(1), LONG).await);
}

/// Everybody gets a ticket that is good, and afterwards a lease again.
pub async fn uncacheable_lets_everybody_fetch_for_a_while<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    let while_ = Duration::from_secs(2);
    let (n, answers) = in_time(async |n| {
        let lease = granted(acquire(&backend, lease_key(n), LONG).await);
        let start = Instant::now();
        assert!(backend.release(&lease, Release::Uncacheable(while_)).await.unwrap());
        let mut answers = Vec::new();
        for backend in [&backend, &peer, &backend] {
            answers.push(acquire(backend, lease_key(n), LONG).await);
        }
        (start.elapsed() < while_).then_some((n, answers))
    })
    .await;
    let mut last = None;
    for answer in answers {
        match answer {
            Acquired::Uncacheable { ticket, left } => {
                assert!(left <= while_ && left > Duration::ZERO);
                last = Some(ticket);
            }
            other => panic!("expected Uncacheable, got {other:?}"),
        }
    }
    let entry = entry(&peer, last.unwrap(), "cacheable after all").build();
    assert_eq!(commit(&peer, key(n), &entry).await, Committed::Stored);
    harness.pass(while_ + ms(200)).await;
    granted(acquire_since(&peer, lease_key(n), LONG, entry.ticket().tick).await);
}

/// Nobody fetches, and afterwards one may again.
pub async fn failed_lets_nobody_fetch_for_a_while<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    let while_ = Duration::from_secs(2);
    let (n, answers) = in_time(async |n| {
        let lease = granted(acquire(&backend, lease_key(n), LONG).await);
        let start = Instant::now();
        assert!(backend.release(&lease, Release::Failed(while_)).await.unwrap());
        let answers = [&backend, &peer].map(|backend| acquire(backend, lease_key(n), LONG));
        let answers = join_all(answers).await;
        (start.elapsed() < while_).then_some((n, answers))
    })
    .await;
    for answer in answers {
        match answer {
            Acquired::Failed { left } => assert!(left <= while_ && left > Duration::ZERO),
            other => panic!("expected Failed, got {other:?}"),
        }
    }
    harness.pass(while_ + ms(200)).await;
    granted(acquire(&peer, lease_key(n), LONG).await);
}

/// For the next, at once.
pub async fn a_released_lease_is_free<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    let lease = granted(acquire(&backend, lease_key(1), LONG).await);
    assert!(backend.release(&lease, Release::Free).await.unwrap());
    assert!(!backend.release(&lease, Release::Free).await.unwrap(), "it is given up once");
    granted(acquire(&peer, lease_key(1), LONG).await);
}

/// Its holder may have died.
pub async fn a_lease_ends_by_itself<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    let (n, first, answer) = in_time(async |n| {
        let start = Instant::now();
        let first = granted(acquire(&backend, lease_key(n), ms(1500)).await);
        let answer = acquire(&peer, lease_key(n), LONG).await;
        (start.elapsed() < ms(1500)).then_some((n, first, answer))
    })
    .await;
    let (left, _) = held(answer);
    assert!(left <= ms(1500));
    harness.pass(ms(1700)).await;
    let second = granted(acquire(&peer, lease_key(n), LONG).await);
    assert!(second.ticket.tick > first.ticket.tick);
}

/// Beyond its first end, by the `ttl` from the renewal on.
pub async fn a_renewed_lease_lasts<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    let (n, lease, renewed) = in_time(async |n| {
        let start = Instant::now();
        let lease = granted(acquire(&backend, lease_key(n), ms(1500)).await);
        let renewed = backend.renew(&lease, LONG).await.unwrap();
        (start.elapsed() < ms(1500)).then_some((n, lease, renewed))
    })
    .await;
    assert!(renewed);
    harness.pass(ms(1700)).await;
    let (left, ticket) = held(acquire(&peer, lease_key(n), LONG).await);
    assert!(left > LONG / 2);
    assert_eq!(ticket, Some(lease.ticket));
    // Also to something shorter.
    assert!(backend.renew(&lease, ms(300)).await.unwrap());
    harness.pass(ms(500)).await;
    granted(acquire(&peer, lease_key(n), LONG).await);
}

/// And changes nothing by trying.
pub async fn who_lost_a_lease_can_neither_renew_nor_release_it<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    let first = granted(acquire(&backend, lease_key(1), ms(200)).await);
    harness.pass(ms(400)).await;
    let second = granted(acquire(&peer, lease_key(1), LONG).await);
    assert!(!backend.renew(&first, LONG).await.unwrap());
    for how in [Release::Free, Release::Failed(LONG), Release::Uncacheable(LONG)] {
        assert!(!backend.release(&first, how).await.unwrap());
    }
    let (_, ticket) = held(acquire(&backend, lease_key(1), LONG).await);
    assert_eq!(ticket, Some(second.ticket));
    // A late commit and a late discard do not end it either.
    let late = entry(&backend, first.ticket, "late").build();
    let _ = commit_lease(&backend, &first, &late).await;
    let _ = backend.discard(&key(1), PLAIN, first.ticket, Some(&first)).await.unwrap();
    assert!(peer.renew(&second, LONG).await.unwrap());
}

/// A background revalidation does not hold up fills, nor one variant another.
pub async fn kinds_keys_and_variants_do_not_know_of_each_other<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let mut leases: Vec<Lease> = Vec::new();
    for page in [key(1), key(2)] {
        for variant in [PLAIN, Variant(Some([1; 8])), Variant(Some([2; 8]))] {
            for kind in [LeaseKind::Fill, LeaseKind::Revalidate] {
                let lease_key = LeaseKey { key: page, variant, kind };
                leases.push(granted(acquire(&backend, lease_key, LONG).await));
                held(acquire(&harness.peer(), lease_key, LONG).await);
            }
        }
    }
    assert!(backend.release(&leases.remove(0), Release::Failed(LONG)).await.unwrap());
    for lease in &leases {
        assert!(backend.renew(lease, LONG).await.unwrap());
    }
}

/// In its own process and in others: by a commit, by a refused one, by each kind of release.
pub async fn who_waits_is_woken_by_every_end<H: Harness>(harness: &H) {
    if !harness.facts().wakes {
        return;
    }
    let (backend, peer) = (harness.backend(), harness.peer());
    for (n, end) in (1..).zip(End::ALL) {
        for waits_at in [&backend, &peer] {
            let since = lookup(&backend, key(n)).await.since;
            let lease = granted(acquire_since(&backend, lease_key(n), LONG, since).await);
            let mut waiter = waits_at.watch(&lease_key(n));
            held(acquire_since(waits_at, lease_key(n), LONG, since).await);
            let waiting = tokio::spawn(async move {
                let woken = waiter.woken(Duration::from_secs(10)).await;
                (woken, Instant::now())
            });
            tokio::time::sleep(ms(20)).await;
            let ended = Instant::now();
            end.of(&backend, &lease).await;
            let (woken, at) = waiting.await.unwrap();
            assert!(woken, "not woken by {end:?}");
            assert!(at - ended < Duration::from_secs(5), "woken by {end:?} after {:?}", at - ended);
            if matches!(end, End::Uncacheable | End::Failed) {
                harness.pass(ms(1200)).await;
            }
        }
    }
}

/// Listening begins with [`Backend::watch`].
pub async fn a_wake_between_watching_and_waiting_is_not_lost<H: Harness>(harness: &H) {
    if !harness.facts().wakes {
        return;
    }
    let (backend, peer) = (harness.backend(), harness.peer());
    for n in 1..=20 {
        let lease = granted(acquire(&backend, lease_key(n), LONG).await);
        let waits_at = if n % 2 == 0 { &backend } else { &peer };
        let mut waiter = waits_at.watch(&lease_key(n));
        held(acquire(waits_at, lease_key(n), LONG).await);
        assert!(backend.release(&lease, Release::Free).await.unwrap());
        if n % 3 == 0 {
            tokio::time::sleep(ms(30)).await;
        }
        assert!(waiter.woken(Duration::from_secs(5)).await, "round {n}");
    }
}

/// Whatever the store.
pub async fn a_wait_without_a_wake_ends_in_time<H: Harness>(harness: &H) {
    let backend = harness.backend();
    granted(acquire(&backend, lease_key(1), LONG).await);
    let mut waiter = backend.watch(&lease_key(1));
    let began = Instant::now();
    let _ = waiter.woken(ms(200)).await;
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// By those who were told it, and as it was handed over.
pub async fn what_was_handed_over_is_collected_under_its_ticket_only<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    let lease = granted(acquire(&backend, lease_key(1), LONG).await);
    let told = held(acquire(&peer, lease_key(1), LONG).await).1.expect("nothing was invalidated");
    assert!(peer.collect(&lease_key(1), told).await.unwrap().is_none(), "not yet");
    let handed = entry(&backend, lease.ticket, "handed over").tags([tag(1)]).head(Bytes::from_static(b"h")).build();
    assert!(backend.release(&lease, Release::HandOver(Arc::clone(&handed))).await.unwrap());
    for backend in [&backend, &peer] {
        for _ in 0..2 {
            let got = backend.collect(&lease_key(1), told).await.unwrap().expect("handed over");
            assert!(got.body() == handed.body() && got.head() == handed.head() && got.tags() == handed.tags());
            assert_eq!(got.ticket(), handed.ticket());
            assert_eq!((got.fresh_until(), got.keep_until()), (handed.fresh_until(), handed.keep_until()));
        }
        for tick in [told.tick - 1, told.tick + 1] {
            let other = crate::backend::Ticket { tick, ..told };
            assert!(backend.collect(&lease_key(1), other).await.unwrap().is_none());
        }
        assert!(backend.collect(&lease_key(2), told).await.unwrap().is_none());
    }
    // Who comes later is not told of it.
    let next = granted(acquire(&peer, lease_key(1), LONG).await);
    let told = held(acquire(&backend, lease_key(1), LONG).await).1.expect("nothing was invalidated");
    assert_eq!(told, next.ticket);
    assert!(backend.collect(&lease_key(1), told).await.unwrap().is_none());
}

/// It is not stored.
pub async fn what_was_handed_over_is_not_found_by_look_ups<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let lease = granted(acquire(&backend, lease_key(1), LONG).await);
    let handed = entry(&backend, lease.ticket, "handed over").build();
    assert!(backend.release(&lease, Release::HandOver(handed)).await.unwrap());
    assert!(found(&backend, key(1)).await.is_none());
    granted(acquire(&harness.peer(), lease_key(1), LONG).await);
}

/// A few seconds.
pub async fn what_was_handed_over_is_kept_for_seconds_only<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let lease = granted(acquire(&backend, lease_key(1), LONG).await);
    let handed = entry(&backend, lease.ticket, "handed over").build();
    assert!(backend.release(&lease, Release::HandOver(handed)).await.unwrap());
    assert!(backend.collect(&lease_key(1), lease.ticket).await.unwrap().is_some());
    harness.pass(Duration::from_secs(7)).await;
    assert!(backend.collect(&lease_key(1), lease.ticket).await.unwrap().is_none());
}

/// Its successor's waiters wait for the successor.
pub async fn who_lost_a_lease_hands_nothing_over<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    let first = granted(acquire(&backend, lease_key(1), ms(200)).await);
    harness.pass(ms(400)).await;
    let second = granted(acquire(&peer, lease_key(1), LONG).await);
    let late = entry(&backend, first.ticket, "late").build();
    assert!(!backend.release(&first, Release::HandOver(late)).await.unwrap());
    let told = held(acquire(&backend, lease_key(1), LONG).await).1.expect("nothing was invalidated");
    assert_eq!(told, second.ticket);
    assert!(backend.collect(&lease_key(1), told).await.unwrap().is_none());
}

#[derive(Clone, Copy, Debug)]
enum End {
    Commit,
    RefusedCommit,
    Discard,
    Free,
    Uncacheable,
    Failed,
    HandOver,
}

impl End {
    const ALL: [Self; 7] =
        [Self::Commit, Self::RefusedCommit, Self::Discard, Self::Free, Self::Uncacheable, Self::Failed, Self::HandOver];

    async fn of(self, backend: &Backend, lease: &Lease) {
        let answer: Arc<Entry> = entry(backend, lease.ticket, "a").tags([tag(1)]).build();
        let second = Duration::from_secs(1);
        let how = match self {
            Self::Commit => {
                assert_eq!(commit_lease(backend, lease, &answer).await, Committed::Stored);
                return;
            }
            Self::RefusedCommit => {
                invalidate(backend, What::Tag, 1, Mode::Hard).await;
                assert!(is_refusal(commit_lease(backend, lease, &answer).await));
                return;
            }
            Self::Discard => {
                let (key, variant) = (lease.key.key, lease.key.variant);
                backend.discard(&key, variant, lease.ticket, Some(lease)).await.unwrap();
                return;
            }
            Self::Free => Release::Free,
            Self::Uncacheable => Release::Uncacheable(second),
            Self::Failed => Release::Failed(second),
            Self::HandOver => Release::HandOver(answer),
        };
        assert!(backend.release(lease, how).await.unwrap());
    }
}
