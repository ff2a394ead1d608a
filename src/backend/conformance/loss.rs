//! A store that loses its bookkeeping may only cost misses.

use std::sync::Arc;

use bytes::Bytes;

use super::{Harness, Loss, prelude::*};
use crate::backend::{Acquired, Backend, Committed, Mode};

/// Loss after the commit, or after the invalidation: the old answer does not come back.
pub async fn what_was_invalidated_stays_so_whatever_is_lost_afterwards<H: Harness>(harness: &H) {
    for loss in Loss::ALL {
        for what in What::ALL {
            for before in [true, false] {
                let (backend, peer) = (harness.backend(), harness.peer());
                fill_again(&backend, key(1), "old", &[tag(1)]).await;
                assert!(found(&peer, key(1)).await.is_some());
                if before {
                    harness.lose(loss).await;
                }
                invalidate(&backend, what, 1, Mode::Hard).await;
                if !before {
                    harness.lose(loss).await;
                }
                never_found(&backend, &peer, &format!("{loss:?} {what:?} before: {before}")).await;
            }
        }
    }
}

/// A loss anywhere between ticket and look-up, with an invalidation during the fill.
pub async fn a_late_commit_stays_out_whatever_is_lost_in_between<H: Harness>(harness: &H) {
    for loss in Loss::ALL {
        for what in What::ALL {
            for step in 0..3 {
                let (backend, peer) = (harness.backend(), harness.peer());
                fill_again(&backend, key(1), "older", &[tag(1)]).await;
                let ticket = ticket(&backend, key(1)).await;
                lose_at(harness, loss, step == 0).await;
                invalidate(&peer, what, 1, Mode::Hard).await;
                lose_at(harness, loss, step == 1).await;
                // Somebody else's fill, which makes a new clock and new cells.
                fill_again(&peer, key(2), "other", &[tag(2)]).await;
                let late = entry(&backend, ticket, "old").tags([tag(1)]).build();
                let outcome = commit(&backend, key(1), &late).await;
                lose_at(harness, loss, step == 2).await;
                never_found(&backend, &peer, &format!("{loss:?} {what:?} at {step}, {outcome:?}")).await;
            }
        }
    }
}

/// What was marked stale is not fresh again.
pub async fn soft_invalidations_are_not_forgotten_either<H: Harness>(harness: &H) {
    for loss in Loss::ALL {
        for what in What::ALL {
            for step in 0..4 {
                let (backend, peer) = (harness.backend(), harness.peer());
                fill_again(&backend, key(1), "old", &[tag(1)]).await;
                let ticket = ticket(&backend, key(1)).await;
                lose_at(harness, loss, step == 0).await;
                invalidate(&peer, what, 1, Mode::Soft).await;
                lose_at(harness, loss, step == 1).await;
                let late = entry(&backend, ticket, "old").tags([tag(1)]).build();
                if step >= 2 {
                    let _ = commit(&backend, key(1), &late).await;
                }
                lose_at(harness, loss, step == 3).await;
                for backend in [&backend, &peer] {
                    let fresh = found(backend, key(1)).await.is_some_and(|found| found.stale_since.is_none());
                    assert!(!fresh, "{loss:?} {what:?} at {step}");
                }
            }
        }
    }
}

/// Every pair of losses, around the invalidation.
pub async fn two_losses_in_a_row_do_no_harm<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    for first in Loss::ALL {
        for second in Loss::ALL {
            for what in What::ALL {
                fill_again(&backend, key(1), "old", &[tag(1)]).await;
                let ticket = ticket(&backend, key(1)).await;
                harness.lose(first).await;
                invalidate(&peer, what, 1, Mode::Hard).await;
                harness.lose(second).await;
                let told = format!("{first:?} {second:?} {what:?}");
                never_found(&backend, &peer, &told).await;
                let late = entry(&backend, ticket, "old").tags([tag(1)]).build();
                let outcome = commit(&backend, key(1), &late).await;
                never_found(&backend, &peer, &format!("{told} {outcome:?}")).await;
            }
        }
    }
}

/// A few fills later everything is as before.
pub async fn the_store_recovers_from_every_loss<H: Harness>(harness: &H) {
    for loss in Loss::ALL {
        let (backend, peer) = (harness.backend(), harness.peer());
        fill_again(&backend, key(1), "a", &[tag(1)]).await;
        harness.lose(loss).await;
        let seen = lookup(&backend, key(1)).await;
        assert!(seen.found.is_none_or(|found| found.entry.body() == "a"));
        fill_again(&backend, key(1), "b", &[tag(1)]).await;
        assert_eq!(body(&peer, key(1)).await.expect("stored"), "b", "{loss:?}");
        let lease = granted(acquire_since(&peer, lease_key(1), LONG, lookup(&peer, key(1)).await.since).await);
        let next = entry(&peer, lease.ticket, "c").tags([tag(1)]).build();
        assert_eq!(commit_lease(&peer, &lease, &next).await, Committed::Stored, "{loss:?}");
        invalidate(&peer, What::Tag, 1, Mode::Hard).await;
        assert!(found(&backend, key(1)).await.is_none(), "{loss:?}");
    }
}

/// A head goes on its own body or nowhere.
pub async fn a_refresh_after_a_loss_tears_nothing<H: Harness>(harness: &H) {
    let backend = harness.backend();
    for loss in Loss::ALL {
        fill_again(&backend, key(1), "one", &[tag(1)]).await;
        let base = found(&backend, key(1)).await.expect("stored").entry;
        harness.lose(loss).await;
        fill_again(&harness.peer(), key(1), "two", &[tag(1)]).await;
        let ticket = ticket(&backend, key(1)).await;
        let next = entry(&backend, ticket, "one").head(Bytes::from_static(b"of one")).tags([tag(1)]).build();
        let outcome = refresh(&backend, key(1), &base, &next).await;
        assert_ne!(outcome, Committed::Refreshed, "{loss:?}");
        let got = found(&backend, key(1)).await.expect("stored").entry;
        assert!(got.body() == "two" && got.head() == "head".as_bytes(), "{loss:?} {outcome:?}");
    }
}

/// Two fetch at once, and the younger answer stays.
pub async fn losing_leases_costs_work_only<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let first = granted(acquire(&backend, lease_key(1), LONG).await);
    harness.lose(Loss::Leases).await;
    let second = match acquire(&harness.peer(), lease_key(1), LONG).await {
        Acquired::Granted(lease) => lease,
        other => panic!("the lease was lost, and yet {other:?}"),
    };
    assert!(!backend.renew(&first, LONG).await.unwrap());
    let answers = [(&second, "second", true), (&first, "first", false)];
    for (lease, text, stored) in answers {
        let entry = entry(&backend, lease.ticket, text).build();
        assert_eq!(commit_lease(&backend, lease, &Arc::clone(&entry)).await == Committed::Stored, stored);
    }
    assert_eq!(body(&backend, key(1)).await.unwrap(), "second");
}

async fn lose_at<H: Harness>(harness: &H, loss: Loss, now: bool) {
    if now {
        harness.lose(loss).await;
    }
}

async fn never_found(backend: &Backend, peer: &Backend, told: &str) {
    for backend in [backend, peer] {
        for _ in 0..2 {
            assert!(found(backend, key(1)).await.is_none(), "stale after {told}");
        }
    }
}
