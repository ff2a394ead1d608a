//! Look-ups of the same moment go to Redis together, and that changes nothing else.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    future::{join, join_all},
    poll,
};
use tower_gatehouse::{
    Backend, Tag,
    backend::{BackendError, Commit, Committed, Entry, Found, Lookup, Mode, PrimaryKey, Scope, Variant, VarySpec},
};

use crate::{
    redis::PATIENT,
    support::{RedisCluster, RedisServer},
};

async fn connect(url: &str) -> Backend {
    let backend = Backend::redis(url).operation_timeout(PATIENT).limit_timeout(PATIENT);
    backend.connect().await.expect("a connection")
}

/// All of one bucket, also where there are many.
fn page(n: u8) -> PrimaryKey {
    let mut bytes = [0; 16];
    bytes[15] = n;
    PrimaryKey::from_bytes(bytes)
}

async fn try_look(backend: &Backend, n: u8) -> Result<Lookup, BackendError> {
    backend.lookup(&page(n), &|_: &VarySpec| Variant(None)).await
}

async fn look(backend: &Backend, n: u8) -> Option<Arc<Entry>> {
    let lookup = try_look(backend, n).await.expect("a look-up");
    lookup.found.map(|Found { entry, .. }| entry)
}

async fn fill(backend: &Backend, n: u8, tags: u8, body: Vec<u8>) {
    let ticket = backend.ticket(&page(n)).await.expect("a ticket");
    let later = backend.now().plus(Duration::from_mins(5));
    let entry = Entry::builder(ticket).fresh_until(later).keep_until(later);
    let tags = (0..tags).map(|tag| Tag::new(format!("{n}-{tag}")).unwrap().digest());
    let entry = entry.tags(tags).head(Bytes::from_static(b"head")).body(body.into()).build();
    let commit = Commit { key: page(n), variant: Variant(None), entry, refresh: None, lease: None };
    assert_eq!(backend.commit(commit).await.expect("a commit"), Committed::Stored);
}

/// What is on page `n`: it is told from all others.
fn content(n: u8) -> Vec<u8> {
    vec![n; 100 + usize::from(n)]
}

#[tokio::test]
async fn many_at_once_are_few_commands_and_each_finds_its_own() {
    let server = RedisServer::start();
    let backend = connect(&server.url()).await;
    for n in 1..=100 {
        fill(&backend, n, n % 4, content(n)).await;
    }
    server.reset_stats();
    // In turns one that all ask for, one that nobody else asks for, and one that is not there.
    let asked = (0..250_u8).map(|n| if n % 5 == 0 { 1 } else { n }).collect::<Vec<_>>();
    let found = join_all(asked.iter().map(|n| look(&backend, *n))).await;
    for (n, found) in asked.iter().zip(found) {
        let expected = (1..=100).contains(n).then(|| content(*n));
        assert_eq!(found.map(|entry| entry.body().to_vec()), expected, "page {n}");
    }
    let commands = server.commandstats().calls("mget");
    assert!((1..=20).contains(&commands), "{commands} commands for 250 look-ups");
}

#[tokio::test]
async fn who_asks_the_same_has_the_same_answer_and_it_is_sent_once() {
    let server = RedisServer::start();
    let backend = connect(&server.url()).await;
    fill(&backend, 1, 2, vec![b'x'; 64 * 1024]).await;
    server.reset_stats();
    let found = join_all((0..50).map(|_| look(&backend, 1))).await;
    let entries: Vec<_> = found.into_iter().map(|entry| entry.expect("a hit")).collect();
    assert_eq!(server.commandstats().calls("mget"), 2, "the first, and all that came while it was under way");
    assert!(entries[2..].iter().all(|entry| Arc::ptr_eq(entry, &entries[1])));
}

#[tokio::test]
async fn a_look_up_that_begins_after_an_invalidation_has_no_part_in_one_from_before() {
    let server = RedisServer::start();
    let backend = connect(&server.url()).await;
    for round in 0..20 {
        fill(&backend, 1, 1, content(round)).await;
        let mut before = pin!(look(&backend, 1));
        let mut with_it = pin!(look(&backend, 1));
        assert!(poll!(&mut before).is_pending() && poll!(&mut with_it).is_pending());
        backend.invalidate(Scope::Keys(&[page(1)]), Mode::Hard).await.expect("an invalidation");
        let after = join_all((0..10).map(|_| look(&backend, 1))).await;
        assert!(after.iter().all(Option::is_none), "round {round}");
        join(before, with_it).await;
    }
}

#[tokio::test]
async fn long_entries_are_not_kept_waiting_for_each_other() {
    let server = RedisServer::start();
    let backend = connect(&server.url()).await;
    for n in 0..20 {
        fill(&backend, n, 0, vec![n; 512 * 1024]).await;
        assert!(look(&backend, n).await.is_some(), "now it is known how long entries are");
    }
    server.reset_stats();
    let found = join_all((0..20).map(|n| look(&backend, n))).await;
    assert!(found.iter().zip(0..).all(|(entry, n)| entry.as_ref().is_some_and(|entry| entry.body()[0] == n)));
    assert_eq!(server.commandstats().calls("mget"), 20);
}

#[tokio::test]
async fn who_came_first_may_go_and_the_others_are_asked_for() {
    let server = RedisServer::start();
    let backend = connect(&server.url()).await;
    for n in 1..=3 {
        fill(&backend, n, 0, content(n)).await;
    }
    let (mut under_way, mut last) = (pin!(look(&backend, 1)), pin!(look(&backend, 3)));
    let mut stays = pin!(look(&backend, 2));
    {
        let (mut first, mut alike) = (pin!(look(&backend, 2)), pin!(look(&backend, 3)));
        assert!(poll!(&mut under_way).is_pending());
        assert!(poll!(&mut first).is_pending() && poll!(&mut stays).is_pending());
        assert!(poll!(&mut alike).is_pending() && poll!(&mut last).is_pending());
    }
    let rest = async { (under_way.await, stays.await, last.await) };
    let rest = tokio::time::timeout(Duration::from_secs(20), rest).await.expect("nobody waits for who has gone");
    assert!(matches!(rest, (Some(_), Some(_), Some(_))));
}

#[tokio::test]
async fn nobody_waits_for_one_that_is_not_polled_any_more() {
    let server = RedisServer::start();
    let backend = connect(&server.url()).await;
    fill(&backend, 1, 0, content(1)).await;
    let (mut under_way, mut stalled) = (pin!(look(&backend, 1)), pin!(look(&backend, 1)));
    assert!(poll!(&mut under_way).is_pending() && poll!(&mut stalled).is_pending());
    let others = join_all((0..10).map(|_| look(&backend, 1)));
    let others = tokio::time::timeout(Duration::from_secs(20), others).await.expect("they do not wait");
    assert!(others.iter().all(Option::is_some));
    assert!(stalled.await.is_some());
}

#[tokio::test]
async fn an_outage_is_told_to_each() {
    let mut server = RedisServer::start();
    let backend = Backend::redis(server.url()).operation_timeout(Duration::from_secs(1)).connect().await.unwrap();
    server.kill();
    let answers = join_all((0..50).map(|n| try_look(&backend, n % 10)));
    let answers = tokio::time::timeout(Duration::from_mins(1), answers).await;
    for answer in answers.expect("all are answered") {
        assert!(answer.unwrap_err().is_outage());
    }
}

#[tokio::test]
async fn while_a_slot_is_being_moved_each_is_asked_for_where_it_is() {
    let cluster = RedisCluster::start();
    let backend = connect(&cluster.url()).await;
    for n in 0..40 {
        fill(&backend, n, 0, content(n)).await;
    }
    let name = cluster.nodes()[..3].iter().flat_map(RedisServer::keys).find(|name| name.contains("}:e:")).unwrap();
    let to = (cluster.owner(&name) + 1) % 3;
    let (slot, from) = cluster.begin_move(&name, to);
    // In turns one that is there and one that is not, of which it cannot be known where it would be.
    let looks = || join_all((0..80).map(|n| try_look(&backend, if n % 2 == 0 { n / 2 } else { 100 + n })));
    let all_found = |looked: Vec<Result<Lookup, BackendError>>| {
        for (n, looked) in (0..40).zip(looked.into_iter().step_by(2)) {
            assert_eq!(looked.expect("an answer").found.expect("a hit").entry.body(), &content(n));
        }
    };
    all_found(looks().await);
    cluster.finish_move(slot, from, to);
    all_found(looks().await);
}
