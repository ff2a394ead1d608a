//! The servers that the other tests stand on do what those tests take for granted.

mod support;

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use hyper::Request;
use hyper::body::Bytes;
use support::http::{get, send};
use support::{Answer, Gate, Gateway, Origin, RedisCluster, RedisSentinel, RedisServer, RedisTls, Reply, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_server_answers_counts_commands_and_shows_them() {
    let server = RedisServer::start();
    let mut monitor = server.monitor();
    server.reset_stats();
    server.command(&["SET", "key", "va\r\nlue"]);
    assert_eq!(server.command(&["GET", "key"]).bytes(), Some(&b"va\r\nlue"[..]));
    assert!(server.command(&["GET", "none"]).is_nil());
    assert_eq!(server.command(&["EVAL", "return {1, 'a', redis.call('INCR', KEYS[1])}", "1", "n"]).array().len(), 3);
    assert!(
        matches!(server.try_command(&["INCR", "key"]), Ok(Reply::Error(error)) if error.contains("not an integer"))
    );
    let stats = server.commandstats();
    assert_eq!(stats.calls("get"), 2);
    assert_eq!(stats.data().into_iter().collect::<Vec<_>>(), [("eval", 1), ("get", 2), ("incr", 2), ("set", 1)]);
    let lines = monitor.lines(&server);
    assert!(lines.iter().any(|line| line.contains(r#""GET" "none""#)), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("lua") && line.contains("INCR")), "{lines:?}");
    assert!(monitor.lines(&server).is_empty());
    assert_eq!(server.keys(), ["key", "n"]);
}

#[test]
fn a_paused_server_is_silent_and_a_killed_one_restarts_empty_on_its_port() {
    let mut server = RedisServer::start();
    let port = server.port();
    server.command(&["SET", "key", "value"]);
    server.pause();
    let mut raw = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the kernel accepts for it");
    raw.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    std::io::Write::write_all(&mut raw, b"PING\r\n").unwrap();
    let mut byte = [0];
    assert!(raw.read(&mut byte).is_err());
    server.resume();
    raw.set_read_timeout(Some(LIMIT)).unwrap();
    raw.read_exact(&mut byte).expect("it answers now");

    server.kill();
    assert!(!server.is_running());
    assert!(server.try_command(&["PING"]).is_err());
    server.restart();
    assert_eq!(server.port(), port);
    assert!(server.command(&["GET", "key"]).is_nil());
}

#[test]
fn passwords_users_and_memory_limits_are_those_of_the_builder() {
    let server = RedisServer::builder()
        .password("secret")
        .user("shop", "sesame", "~shop:* +@all")
        .maxmemory(4_000_000, "noeviction")
        .start();
    assert_eq!(server.url(), format!("redis://shop:sesame@127.0.0.1:{}", server.port()));
    let mut stranger = support::Connection::open(server.port()).unwrap();
    assert!(matches!(stranger.call(&["PING"]).unwrap(), Reply::Error(error) if error.starts_with("NOAUTH")));
    let mut shop = support::Connection::open(server.port()).unwrap();
    shop.call(&["AUTH", "shop", "sesame"]).unwrap();
    assert!(matches!(shop.call(&["GET", "other"]).unwrap(), Reply::Error(error) if error.starts_with("NOPERM")));
    assert_eq!(shop.call(&["GET", "shop:1"]).unwrap(), Reply::Nil);
    let large = "x".repeat(100_000);
    let full = (0..100).find_map(|n| match server.try_command(&["SET", &n.to_string(), &large]).unwrap() {
        Reply::Error(error) => Some(error),
        _ => None,
    });
    assert!(full.is_some_and(|error| error.starts_with("OOM")));
    assert_eq!(server.command(&["GET", "0"]).text(), large, "what is there can be read");
}

#[test]
fn a_server_with_a_private_authority_speaks_tls() {
    let redis = RedisTls::start();
    assert_eq!(redis.url(), format!("rediss://127.0.0.1:{}", redis.port()));
    assert!(redis.ca_pem().starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(redis.server().command(&["INFO", "server"]).text().contains("redis_version"));
    // A plain text client is answered with a TLS alert (record type 21), or cut off.
    let mut raw = std::net::TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    raw.set_read_timeout(Some(LIMIT)).unwrap();
    std::io::Write::write_all(&mut raw, b"PING\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = raw.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
}

#[test]
fn a_cluster_serves_all_slots_moves_one_and_fails_over() {
    let mut cluster = RedisCluster::start();
    for key in ["a", "b", "c", "{tag}x"] {
        cluster.command_at(key, &["SET", key, "1"]);
        assert!(cluster.owner(key) < 3);
    }
    wait_until("four on masters, four on their replicas", LIMIT, || cluster.calls("set") == 8);

    let (from, to) = (cluster.owner("a"), (cluster.owner("a") + 1) % 3);
    let (slot, old) = cluster.begin_move("a", to);
    assert_eq!(old, from);
    let migrating = cluster.nodes()[from].try_command(&["GET", "a"]).unwrap();
    assert_eq!(migrating, Reply::Bytes(b"1".to_vec()), "the old master still has the key");
    cluster.finish_move(slot, from, to);
    assert_eq!(cluster.owner("a"), to);
    assert!(matches!(cluster.nodes()[from].try_command(&["GET", "a"]), Ok(Reply::Error(e)) if e.starts_with("MOVED")));
    cluster.wait_until_ok();

    cluster.fail_over(to + 3);
    wait_until("the old nodes name the new master", LIMIT, || cluster.owner("a") == to + 3);
    cluster.elect_soon();
    cluster.node_mut(to + 3).kill();
    wait_until("the cluster elects the other again", 2 * LIMIT, || cluster.owner("a") == to);
    assert_eq!(cluster.command_at("a", &["GET", "a"]).text(), "1");
}

#[test]
fn sentinels_agree_on_a_new_master() {
    let mut redis = RedisSentinel::start();
    assert_eq!(redis.master(), 0);
    redis.elect_soon();
    redis.server_mut(0).kill();
    let new = redis.wait_for_other_master(0);
    assert_ne!(new, 0);
    redis.servers()[new].command(&["SET", "key", "value"]);
}

/// The child of the next test: starts a server, says where, and hangs until it is killed.
#[test]
fn child_that_holds_a_server() {
    if std::env::var_os("HARNESS_HOLD_A_SERVER").is_none() {
        return;
    }
    let server = RedisServer::start();
    println!("port={}.", server.port());
    std::thread::sleep(Duration::from_mins(1));
}

#[test]
fn no_server_survives_the_kill_of_its_test_binary() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_holds_a_server", "--nocapture"])
        .env("HARNESS_HOLD_A_SERVER", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut printed, mut byte) = (String::new(), [0]);
    let stdout = child.stdout.as_mut().unwrap();
    while !printed.contains("port=") || !printed.ends_with('.') {
        stdout.read_exact(&mut byte).expect("the child prints its port");
        printed.push(char::from(byte[0]));
    }
    let port: u16 = printed.rsplit_once("port=").unwrap().1.trim_end_matches('.').parse().unwrap();
    support::Connection::open(port).expect("the server runs");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the server of the killed test is gone", LIMIT, || support::Connection::open(port).is_err());
}

#[tokio::test]
async fn an_origin_counts_what_it_is_asked_and_answers_as_it_is_told() {
    let origin = Origin::start();
    assert_eq!(get(&format!("{}/any?q=1", origin.url())).await.text(), "GET /any #0");
    assert_eq!(get(&format!("{}/any", origin.url())).await.text(), "GET /any #1");
    assert_eq!((origin.count("/any"), origin.total(), origin.connections()), (2, 2, 2));
    assert_eq!(origin.seen("/any")[0].uri.query(), Some("q=1"));

    origin.on("/told", Answer::ok("body").header("cache-control", "max-age=60").trailer("x-sum", "4"));
    let request = Request::get(format!("{}/told", origin.url())).header("te", "trailers").body(Bytes::new());
    let told = send(request.unwrap()).await.unwrap();
    assert_eq!((told.text(), told.header("cache-control")), ("body", "max-age=60"));
    assert_eq!(told.trailers["x-sum"], "4");

    origin.handle("*", |seen| Answer::status(404).header("x-method", seen.method.as_str()));
    let missing = send(Request::post(format!("{}/none", origin.url())).body("x".into()).unwrap()).await.unwrap();
    assert_eq!((missing.status.as_u16(), missing.header("x-method")), (404, "POST"));
    assert_eq!(origin.seen("/none")[0].body, "x");

    origin.on("/head", Answer::ok("four"));
    let head = send(Request::head(format!("{}/head", origin.url())).body(Bytes::new()).unwrap()).await.unwrap();
    assert_eq!((head.header("content-length"), head.text()), ("4", ""));
    origin.reset_counts();
    assert_eq!(origin.total(), 0);
}

#[tokio::test]
async fn an_origin_holds_answers_back_until_the_gate_opens() {
    let (origin, gate) = (Origin::start(), Gate::new());
    origin.on("/held", Answer::ok("at last").behind(&gate));
    let url = format!("{}/held", origin.url());
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { get(&url).await })
        })
        .collect();
    let start = std::time::Instant::now();
    while origin.in_flight() < 3 {
        assert!(start.elapsed() < LIMIT, "three are under way");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(clients.iter().all(|client| !client.is_finished()));
    gate.open();
    for client in clients {
        assert_eq!(client.await.unwrap().text(), "at last");
    }
    assert_eq!((origin.in_flight(), origin.most_in_flight()), (0, 3));
}

/// What comes over a plain connection, and how it ends.
fn raw_exchange(origin: &Origin, path: &str) -> (String, std::io::Result<usize>) {
    let mut stream = std::net::TcpStream::connect(origin.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    std::io::Write::write_all(&mut stream, format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).unwrap();
    let mut got = Vec::new();
    let end = stream.read_to_end(&mut got);
    (String::from_utf8_lossy(&got).into_owned(), end)
}

#[test]
fn an_origin_fails_as_it_is_told() {
    let origin = Origin::start();
    origin.on("/truncated", Answer::ok("0123456789").truncate(4));
    let (got, end) = raw_exchange(&origin, "/truncated");
    assert!(got.contains("content-length: 10") && got.ends_with("\r\n\r\n0123"), "{got}");
    end.expect("closed in order, but too early");

    origin.on("/reset-after", Answer::ok("0123456789").reset_after(4));
    let (got, end) = raw_exchange(&origin, "/reset-after");
    assert!(got.ends_with("\r\n\r\n0123"), "{got}");
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);

    origin.on("/reset", Answer::reset());
    let (got, end) = raw_exchange(&origin, "/reset");
    assert_eq!((got.as_str(), end.unwrap_err().kind()), ("", std::io::ErrorKind::ConnectionReset));

    origin.on("/raw", Answer::raw("HTTP/1.1 200 OK\r\ncontent-length: nonsense\r\n\r\n"));
    assert_eq!(raw_exchange(&origin, "/raw").0, "HTTP/1.1 200 OK\r\ncontent-length: nonsense\r\n\r\n");
}

#[tokio::test]
async fn an_origin_drips_and_goes_on_for_ever() {
    let origin = Origin::start();
    origin.on("/drip", Answer::ok("0123456789").drip(3, Duration::from_millis(20)));
    let start = std::time::Instant::now();
    let dripped = get(&format!("{}/drip", origin.url())).await;
    assert_eq!((dripped.text(), dripped.header("transfer-encoding")), ("0123456789", "chunked"));
    assert!(start.elapsed() >= Duration::from_millis(80), "four pieces with a pause before each");

    origin.on("/endless", Answer::ok("tick\n").endless(Duration::from_millis(5)));
    let mut stream = std::net::TcpStream::connect(origin.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let (mut got, mut piece) = (String::new(), [0; 256]);
    while got.matches("tick").count() < 20 {
        let length = stream.read(&mut piece).unwrap();
        assert_ne!(length, 0, "it never ends");
        got.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
}

#[tokio::test]
async fn a_gateway_is_a_process_that_stops_restarts_and_says_what_is_wrong() {
    let origin = Origin::start();
    let mut gateway = Gateway::start(&[format!("--upstream={}", origin.url()), "--layers=none".to_owned()]);
    let url = format!("{}/path", gateway.url());
    assert_eq!(get(&url).await.text(), "GET /path #0");
    assert_eq!(get(&format!("{}/healthz", gateway.admin_url())).await.status, 200);

    gateway.kill();
    assert!(!gateway.is_running());
    let request = Request::get(&url).body(Bytes::new()).unwrap();
    send(request).await.expect_err("nobody listens");
    gateway.restart();
    assert_eq!(get(&url).await.text(), "GET /path #1");
    let status = gateway.stop(LIMIT).expect("it ends when it is asked to");
    assert!(status.success(), "{status}: {}", gateway.log());

    let (status, printed) = Gateway::run(&["--no-such-flag"]);
    assert_eq!(status.code(), Some(2));
    assert!(printed.contains("no-such-flag"), "{printed}");
}
