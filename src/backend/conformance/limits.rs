//! Limits: counters that are exact for all processes.

use std::{sync::Arc, time::Duration};

use futures_util::future;

use super::{
    Harness, Loss,
    prelude::{in_time, ms},
};
use crate::{
    Timestamp,
    backend::{Ask, Backend, Change, Level, Limit, LimitKey, Settle, Take, Taken, Verdict},
};

const HOUR: Duration = Duration::from_hours(1);

fn key(n: u64) -> LimitKey {
    let hash = blake3::hash(&[b"limit", &n.to_le_bytes()[..]].concat());
    LimitKey::from_bytes(*hash.as_bytes().first_chunk().expect("32 bytes"))
}

/// So many at once, and hardly any later.
fn burst(units: u32) -> Limit {
    Limit::rate(HOUR, units)
}

async fn take(backend: &Backend, n: u64, asks: &[(Limit, u32)]) -> Taken {
    let asks: Vec<_> = asks.iter().map(|&(limit, cost)| Ask { limit, cost }).collect();
    backend.take(&[Take { key: key(n), asks: &asks }]).await.expect("take")
}

async fn admitted(backend: &Backend, n: u64, limit: Limit) -> bool {
    take(backend, n, &[(limit, 1)]).await.admitted
}

/// How many of so many attempts are admitted.
async fn count(backend: &Backend, n: u64, limit: Limit, attempts: usize) -> usize {
    let mut count = 0;
    for _ in 0..attempts {
        count += usize::from(admitted(backend, n, limit).await);
    }
    count
}

async fn level(backend: &Backend, n: u64, limit: Limit) -> Level {
    take(backend, n, &[(limit, 0)]).await.levels[0].expect("a level")
}

async fn settle(backend: &Backend, n: u64, taken: Timestamp, limit: Limit, units: i64) {
    let changes = [Change { limit, units }];
    backend.settle(Settle { key: key(n), taken, changes: &changes }).await.expect("settle");
}

#[track_caller]
fn wait(taken: &Taken) -> Duration {
    match taken.levels[0].expect("a level").verdict {
        Verdict::Wait(wait) => wait,
        other => panic!("expected a wait, got {other:?}"),
    }
}

/// And not one more.
pub async fn a_burst_is_admitted_at_once<H: Harness>(harness: &H) {
    let backend = harness.backend();
    assert_eq!(count(&backend, 1, burst(5), 20).await, 5);
    assert_eq!(count(&backend, 2, Limit::window(5, HOUR * 24 * 365), 20).await, 5);
    assert_eq!(count(&backend, 3, burst(0), 5).await, 0);
}

/// What is decided without waiting counts like everything else; where it cannot be, nothing was taken.
pub async fn what_is_taken_now_counts_once<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let asks = [Ask { limit: burst(7), cost: 1 }];
    let mut count = 0;
    for _ in 0..20 {
        let answer = match backend.take_now(&[Take { key: key(1), asks: &asks }]) {
            Some(answer) => answer,
            None => take(&backend, 1, &[(burst(7), 1)]).await,
        };
        assert_eq!(answer.levels.len(), 1);
        count += usize::from(answer.admitted);
    }
    assert_eq!(count, 7);
}

/// Not each for itself.
pub async fn all_processes_count_together<H: Harness>(harness: &H) {
    let (backend, peer) = (harness.backend(), harness.peer());
    let mut count = 0;
    for _ in 0..10 {
        count += usize::from(admitted(&backend, 1, burst(7)).await);
        count += usize::from(admitted(&peer, 1, burst(7)).await);
    }
    assert_eq!(count, 7);
}

/// Also when all ask at the same moment, of three keys in turn.
pub async fn of_64_callers_exactly_the_limit_is_admitted<H: Harness>(harness: &H) {
    let limits: Arc<[_]> = [burst(40), Limit::window(25, HOUR * 24 * 365), burst(1)].into();
    let tasks = (0..64).map(|i| {
        let (backend, limits) = (if i % 2 == 0 { harness.backend() } else { harness.peer() }, Arc::clone(&limits));
        tokio::spawn(async move {
            let mut counts = [0; 3];
            for n in 0..3 {
                counts[n] += usize::from(admitted(&backend, n as u64, limits[n]).await);
            }
            counts
        })
    });
    let mut sum = [0; 3];
    for counts in future::join_all(tasks).await {
        let counts = counts.expect("a task");
        (0..3).for_each(|n| sum[n] += counts[n]);
    }
    assert_eq!(sum, [40, 25, 1]);
}

/// Of counters of one key, one that denies leaves the others as they are.
pub async fn nothing_is_taken_where_one_counter_denies<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let asks = [(burst(100), 1), (burst(3), 1), (Limit::window(50, HOUR * 24 * 365), 1)];
    let mut count = 0;
    for _ in 0..20 {
        count += usize::from(take(&backend, 1, &asks).await.admitted);
    }
    assert_eq!(count, 3);
    let denied = take(&backend, 1, &asks).await;
    let levels: Vec<_> = denied.levels.iter().map(|level| level.expect("a level")).collect();
    assert_eq!([97, 0, 47], [0, 1, 2].map(|i: usize| levels[i].remaining));
    assert!(matches!(levels[1].verdict, Verdict::Wait(_)), "{levels:?}");
    assert_eq!([levels[0].verdict, levels[2].verdict], [Verdict::Within; 2]);
}

/// Nor of different keys, wherever they lie.
pub async fn nothing_is_taken_where_another_key_denies<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let few = [Ask { limit: burst(3), cost: 1 }];
    let many = [Ask { limit: burst(100), cost: 1 }];
    let keys: Vec<_> = (1..10).map(key).collect();
    let mut takes = vec![Take { key: key(0), asks: &few }];
    takes.extend(keys.iter().map(|&key| Take { key, asks: &many }));
    let mut count = 0;
    for _ in 0..20 {
        let answer = backend.take(&takes).await.expect("take");
        count += usize::from(answer.admitted);
        // What is told of the others is told as if nobody had asked.
        for told in answer.levels[1..].iter().flatten().filter(|_| !answer.admitted) {
            assert_eq!((told.remaining, told.verdict), (97, Verdict::Within), "{told:?}");
            assert!(told.refilled <= 3 * HOUR && told.refilled + Duration::from_mins(1) > 3 * HOUR, "{told:?}");
        }
    }
    assert_eq!(count, 3);
    for n in 1..10 {
        assert_eq!(level(&harness.peer(), n, burst(100)).await.remaining, 97, "key {n}");
    }
}

/// One unit every interval.
pub async fn a_rate_refills<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let limit = Limit::rate(ms(300), 2);
    let (n, denied) = in_time(async |n| {
        let first = take(&backend, n, &[(limit, 1)]).await;
        let second = take(&backend, n, &[(limit, 1)]).await;
        assert!(first.admitted && second.admitted);
        let third = take(&backend, n, &[(limit, 1)]).await;
        assert!(!third.admitted || third.at.since(first.at) >= ms(300), "{first:?} {third:?}");
        (!third.admitted).then_some((n, third))
    })
    .await;
    assert!(wait(&denied) <= ms(300), "{denied:?}");
    harness.pass(wait(&denied)).await;
    assert!(admitted(&backend, n, limit).await, "the wait was the truth");
    harness.pass(ms(1200)).await;
    assert!(level(&backend, n, limit).await.refilled.is_zero());
    assert_eq!(count(&backend, n, limit, 2).await, 2, "a pause does not save up more than the burst");
}

/// The next window has its own.
pub async fn a_window_begins_anew<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let limit = Limit::window(2, ms(400));
    for _ in 0..3 {
        // To the beginning of a window, so that the attempts lie in one.
        let into = backend.now().as_micros() / 1000 % 400;
        harness.pass(ms(400 - into)).await;
        let first = take(&backend, 1, &[(limit, 2)]).await;
        let second = take(&backend, 1, &[(limit, 1)]).await;
        assert!(first.admitted, "{first:?}");
        let window = |taken: &Taken| taken.at.as_micros() / 400_000;
        assert_eq!(second.admitted, window(&first) != window(&second));
    }
}

/// It tells so, instead of a time.
pub async fn what_costs_more_than_there_ever_is_is_never_admitted<H: Harness>(harness: &H) {
    let backend = harness.backend();
    for (n, limit) in [(1, burst(5)), (2, Limit::window(5, HOUR)), (3, burst(0))] {
        let denied = take(&backend, n, &[(limit, 6)]).await;
        assert!(!denied.admitted);
        assert_eq!(denied.levels[0].map(|level| level.verdict), Some(Verdict::Never));
        let largest = take(&backend, n, &[(limit, u32::MAX)]).await;
        assert_eq!(largest.levels[0].map(|level| level.verdict), Some(Verdict::Never));
    }
    assert_eq!(level(&backend, 1, burst(5)).await.remaining, 5);
}

/// And takes nothing, whatever the level.
pub async fn a_cost_of_nothing_tells_the_level<H: Harness>(harness: &H) {
    let backend = harness.backend();
    for left in (0..4).rev() {
        assert!(take(&backend, 1, &[(burst(4), 1)]).await.admitted);
        let told = level(&harness.peer(), 1, burst(4)).await;
        assert_eq!(told.remaining, left);
        let used = HOUR * u32::try_from(4 - left).expect("a small number");
        assert!(told.refilled <= used && told.refilled + Duration::from_mins(1) > used, "{told:?}");
        assert_eq!(told.verdict, Verdict::Within);
    }
}

/// Costs add up.
pub async fn a_cost_is_taken_whole_or_not_at_all<H: Harness>(harness: &H) {
    let backend = harness.backend();
    assert!(take(&backend, 1, &[(burst(10), 7)]).await.admitted);
    assert!(!take(&backend, 1, &[(burst(10), 4)]).await.admitted);
    assert!(take(&backend, 1, &[(burst(10), 3)]).await.admitted);
    assert!(!admitted(&backend, 1, burst(10)).await);
}

/// At once, in the process that has given it back.
pub async fn what_is_given_back_can_be_taken_again<H: Harness>(harness: &H) {
    let backend = harness.backend();
    for (n, limit) in [(1, burst(3)), (2, Limit::window(3, HOUR * 24 * 365))] {
        let taken = take(&backend, n, &[(limit, 2)]).await;
        assert!(admitted(&backend, n, limit).await);
        assert!(!admitted(&backend, n, limit).await);
        settle(&backend, n, taken.at, limit, -2).await;
        assert_eq!(count(&backend, n, limit, 5).await, 2);
    }
    // Nobody gets more than all.
    let taken = take(&backend, 3, &[(burst(3), 1)]).await;
    settle(&backend, 3, taken.at, burst(3), -100).await;
    assert_eq!(count(&backend, 3, burst(3), 10).await, 3);
}

/// It would be there twice.
pub async fn what_has_refilled_is_not_given_back<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let limit = Limit::rate(ms(400), 2);
    let taken = take(&backend, 1, &[(limit, 1)]).await;
    harness.pass(ms(450)).await;
    // Full again by now.
    assert_eq!(count(&backend, 1, limit, 2).await, 2);
    let level = async || {
        let taken = take(&backend, 1, &[(limit, 0)]).await;
        (taken.at, taken.levels[0].expect("a level").refilled)
    };
    let (from, before) = level().await;
    settle(&backend, 1, taken.at, limit, -1).await;
    let (to, after) = level().await;
    assert!(after + to.since(from) + ms(399) > before, "{before:?} {after:?}");
}

/// As far as the overdraft goes.
pub async fn a_charge_counts_beyond_what_is_there<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let limit = Limit::rate(HOUR, 2).overdraft(3);
    let taken = take(&backend, 1, &[(limit, 1)]).await;
    settle(&backend, 1, taken.at, limit, 100).await;
    let denied = take(&backend, 1, &[(limit, 1)]).await;
    let wait = wait(&denied);
    assert!(wait <= HOUR * 4 && wait + Duration::from_mins(1) > HOUR * 4, "five units are due: {wait:?}");
    // A charge for a key that took nothing counts as well.
    settle(&backend, 2, taken.at, burst(2), 2).await;
    assert!(!admitted(&backend, 2, burst(2)).await);
}

/// Whatever it costs, and also where a process remembers what it was told.
pub async fn a_denial_tells_the_wait_for_what_was_asked<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let limit = Limit::rate(HOUR, 10).overdraft(20);
    let taken = take(&backend, 1, &[(limit, 10)]).await;
    let expect = async |cost, hours| {
        let wait = wait(&take(&backend, 1, &[(limit, cost)]).await);
        assert!(wait <= HOUR * hours && wait + Duration::from_mins(1) > HOUR * hours, "{cost}: {wait:?}");
    };
    expect(1, 1).await;
    expect(5, 5).await;
    expect(1, 1).await;
    assert_eq!(take(&backend, 1, &[(limit, 11)]).await.levels[0].map(|level| level.verdict), Some(Verdict::Never));
    settle(&backend, 1, taken.at, limit, 7).await;
    expect(1, 8).await;
}

/// Whatever they are called.
pub async fn keys_do_not_know_of_each_other<H: Harness>(harness: &H) {
    let backend = harness.backend();
    for n in 0..50 {
        assert_eq!(count(&backend, n, burst(2), 3).await, 2, "key {n}");
    }
}

/// Counters belong to a key; another number of them is another use of it.
pub async fn other_counters_under_a_key_begin_anew<H: Harness>(harness: &H) {
    let backend = harness.backend();
    assert_eq!(count(&backend, 1, burst(2), 3).await, 2);
    assert!(take(&backend, 1, &[(burst(2), 1), (burst(2), 1)]).await.admitted);
}

/// What was used of the higher one does not count for longer than the lower one takes.
pub async fn a_limit_that_was_lowered_heals<H: Harness>(harness: &H) {
    let backend = harness.backend();
    assert_eq!(count(&backend, 1, burst(100), 100).await, 100);
    let lower = Limit::rate(ms(200), 1);
    let denied = take(&backend, 1, &[(lower, 1)]).await;
    assert!(wait(&denied) <= ms(200), "{denied:?}");
    harness.pass(ms(250)).await;
    assert!(admitted(&backend, 1, lower).await);
    // A higher one is there at once.
    assert!(admitted(&backend, 1, burst(100)).await);
}

/// Never denies because of it.
pub async fn a_store_that_forgets_admits<H: Harness>(harness: &H) {
    let backend = harness.backend();
    let taken = take(&backend, 1, &[(burst(2), 2)]).await;
    assert!(taken.admitted);
    harness.lose(Loss::Everything).await;
    assert!(take(&backend, 1, &[(burst(2), 2)]).await.admitted);
    harness.lose(Loss::Everything).await;
    settle(&backend, 1, taken.at, burst(2), -2).await;
    assert_eq!(count(&backend, 1, burst(2), 5).await, 2);
}
