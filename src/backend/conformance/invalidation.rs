//! Invalidations with fills under way at every step.

use super::{Harness, prelude::*};
use crate::{
    TagDigest,
    backend::{Backend, Commit, Committed, Entry, Mode, PrimaryKey, Scope, Ticket},
};

/// What is asked for after the invalidation is new.
pub async fn a_hard_invalidation_before_the_ticket_does_not_matter<H: Harness>(harness: &H) {
    before_the_ticket(harness, Mode::Hard).await;
}

/// The origin was asked before: the answer is not stored, or at least never handed out.
pub async fn a_hard_invalidation_between_ticket_and_commit_keeps_the_answer_out<H: Harness>(harness: &H) {
    for (n, what) in (1..).zip(What::ALL) {
        let (backend, peer) = (harness.backend(), harness.peer());
        let page = key(n);
        let ticket = ticket(&backend, page).await;
        invalidate(&peer, what, n, Mode::Hard).await;
        let late = entry(&backend, ticket, "old").tags([tag(n)]).build();
        let outcome = commit(&backend, page, &late).await;
        assert!(is_refusal(outcome), "{what:?}: {outcome:?}");
        assert!(found(&backend, page).await.is_none(), "{what:?}");
        assert!(found(&peer, page).await.is_none(), "{what:?}");
    }
}

/// No look-up that begins afterwards finds it, in no process.
pub async fn a_hard_invalidation_after_the_commit_removes_the_entry<H: Harness>(harness: &H) {
    for (n, what) in (1..).zip(What::ALL) {
        let (backend, peer) = (harness.backend(), harness.peer());
        fill(&backend, key(n), "old", &[tag(n)]).await;
        assert!(found(&peer, key(n)).await.is_some());
        invalidate(&backend, what, n, Mode::Hard).await;
        for backend in [&peer, &backend] {
            assert!(found(backend, key(n)).await.is_none(), "{what:?}");
            assert!(found(backend, key(n)).await.is_none(), "{what:?}");
        }
    }
}

/// What is asked for after the invalidation is fresh.
pub async fn a_soft_invalidation_before_the_ticket_does_not_matter<H: Harness>(harness: &H) {
    before_the_ticket(harness, Mode::Soft).await;
}

/// The answer is refused, or stored as stale.
pub async fn a_soft_invalidation_between_ticket_and_commit_never_leaves_it_fresh<H: Harness>(harness: &H) {
    for (n, what) in (1..).zip(What::ALL) {
        let (backend, peer) = (harness.backend(), harness.peer());
        let ticket = ticket(&backend, key(n)).await;
        invalidate(&peer, what, n, Mode::Soft).await;
        let late = entry(&backend, ticket, "old").tags([tag(n)]).build();
        let outcome = commit(&backend, key(n), &late).await;
        assert!(outcome == Committed::Stored || is_refusal(outcome), "{what:?}: {outcome:?}");
        for backend in [&backend, &peer] {
            let fresh = found(backend, key(n)).await.is_some_and(|found| found.stale_since.is_none());
            assert!(!fresh, "{what:?}");
        }
    }
}

/// It stays to be served stale, and says since when.
pub async fn a_soft_invalidation_after_the_commit_makes_the_entry_stale<H: Harness>(harness: &H) {
    let tolerance = harness.facts().clock_tolerance;
    for (n, what) in (1..).zip(What::ALL) {
        let (backend, peer) = (harness.backend(), harness.peer());
        fill(&backend, key(n), "old", &[tag(n)]).await;
        assert!(found(&peer, key(n)).await.expect("stored").stale_since.is_none());
        harness.pass(ms(20)).await;
        let before = backend.now();
        invalidate(&backend, what, n, Mode::Soft).await;
        for backend in [&peer, &backend] {
            let found = found(backend, key(n)).await.expect("stale entries stay");
            let since = found.stale_since.expect("it is stale");
            assert!(since.plus(tolerance) >= before && since <= backend.now().plus(tolerance), "{what:?}");
            assert_eq!(found.entry.body(), "old");
        }
        fill(&backend, key(n), "new", &[tag(n)]).await;
        let renewed = found(&peer, key(n)).await.expect("stored");
        assert!(renewed.stale_since.is_none() && renewed.entry.body() == "new", "{what:?}");
    }
}

/// The ticket that came with a lease is one like any other.
pub async fn fills_under_a_lease_are_invalidated_too<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let mut n = 0;
    for what in What::ALL {
        for mode in MODES {
            n += 1;
            let lease = granted(acquire(&backend, lease_key(n), LONG).await);
            invalidate(&harness.peer(), what, n, mode).await;
            let late = entry(&backend, lease.ticket, "old").tags([tag(n)]).build();
            let outcome = commit_lease(&backend, &lease, &late).await;
            assert!(is_refusal(outcome) || mode == Mode::Soft, "{what:?} {mode:?}: {outcome:?}");
            let fresh = found(&backend, key(n)).await.is_some_and(|found| found.stale_since.is_none());
            assert!(!fresh, "{what:?} {mode:?}");
        }
    }
}

/// A 304 that the origin gave before the invalidation does not revive the entry.
pub async fn a_refresh_in_flight_is_invalidated_too<H: Harness>(harness: &H) {
    let backend = harness.backend();
    for (n, what) in (1..).zip(What::ALL) {
        let base = fill(&backend, key(n), "old", &[tag(n)]).await;
        let ticket = ticket(&backend, key(n)).await;
        invalidate(&backend, what, n, Mode::Hard).await;
        let next = entry(&backend, ticket, "old").tags([tag(n)]).build();
        let outcome = refresh(&backend, key(n), &base, &next).await;
        assert!(is_refusal(outcome) || outcome == Committed::Gone, "{what:?}: {outcome:?}");
        assert!(found(&backend, key(n)).await.is_none(), "{what:?}");
    }
}

/// A key stands for all its variants, those in flight too.
pub async fn all_variants_of_a_key_are_invalidated<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let by = spec("accept-language");
    let put = async |value: &'static str, ticket: Ticket| {
        let entry = entry(&backend, ticket, value).vary(by.clone()).build();
        let commit = Commit { key: key(1), variant: variant(&by, value), entry, refresh: None, lease: None };
        backend.commit(commit).await.unwrap()
    };
    for mode in MODES {
        for value in ["de", "en", "fr"] {
            assert_eq!(put(value, ticket(&backend, key(1)).await).await, Committed::Stored);
        }
        let in_flight = ticket(&backend, key(1)).await;
        invalidate(&harness.peer(), What::Key, 1, mode).await;
        let outcome = put("it", in_flight).await;
        assert!(is_refusal(outcome) || mode == Mode::Soft, "{outcome:?}");
        for value in ["de", "en", "fr", "it"] {
            let found = backend.lookup(&key(1), &request(value)).await.unwrap().found;
            match mode {
                Mode::Hard => assert!(found.is_none(), "{value}"),
                Mode::Soft => assert!(found.is_none_or(|found| found.stale_since.is_some()), "{value}"),
            }
        }
    }
}

/// Each of [`Entry::MAX_TAGS`] tags invalidates the entry.
pub async fn every_tag_of_an_entry_counts<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    let most = Entry::MAX_TAGS as u64;
    let tags: Vec<TagDigest> = (0..most).map(tag).collect();
    for n in (0..most).step_by(9).chain([most - 1]) {
        fill(&backend, key(1), "a", &tags).await;
        assert!(found(&peer, key(1)).await.is_some());
        invalidate(&backend, What::Tag, n, Mode::Hard).await;
        assert!(found(&peer, key(1)).await.is_none(), "tag {n}");
    }
}

/// The others stay fresh.
pub async fn only_what_carries_the_tag_is_invalidated<H: Harness>(harness: &H) {
    let backend = harness.backend();
    fill(&backend, key(1), "a", &[tag(1), tag(2)]).await;
    fill(&backend, key(2), "b", &[tag(2), tag(3)]).await;
    fill(&backend, key(3), "c", &[]).await;
    for mode in MODES {
        invalidate(&backend, What::Tag, 1, mode).await;
        for n in [2, 3] {
            assert!(found(&backend, key(n)).await.expect("stays").stale_since.is_none());
        }
    }
    assert!(found(&backend, key(1)).await.is_none());
}

/// The others stay fresh.
pub async fn only_the_key_is_invalidated<H: Harness>(harness: &H) {
    let backend = harness.backend();
    for n in 0..20 {
        fill(&backend, key(n), "a", &[tag(1)]).await;
    }
    for mode in MODES {
        invalidate(&backend, What::Key, 1, mode).await;
        for n in (0..20).filter(|n| *n != 1) {
            assert!(found(&backend, key(n)).await.expect("stays").stale_since.is_none());
        }
    }
    assert!(found(&backend, key(1)).await.is_none());
}

/// One call takes hundreds of keys or tags.
pub async fn many_names_in_one_call<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let keys: Vec<PrimaryKey> = (0..300).map(key).collect();
    let tags: Vec<TagDigest> = (0..300).map(tag).collect();
    for by_key in [true, false] {
        for n in (0..300).step_by(30) {
            fill(&backend, key(n), "a", &[tag(n)]).await;
        }
        fill(&backend, key(1000), "a", &[tag(1000)]).await;
        let scope = if by_key { Scope::Keys(&keys) } else { Scope::Tags(&tags) };
        backend.invalidate(scope, Mode::Hard).await.unwrap();
        for n in (0..300).step_by(30) {
            assert!(found(&backend, key(n)).await.is_none());
        }
        assert!(found(&backend, key(1000)).await.is_some());
    }
}

/// Nothing to do is done.
pub async fn unknown_names_and_empty_lists_are_fine<H: Harness>(harness: &H) {
    let backend = harness.backend();
    for mode in MODES {
        for n in [0, 1] {
            backend.invalidate(Scope::Keys(&[]), mode).await.unwrap();
            backend.invalidate(Scope::Tags(&[]), mode).await.unwrap();
            invalidate(&backend, What::Key, 77, mode).await;
            invalidate(&backend, What::Tag, 77, mode).await;
            if n == 0 {
                fill(&backend, key(1), "a", &[tag(1)]).await;
            }
        }
        assert!(found(&backend, key(1)).await.expect("stays").stale_since.is_none());
    }
}

/// And the entry that came after it is invalidated by the next one only.
pub async fn repeating_is_harmless<H: Harness>(harness: &H) {
    let backend = harness.backend();
    for what in What::ALL {
        fill(&backend, key(1), "old", &[tag(1)]).await;
        for _ in 0..3 {
            invalidate(&backend, what, 1, Mode::Hard).await;
            assert!(found(&backend, key(1)).await.is_none());
        }
        fill_again(&backend, key(1), "new", &[tag(1)]).await;
        assert_eq!(body(&backend, key(1)).await.unwrap(), "new");
    }
}

/// One invalidation costs one fill.
pub async fn after_an_invalidation_the_next_fill_is_stored<H: Harness>(harness: &H) {
    let backend = harness.backend();
    for what in [What::Key, What::Tag] {
        for mode in MODES {
            fill(&backend, key(1), "old", &[tag(1)]).await;
            invalidate(&backend, what, 1, mode).await;
            fill(&backend, key(1), "new", &[tag(1)]).await;
            assert_eq!(body(&backend, key(1)).await.unwrap(), "new");
        }
    }
}

/// Something else was invalidated during the fill: at most one commit cannot be decided.
pub async fn a_commit_that_was_unsure_makes_the_next_one_exact<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let during = async |other: u64| {
        let ticket = ticket(&backend, key(1)).await;
        invalidate(&backend, What::Tag, other, Mode::Hard).await;
        let entry = entry(&backend, ticket, "a").tags([tag(1), tag(2)]).build();
        commit(&backend, key(1), &entry).await
    };
    let first = during(8).await;
    assert!(matches!(first, Committed::Stored | Committed::Unsure), "{first:?}");
    assert_eq!(during(9).await, Committed::Stored);
    assert_eq!(during(1).await, Committed::Invalidated);
}

/// A hundred times, alternating.
pub async fn every_process_sees_an_invalidation_at_once<H: Harness>(harness: &H) {
    let (mut one, mut two) = (harness.backend(), harness.peer());
    for round in 0..100 {
        fill(&one, key(1), "a", &[tag(1)]).await;
        assert!(found(&two, key(1)).await.is_some(), "round {round}");
        invalidate(&one, if round % 4 < 2 { What::Tag } else { What::Key }, 1, Mode::Hard).await;
        assert!(found(&two, key(1)).await.is_none(), "round {round}");
        std::mem::swap(&mut one, &mut two);
    }
}

/// Hints about tags that a process keeps only save round trips.
pub async fn a_process_that_remembers_older_tags_sees_the_new_ones<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    fill(&backend, key(1), "one", &[tag(1)]).await;
    assert_eq!(body(&peer, key(1)).await.unwrap(), "one");
    fill(&backend, key(1), "two", &[tag(2), tag(3)]).await;
    invalidate(&backend, What::Tag, 3, Mode::Hard).await;
    assert!(found(&peer, key(1)).await.is_none());
    fill(&backend, key(1), "three", &[tag(4)]).await;
    invalidate(&backend, What::Tag, 1, Mode::Hard).await;
    invalidate(&backend, What::Tag, 2, Mode::Hard).await;
    assert_eq!(body(&peer, key(1)).await.unwrap(), "three");
}

/// [`Lookup::floor`](crate::backend::Lookup::floor) tells a request whether the fill that it meets began late enough.
pub async fn a_fill_from_before_an_invalidation_may_not_be_joined_after_it<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    let mut n = 0;
    for what in What::ALL {
        for mode in MODES {
            for stored in [false, true] {
                n += 1;
                if stored {
                    fill_again(&backend, key(n), "a", &[tag(n)]).await;
                }
                let leader = granted(acquire_since(&backend, lease_key(n), LONG, since(&backend, key(n)).await).await);
                assert!(may_join(&peer, key(n), leader.ticket).await, "{what:?} {mode:?}: nothing came between");
                invalidate(&peer, what, n, mode).await;
                for backend in [&backend, &peer] {
                    assert!(!may_join(backend, key(n), leader.ticket).await, "{what:?} {mode:?} {stored}");
                }
            }
        }
    }
}

/// Whatever a look-up says was there, a lease to replace it is granted, not [`Acquired::Filled`].
///
/// [`Acquired::Filled`]: crate::backend::Acquired::Filled
pub async fn since_lets_the_next_lease_be_granted<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let mut n = 0;
    for what in What::ALL {
        for mode in MODES {
            n += 1;
            fill_again(&backend, key(n), "a", &[tag(n)]).await;
            invalidate(&backend, what, n, mode).await;
            granted(acquire_since(&backend, lease_key(n), LONG, since(&backend, key(n)).await).await);
        }
    }
}

async fn since(backend: &Backend, key: PrimaryKey) -> u64 {
    lookup(backend, key).await.since
}

async fn may_join(backend: &Backend, key: PrimaryKey, leader: Ticket) -> bool {
    let seen = lookup(backend, key).await;
    seen.ticket.is_some_and(|ticket| ticket.born == leader.born) && leader.tick >= seen.floor
}

async fn before_the_ticket<H: Harness>(harness: &H, mode: Mode) {
    for (n, what) in (1..).zip(What::ALL) {
        let (backend, peer) = (harness.backend(), harness.peer());
        fill(&backend, key(n), "old", &[tag(n)]).await;
        invalidate(&peer, what, n, mode).await;
        fill_again(&backend, key(n), "new", &[tag(n)]).await;
        for backend in [&backend, &peer] {
            let found = found(backend, key(n)).await.expect("it is new");
            assert!(found.entry.body() == "new" && found.stale_since.is_none(), "{what:?} {mode:?}");
        }
    }
}
