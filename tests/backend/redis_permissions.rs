//! The permissions that are documented are enough: users who have these and no others.

use std::time::Duration;

use tower_gatehouse::{
    Backend,
    backend::{Acquire, Acquired, Credential, LeaseKey, LeaseKind, PrimaryKey, Variant},
};

use crate::{
    redis::PATIENT,
    redis_connect::works,
    redis_replicas::{check, fill, stored},
    support::{RedisCluster, RedisSentinel, RedisServer, until},
};

const DOCUMENTED: &str = include_str!("../../src/backend/redis/permissions.md");

/// What stands in backquotes behind these words.
fn rule(words: &str) -> String {
    let text = DOCUMENTED.replace('\n', " ");
    let (_, rest) = text.split_once(words).unwrap_or_else(|| panic!("{words:?} is not in the documentation"));
    let rule = rest.split('`').nth(1).expect("something in backquotes");
    assert!(rule.starts_with('+'), "{rule}");
    rule.to_owned()
}

fn rules(more: &[&str]) -> String {
    let always = DOCUMENTED.lines().find_map(|line| line.strip_prefix("ACL SETUSER gatehouse on >PASSWORD "));
    let more: Vec<_> = more.iter().map(|words| rule(words)).collect();
    format!("resetchannels -@all {} {}", always.expect("the line to copy"), more.join(" "))
}

#[track_caller]
fn assert_nothing_was_denied(servers: &[RedisServer]) {
    for server in servers {
        let denied = server.command(&["ACL", "LOG"]);
        assert!(denied.array().is_empty(), "{denied:?}");
    }
}

#[tokio::test]
async fn the_permissions_that_are_documented_suffice() {
    let server = RedisServer::builder().user("gatehouse", "secret", &rules(&[])).start();
    works(&Backend::redis(server.url()).connect().await.expect("enough permissions")).await;
    assert_nothing_was_denied(&[server]);
}

#[tokio::test]
async fn those_for_a_database_suffice() {
    let all = rules(&["with a database in the URL"]);
    let users = RedisServer::builder().user("lesser", "secret", &rules(&[])).user("gatehouse", "secret", &all);
    let server = users.start();
    let builder = |user| Backend::redis(format!("redis://{user}:secret@127.0.0.1:{}/3", server.port()));
    assert!(builder("lesser").connect().await.is_err(), "it may not select");
    server.command(&["ACL", "LOG", "RESET"]);
    works(&builder("gatehouse").connect().await.expect("enough permissions")).await;
    assert_nothing_was_denied(&[server]);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_for_a_cluster_suffice_to_read_from_replicas_and_wait_for_them() {
    let all = rules(&["for a Cluster", "with `wait_for_replicas`", "with `read_from_replicas`"]);
    let without = all.replace("+readonly", "");
    assert_ne!(all, without);
    let users = RedisServer::builder().user("lesser", "secret", &without).user("gatehouse", "secret", &all);
    let cluster = RedisCluster::start_with(users);
    let replicas: Vec<_> = cluster.nodes()[3..].iter().collect();
    let builder = |user| Backend::redis(cluster.url()).username(user).password("secret");
    check(builder("gatehouse"), &replicas).await;
    assert_nothing_was_denied(cluster.nodes());

    // Without the one for replicas, everything comes from the masters.
    for replica in &replicas {
        replica.reset_stats();
    }
    let lesser =
        builder("lesser").operation_timeout(PATIENT).read_from_replicas().connect().await.expect("a connection");
    tokio::time::sleep(Duration::from_secs(3)).await;
    for n in 0..20 {
        fill(&lesser, n).await.expect("a commit");
        assert!(stored(&lesser, n).await);
    }
    assert!(replicas.iter().all(|replica| replica.commandstats().calls("mget") == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn those_for_sentinels_suffice_to_follow_a_failover() {
    let servers = RedisServer::builder().user("gatehouse", "secret", &rules(&["with `wait_for_replicas`"]));
    let asking = format!("resetchannels -@all {}", rule("A Sentinel is asked with"));
    let set = RedisSentinel::start_with(servers, &RedisServer::builder().user("asking", "simsim", &asking));
    let asking = || Credential::user("asking", "simsim");
    let builder = || Backend::redis(set.url()).username("gatehouse").password("secret").sentinel_credential(asking());
    let replicas: Vec<_> = (0..3).filter(|index| *index != set.master()).map(|index| &set.servers()[index]).collect();
    check(builder(), &replicas).await;
    let backend = builder().connect().await.expect("a connection");
    set.fail_over();
    until("fills work on the new master", || async { fill(&backend, 1).await.is_ok() && stored(&backend, 1).await })
        .await;
    assert_nothing_was_denied(set.servers());
    assert_nothing_was_denied(set.sentinels());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_subscribe_does_not_wait_for_it_each_time() {
    let timeout = Duration::from_secs(3);
    let rules = format!("{} -ssubscribe", rules(&[]));
    let server = RedisServer::builder().user("gatehouse", "secret", &rules).start();
    let backend = Backend::redis(server.url()).operation_timeout(timeout).connect().await.expect("a connection");
    let start = std::time::Instant::now();
    for n in 0..10 {
        let key = LeaseKey { key: PrimaryKey::from_bytes([n; 16]), variant: Variant(None), kind: LeaseKind::Fill };
        let _waiter = backend.watch(&key);
        let answer = backend.acquire(Acquire { key, ttl: timeout, since: 0, tags: &[] }).await.expect("an answer");
        assert!(matches!(answer, Acquired::Granted(_)), "{answer:?}");
    }
    assert!(start.elapsed() < 5 * timeout, "{:?}", start.elapsed());
}
