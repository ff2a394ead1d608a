//! Takes of the same moment go to Redis together, and that changes nothing else.

use std::{pin::pin, time::Duration};

use futures_util::{future::join_all, poll};
use tower_gatehouse::{
    Backend,
    backend::{Ask, BackendError, Limit, LimitKey, Take},
};

use crate::{
    patient,
    support::{RedisCluster, RedisServer},
};

/// All of one bucket, also where there are many.
fn key(n: u8) -> LimitKey {
    let mut bytes = [0; 16];
    bytes[15] = n;
    LimitKey::from_bytes(bytes)
}

async fn take(backend: &Backend, n: u8, burst: u32) -> Result<bool, BackendError> {
    let asks = [Ask { limit: Limit::rate(Duration::from_hours(1), burst), cost: 1 }];
    backend.take(&[Take { key: key(n), asks: &asks }]).await.map(|taken| taken.admitted)
}

async fn admits(backend: &Backend, n: u8, burst: u32) -> bool {
    take(backend, n, burst).await.unwrap()
}

#[tokio::test]
async fn many_at_once_are_few_scripts_and_each_is_decided_by_itself() {
    let server = RedisServer::start();
    let backend = patient(server.url()).await;
    assert!(admits(&backend, 255, 1).await); // loads the script
    server.reset_stats();
    // In turns one of a key that is used up soon, and one of a key that nobody else has.
    let takes = (0..200_u8).map(|n| if n % 2 == 0 { (0, 7) } else { (n, 1) });
    let admitted = join_all(takes.map(|(n, burst)| admits(&backend, n, burst))).await;
    assert_eq!(admitted.iter().step_by(2).filter(|admitted| **admitted).count(), 7);
    assert!(admitted[..14].iter().all(|admitted| *admitted), "in the order in which they came: {admitted:?}");
    assert!(admitted.iter().skip(1).step_by(2).all(|admitted| *admitted), "{admitted:?}");
    let scripts = server.commandstats().calls("evalsha");
    assert!((1..=20).contains(&scripts), "{scripts} scripts for 200 takes");
    assert!(!admits(&backend, 1, 1).await, "it was counted");
}

#[tokio::test]
async fn tasks_on_many_threads_are_counted_exactly() {
    const LIMIT: u32 = 500;
    let server = RedisServer::start();
    let backend = patient(server.url()).await;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            let backend = backend.clone();
            runtime.spawn(async move {
                let mut admitted = 0;
                for _ in 0..25 {
                    admitted += u32::from(admits(&backend, 1, LIMIT).await);
                    tokio::task::yield_now().await;
                }
                admitted
            })
        })
        .collect();
    let admitted: u32 = join_all(tasks).await.into_iter().map(|task| task.unwrap()).sum();
    assert_eq!(admitted, LIMIT);
    runtime.shutdown_background();
}

#[tokio::test]
async fn who_gathered_the_others_may_go_and_they_are_asked_for() {
    let server = RedisServer::start();
    let backend = patient(server.url()).await;
    let (mut under_way, mut last) = (pin!(admits(&backend, 1, 1)), pin!(admits(&backend, 3, 1)));
    {
        let mut first = pin!(admits(&backend, 2, 1));
        assert!(poll!(&mut under_way).is_pending());
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut last).is_pending());
    }
    let both = async { (under_way.await, last.await) };
    let both = tokio::time::timeout(Duration::from_secs(20), both).await;
    assert_eq!(both, Ok((true, true)), "nobody waits for who has gone");
}

#[tokio::test]
async fn an_outage_is_told_to_each() {
    let mut server = RedisServer::start();
    let second = Duration::from_secs(1);
    let backend = Backend::redis(server.url()).operation_timeout(30 * second).limit_timeout(second);
    let backend = backend.connect().await.unwrap();
    server.kill();
    let answers = tokio::time::timeout(Duration::from_mins(1), join_all((0..50).map(|n| take(&backend, n, 1)))).await;
    for answer in answers.expect("all are answered") {
        assert!(answer.unwrap_err().is_outage());
    }
}

#[tokio::test]
async fn while_a_slot_is_being_moved_each_is_asked_for_where_it_is() {
    let cluster = RedisCluster::start();
    let backend = patient(cluster.url()).await;
    for n in 0..20 {
        assert!(admits(&backend, n, 2).await);
    }
    let mut names = cluster.nodes()[..3].iter().flat_map(RedisServer::keys);
    let name = names.find(|name| name.contains(":n:")).unwrap();
    let to = (cluster.owner(&name) + 1) % 3;
    let (slot, from) = cluster.begin_move(&name, to);
    // Half of them are still with the old master, half are with the new one as soon as they are written.
    let takes = || join_all((0..40).map(|n| take(&backend, n, 2)));
    for admitted in takes().await {
        assert_eq!(admitted.ok(), Some(true));
    }
    cluster.finish_move(slot, from, to);
    let admitted = takes().await.into_iter().map(|admitted| admitted.unwrap());
    let of_new = admitted.enumerate().filter(|(_, admitted)| *admitted).map(|(n, _)| n).collect::<Vec<_>>();
    assert_eq!(of_new, (20..40).collect::<Vec<_>>(), "the others had taken both");
}
