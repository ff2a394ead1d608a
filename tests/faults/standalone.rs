//! One Redis.

use std::time::Duration;

use tower_gatehouse::{
    Backend,
    backend::{ErrorKind, PrimaryKey},
};

use crate::{
    counts::Counts,
    fleet::PATIENT,
    load::{Forgets, Load},
    proxy::Proxy,
    support::{RedisServer, until},
};

/// Rows 1 and 6: killed, away for a second, and restarted without its data and its scripts. The cart and the sessions
/// are gone with a server that saves nothing; what is acknowledged after it is back, is there.
#[tokio::test(flavor = "multi_thread")]
async fn redis_is_killed_and_restarted() {
    let mut server = RedisServer::start();
    let mut load = Load::start(&server.url(), &[]).await;
    load.fault(Forgets::Everything);
    server.kill();
    // An invalidation is an error while it is away.
    load.until_refused(1).await;
    load.run(1000).await;
    server.restart();
    load.recovered().await;
    load.calm();
    load.recovered().await;
    load.assert_bounded();
    let (_, lost) = load.end("killed").await;
    assert!(lost > 0, "the row says that it is lost");
}

/// Row 2.
#[tokio::test(flavor = "multi_thread")]
async fn redis_is_frozen() {
    let server = RedisServer::start();
    let load = Load::start(&server.url(), &[]).await;
    for _ in 0..2 {
        server.pause();
        load.run(1500).await;
        server.resume();
        load.recovered().await;
    }
    load.assert_bounded();
    load.end("frozen").await;
}

/// Row 3.
#[tokio::test(flavor = "multi_thread")]
async fn redis_is_slow_or_takes_everything_and_answers_nothing() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let load = Load::start(&proxy.url(), &[]).await;
    proxy.slow();
    load.run(1500).await;
    proxy.fine();
    load.recovered().await;
    proxy.silent();
    load.run(1500).await;
    proxy.fine();
    load.recovered().await;
    load.assert_bounded();
    load.end("slow").await;
}

/// The connection stays open and leads nowhere, as when a firewall forgets it. Who asks rarely finds that out, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_leads_nowhere_is_made_anew_after_a_single_call() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    // Silence of twenty times as much, or of five seconds.
    let timeout = Duration::from_millis(100);
    let backend = Backend::redis(proxy.url()).operation_timeout(timeout).connect().await.expect("a connection");
    let key = PrimaryKey::from_bytes([1; 16]);
    let ask = async || backend.ticket(&key).await.map(drop).map_err(|error| error.kind());
    until("it answers", || async { ask().await.is_ok() }).await;
    let before = server.clients();
    proxy.strand();
    assert_eq!(ask().await, Err(ErrorKind::Timeout));
    until("it connects anew", || async { server.clients().iter().any(|id| !before.contains(id)) }).await;
    until("it answers again", || async { ask().await.is_ok() }).await;
}

/// Row 4.
#[tokio::test(flavor = "multi_thread")]
async fn redis_is_full() {
    let server = RedisServer::builder().config("maxmemory-policy noeviction").start();
    let load = Load::start(&server.url(), PATIENT).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    load.run(200).await;
    let refused = Counts::of(&load.counts().refused);
    load.run(1000).await;
    assert_eq!(Counts::of(&load.counts().refused), refused, "invalidations work");
    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    load.recovered().await;
    load.assert_bounded();
    load.end("full").await;
}

/// Row 5: it becomes a replica of a server that it cannot reach, and later a master again.
#[tokio::test(flavor = "multi_thread")]
async fn redis_becomes_read_only() {
    let (server, other) = (RedisServer::start(), RedisServer::start());
    let load = Load::start(&server.url(), &[]).await;
    other.pause();
    server.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
    // An error, not a silent success.
    load.until_refused(3).await;
    load.run(1000).await;
    server.command(&["REPLICAOF", "NO", "ONE"]);
    load.recovered().await;
    other.resume();
    load.assert_bounded();
    load.end("read-only").await;
}

/// Row 6.
#[tokio::test(flavor = "multi_thread")]
async fn scripts_are_flushed() {
    let server = RedisServer::start();
    let load = Load::start(&server.url(), PATIENT).await;
    for _ in 0..20 {
        server.command(&["SCRIPT", "FLUSH"]);
        load.run(50).await;
    }
    load.recovered().await;
    assert_eq!(Counts::of(&load.counts().refused), 0, "{}", load.counts());
    load.end("scripts flushed").await;
}

/// Row 8: values of another type, cut, damaged, of another version.
#[tokio::test(flavor = "multi_thread")]
async fn values_are_damaged() {
    let server = RedisServer::start();
    let load = Load::start(&server.url(), PATIENT).await;
    for round in 0..40_usize {
        for (n, key) in server.keys().into_iter().filter(|key| !is_kept(key)).enumerate() {
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
        load.run(20).await;
    }
    load.recovered().await;
    load.end("damaged").await;
}

/// Sessions, the maps of users, and the results of what was done to them.
fn is_kept(key: &str) -> bool {
    let kind = key.split_once("}:").map_or("", |(_, rest)| rest.split(':').next().unwrap_or_default());
    !matches!(kind, "c" | "p" | "t" | "e" | "l" | "lr" | "h" | "hr" | "s" | "a")
}

/// Row 9: bookkeeping of each kind vanishes under load, and all of it.
#[tokio::test(flavor = "multi_thread")]
async fn bookkeeping_is_evicted() {
    let server = RedisServer::start();
    let load = Load::start(&server.url(), PATIENT).await;
    for round in 0..60 {
        let kind = ["c", "p", "t", "e", "l", "s"][round % 6];
        for key in server.keys().into_iter().filter(|key| key.contains(&format!("}}:{kind}"))) {
            if !is_kept(&key) {
                server.command(&["DEL", &key]);
            }
        }
        load.run(15).await;
    }
    load.recovered().await;
    assert_eq!(Counts::of(&load.counts().refused), 0, "{}", load.counts());
    load.end("evicted").await;
}

/// Row 10: everything is flushed in the middle of fills, again and again; the cart and the sessions go, too.
#[tokio::test(flavor = "multi_thread")]
async fn everything_is_flushed() {
    let server = RedisServer::start();
    let mut load = Load::start(&server.url(), PATIENT).await;
    load.fault(Forgets::Everything);
    for _ in 0..30 {
        server.command(&["FLUSHALL"]);
        load.run(30).await;
    }
    load.recovered().await;
    load.calm();
    load.recovered().await;
    assert_eq!(Counts::of(&load.counts().refused), 0, "{}", load.counts());
    let (_, lost) = load.end("flushed").await;
    assert!(lost > 0, "the row says that it is lost");
}

/// Rows 15 and 32: connections are cut, those that hear wake-ups too.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_cut() {
    let server = RedisServer::start();
    let load = Load::start(&server.url(), &[]).await;
    for _ in 0..15 {
        server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        load.run(100).await;
    }
    load.recovered().await;
    load.assert_bounded();
    load.end("cut").await;
}

/// Row 26: another version of the crate writes what this one does not know, with a newer version of the layout.
#[tokio::test(flavor = "multi_thread")]
async fn another_version_writes_to_the_same_redis() {
    let server = RedisServer::start();
    let load = Load::start(&server.url(), PATIENT).await;
    for _ in 0..30 {
        for key in server.keys().into_iter().filter(|key| key.contains("}:e:")) {
            // The first byte of an entry is its version.
            let _ = server.try_command(&[&b"SETRANGE"[..], key.as_bytes(), b"0", b"\x02"]);
        }
        load.run(30).await;
    }
    load.recovered().await;
    load.end("mixed versions").await;
}
