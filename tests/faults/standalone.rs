//! One Redis.

use std::{sync::Arc, time::Duration};

use tower_gatehouse::Backend;

use crate::{
    load::{Counts, Load, TIMEOUT},
    proxy::Proxy,
    support::RedisServer,
};

const MS: Duration = Duration::from_millis(1);
const LEASE: Duration = Duration::from_secs(3);

async fn load(server: &RedisServer) -> Load {
    Load::start(|| Backend::redis(server.url())).await
}

/// The longest that a request waits: for the lease of a process that could not give it back (3 s, until it is taken
/// over), and two timeouts (a look-up and, until the breaker opens, a lease), five times over for a busy machine.
fn assert_bounded(counts: &Arc<Counts>) {
    let most = u64::try_from((LEASE + 10 * TIMEOUT).as_millis()).unwrap();
    assert!(Counts::of(&counts.slowest) < most, "{counts}");
}

/// Rows 1 and 6: killed, away for a second, and restarted without its data and its scripts.
#[tokio::test(flavor = "multi_thread")]
async fn redis_is_killed_and_restarted() {
    let mut server = RedisServer::start();
    let load = load(&server).await;
    server.kill();
    // An invalidation is an error while it is away.
    load.until_refused(1).await;
    load.run(1000 * MS).await;
    server.restart();
    load.recovered().await;
    // The cart is gone with the server that saves nothing.
    assert_bounded(&load.end("killed").await);
}

/// Row 2.
#[tokio::test(flavor = "multi_thread")]
async fn redis_is_frozen() {
    let server = RedisServer::start();
    let load = load(&server).await;
    for _ in 0..2 {
        server.pause();
        load.run(1500 * MS).await;
        server.resume();
        load.recovered().await;
    }
    assert_bounded(&load.end_without_loss("frozen").await);
}

/// Row 3.
#[tokio::test(flavor = "multi_thread")]
async fn redis_is_slow_or_takes_everything_and_answers_nothing() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let load = Load::start(|| Backend::redis(proxy.url())).await;
    proxy.slow();
    load.run(1500 * MS).await;
    proxy.fine();
    load.recovered().await;
    proxy.silent();
    load.run(1500 * MS).await;
    proxy.fine();
    load.recovered().await;
    assert_bounded(&load.end_without_loss("slow").await);
}

/// Row 4.
#[tokio::test(flavor = "multi_thread")]
async fn redis_is_full() {
    let server = RedisServer::builder().config("maxmemory-policy noeviction").start();
    let load = load(&server).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    load.run(200 * MS).await;
    let refused = Counts::of(&load.counts().refused);
    load.run(1000 * MS).await;
    assert_eq!(Counts::of(&load.counts().refused), refused, "invalidations work");
    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    load.recovered().await;
    assert_bounded(&load.end_without_loss("full").await);
}

/// Row 5: it becomes a replica of a server that it cannot reach, and later a master again.
#[tokio::test(flavor = "multi_thread")]
async fn redis_becomes_read_only() {
    let (server, other) = (RedisServer::start(), RedisServer::start());
    let load = load(&server).await;
    other.pause();
    server.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
    // An error, not a silent success.
    load.until_refused(3).await;
    load.run(1000 * MS).await;
    server.command(&["REPLICAOF", "NO", "ONE"]);
    load.recovered().await;
    other.resume();
    assert_bounded(&load.end_without_loss("read-only").await);
}

/// Row 6.
#[tokio::test(flavor = "multi_thread")]
async fn scripts_are_flushed() {
    let server = RedisServer::start();
    let load = load(&server).await;
    for _ in 0..20 {
        server.command(&["SCRIPT", "FLUSH"]);
        load.run(50 * MS).await;
    }
    load.recovered().await;
    let counts = load.end_without_loss("scripts flushed").await;
    assert_eq!(Counts::of(&counts.refused), 0, "{counts}");
}

/// Row 8: values of another type, cut, damaged, of another version.
#[tokio::test(flavor = "multi_thread")]
async fn values_are_damaged() {
    let server = RedisServer::start();
    let load = load(&server).await;
    for round in 0..40_usize {
        for (n, key) in server.keys().into_iter().filter(|key| !is_session(key)).enumerate() {
            match (round + n) % 4 {
                0 => drop(server.try_command(&["SETRANGE", &key, "0", "\u{7f}"])),
                1 => drop(server.try_command(&["SET", &key, "cut", "KEEPTTL"])),
                2 if round % 8 == 0 => {
                    drop(server.try_command(&["DEL", &key]));
                    drop(server.try_command(&["SADD", &key, "a", "set"]));
                }
                _ => {}
            }
        }
        load.run(20 * MS).await;
    }
    load.recovered().await;
    load.end_without_loss("damaged").await;
}

/// The maps of users, and the results of what was done to them.
fn is_session(key: &str) -> bool {
    let kind = key.split_once("}:").map_or("", |(_, rest)| rest.split(':').next().unwrap_or_default());
    !matches!(kind, "c" | "p" | "t" | "e" | "l" | "lr" | "h" | "hr" | "s" | "a")
}

/// Row 9: bookkeeping of each kind vanishes under load, and all of it.
#[tokio::test(flavor = "multi_thread")]
async fn bookkeeping_is_evicted() {
    let server = RedisServer::start();
    let load = load(&server).await;
    for round in 0..60 {
        let kind = ["c", "p", "t", "e", "l", "s"][round % 6];
        for key in server.keys().into_iter().filter(|key| key.contains(&format!("}}:{kind}"))) {
            if !is_session(&key) {
                server.command(&["DEL", &key]);
            }
        }
        load.run(15 * MS).await;
    }
    load.recovered().await;
    let counts = load.end_without_loss("evicted").await;
    assert_eq!(Counts::of(&counts.refused), 0, "{counts}");
}

/// Row 10: everything is flushed in the middle of fills, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn everything_is_flushed() {
    let server = RedisServer::start();
    let load = load(&server).await;
    for _ in 0..30 {
        server.command(&["FLUSHALL"]);
        load.run(30 * MS).await;
    }
    load.recovered().await;
    let counts = load.end("flushed").await;
    assert_eq!(Counts::of(&counts.refused), 0, "{counts}");
}

/// Rows 15 and 32: connections are cut, those that hear wake-ups too.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_cut() {
    let server = RedisServer::start();
    let load = load(&server).await;
    for _ in 0..15 {
        server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        load.run(100 * MS).await;
    }
    load.recovered().await;
    assert_bounded(&load.end_without_loss("cut").await);
}

/// Row 26: another version of the crate writes what this one does not know, with a newer version of the layout.
#[tokio::test(flavor = "multi_thread")]
async fn another_version_writes_to_the_same_redis() {
    let server = RedisServer::start();
    let load = load(&server).await;
    for _ in 0..30 {
        for key in server.keys().into_iter().filter(|key| key.contains("}:e:")) {
            // The first byte of an entry is its version.
            let _ = server.try_command(&[&b"SETRANGE"[..], key.as_bytes(), b"0", b"\x02"]);
        }
        load.run(30 * MS).await;
    }
    load.recovered().await;
    load.end_without_loss("mixed versions").await;
}
