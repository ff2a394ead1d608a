//! Many callers at once.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::Barrier;

use super::{Harness, prelude::*};
use crate::backend::{Acquired, Backend, Committed, Mode, Release};

const CALLERS: usize = 64;

/// The others are told that it is held.
pub async fn of_64_callers_one_gets_the_lease<H: Harness>(harness: &H) {
    for round in 0..10 {
        let answers =
            at_once(harness, move |backend, _| async move { acquire(&backend, lease_key(round), LONG).await }).await;
        let granted = answers.iter().filter(|answer| matches!(answer, Acquired::Granted(_))).count();
        let held = answers.iter().filter(|answer| matches!(answer, Acquired::Held { .. })).count();
        assert_eq!((granted, held), (1, CALLERS - 1));
    }
}

/// The others are superseded, and everybody finds the winner's.
pub async fn of_64_commits_on_one_ticket_one_is_stored<H: Harness>(harness: &H) {
    for round in 0..10 {
        let ticket = ticket(&harness.backend(), key(round)).await;
        let outcomes = at_once(harness, move |backend, n| async move {
            let entry = entry(&backend, ticket, format!("{n}")).build();
            commit(&backend, key(round), &entry).await
        })
        .await;
        let winners: Vec<_> = (0..CALLERS).filter(|n| outcomes[*n] == Committed::Stored).collect();
        let superseded = outcomes.iter().filter(|outcome| **outcome == Committed::Superseded).count();
        assert_eq!((winners.len(), superseded), (1, CALLERS - 1), "{outcomes:?}");
        assert_eq!(body(&harness.peer(), key(round)).await.unwrap(), format!("{}", winners[0]));
    }
}

/// In whatever order they arrive.
pub async fn of_64_commits_the_youngest_ticket_stays<H: Harness>(harness: &H) {
    for round in 0..10 {
        let mut tickets = Vec::new();
        for _ in 0..CALLERS {
            let backend = harness.backend();
            let lease = granted(acquire(&backend, lease_key(round), LONG).await);
            assert!(backend.release(&lease, Release::Free).await.unwrap());
            tickets.push(lease.ticket);
        }
        let tickets = Arc::new(tickets);
        let given = Arc::clone(&tickets);
        let outcomes = at_once(harness, move |backend, n| {
            let ticket = given[n];
            async move {
                let entry = entry(&backend, ticket, format!("{n}")).build();
                commit(&backend, key(round), &entry).await
            }
        })
        .await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Committed::Stored | Committed::Superseded)));
        assert_eq!(outcomes[CALLERS - 1], Committed::Stored);
        let got = found(&harness.peer(), key(round)).await.expect("stored").entry;
        assert!(got.ticket() == tickets[CALLERS - 1] && got.body() == format!("{}", CALLERS - 1).as_bytes());
    }
}

/// Half of them store new bodies meanwhile; no head is ever seen on the body of another.
pub async fn of_64_refreshes_on_one_base_all_keep_head_and_body_together<H: Harness>(harness: &H) {
    for round in 0..10 {
        fill(&harness.backend(), key(round), "0", &[]).await;
        at_once(harness, move |backend, n| async move {
            for step in 0..5 {
                let seen = lookup(&backend, key(round)).await;
                let (ticket, base) = (seen.ticket.unwrap(), seen.found.expect("nothing removes it").entry);
                let (head, body) = (base.head().clone(), base.body().clone());
                assert!(head == "head".as_bytes() || head == format!("head of {}", text(&body)).as_bytes());
                if n % 2 == 0 {
                    let head = Bytes::from(format!("head of {}", text(&body)));
                    let next = entry(&backend, ticket, body).head(head).build();
                    let _ = refresh(&backend, key(round), &base, &next).await;
                } else {
                    let next = entry(&backend, ticket, format!("{n}-{step}")).build();
                    let _ = commit(&backend, key(round), &next).await;
                }
            }
        })
        .await;
        let got = found(&harness.peer(), key(round)).await.expect("stored").entry;
        let own = format!("head of {}", text(got.body()));
        assert!(got.head() == "head".as_bytes() || got.head() == own.as_bytes());
    }
}

/// Each caller changes the content and invalidates it, or fills; when all is done, nothing older than the last change
/// that was invalidated is found, not even for a moment.
pub async fn invalidations_among_64_commits_are_never_missed<H: Harness>(harness: &H) {
    for what in What::ALL {
        for _ in 0..5 {
            let content = Arc::new(AtomicU64::new(1));
            let invalidated = Arc::new(AtomicU64::new(0));
            at_once(harness, move |backend, n| {
                let (content, invalidated) = (Arc::clone(&content), Arc::clone(&invalidated));
                async move {
                    for _ in 0..4 {
                        if n % 4 == 0 {
                            let now = content.fetch_add(1, Ordering::SeqCst) + 1;
                            invalidate(&backend, what, 1, Mode::Hard).await;
                            invalidated.fetch_max(now, Ordering::SeqCst);
                        } else {
                            let ticket = ticket(&backend, key(1)).await;
                            let version = content.load(Ordering::SeqCst);
                            tokio::task::yield_now().await;
                            let entry = entry(&backend, ticket, version.to_le_bytes().to_vec()).tags([tag(1)]).build();
                            let _ = commit(&backend, key(1), &entry).await;
                        }
                        let least = invalidated.load(Ordering::SeqCst);
                        if let Some(body) = body(&backend, key(1)).await {
                            let version = u64::from_le_bytes(body[..].try_into().unwrap());
                            assert!(version >= least, "stale: {version} after {least} ({what:?})");
                        }
                    }
                }
            })
            .await;
            invalidate(&harness.backend(), What::All, 1, Mode::Hard).await;
        }
    }
}

/// The others are told that it is not theirs any more.
pub async fn of_64_releases_by_one_holder_one_succeeds<H: Harness>(harness: &H) {
    for round in 0..10 {
        let lease = granted(acquire(&harness.backend(), lease_key(round), LONG).await);
        let told = at_once(harness, move |backend, n| async move {
            let how = if n % 2 == 0 { Release::Free } else { Release::Failed(LONG) };
            backend.release(&lease, how).await.unwrap()
        })
        .await;
        assert_eq!(told.iter().filter(|released| **released).count(), 1);
    }
}

/// Runs `act` for 64 callers, in two processes, released by a barrier.
async fn at_once<H, T, F>(harness: &H, act: impl Fn(Backend, usize) -> F) -> Vec<T>
where
    H: Harness,
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let start = Arc::new(Barrier::new(CALLERS));
    let callers: Vec<_> = (0..CALLERS)
        .map(|n| {
            let backend = if n % 2 == 0 { harness.backend() } else { harness.peer() };
            let (start, acts) = (Arc::clone(&start), act(backend, n));
            tokio::spawn(async move {
                start.wait().await;
                acts.await
            })
        })
        .collect();
    let mut results = Vec::new();
    for caller in callers {
        results.push(caller.await.expect("no caller panics"));
    }
    results
}

fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).expect("the test's own text")
}
