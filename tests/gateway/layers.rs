//! The gateway's layers, in memory and on Redis.

use std::{net::SocketAddr, time::Duration};

use crate::{
    gateway::{Gateway, PURGE_TOKEN},
    origin::Origin,
    support::{RedisServer, wait_until},
    wire::Message,
};

const CACHEABLE: &str =
    "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nSurrogate-Key: stock\r\nContent-Length: 5\r\n\r\nhello";

fn flags(origin: SocketAddr, more: &[&str]) -> Gateway {
    let upstream = format!("http://{origin}");
    Gateway::with(&[&["--upstream", &upstream], more].concat())
}

fn x_cache(answer: &Message) -> &str {
    answer.head.get("x-cache").unwrap_or("none")
}

#[test]
fn what_one_gateway_has_stored_another_on_the_same_redis_serves_and_purges() {
    let redis = RedisServer::start();
    let origin = Origin::always(CACHEABLE);
    let on_redis = [
        "--redis",
        &redis.url(),
        "--redis-timeout",
        "5",
        "--namespace",
        "shop",
        "--purge-token-env",
        "TEST_PURGE_TOKEN",
    ];
    let (one, two) = (flags(origin.address(), &on_redis), flags(origin.address(), &on_redis));
    let first = one.connect().get("/a", "");
    assert_eq!((first.status(), x_cache(&first), first.text().as_str()), (200, "MISS", "hello"));
    let second = two.connect().get("/a", "");
    assert_eq!((x_cache(&second), second.text().as_str()), ("HIT", "hello"));
    assert_eq!(second.head.get("surrogate-key"), None, "tags are not for clients");
    assert_eq!(origin.heads().len(), 1);

    let purge = |token: &str| {
        let lines = format!("Host: shop.example\r\nSurrogate-Key: stock\r\nAuthorization: Bearer {token}\r\n");
        two.connect().ask(format!("PURGE /whatever HTTP/1.1\r\n{lines}\r\n"))
    };
    assert_eq!(purge("not the token at all").status(), 401);
    assert_eq!(x_cache(&one.connect().get("/a", "")), "HIT");
    let purged = purge(PURGE_TOKEN);
    assert_eq!((purged.status(), purged.text().as_str()), (200, r#"{"invalidated":["stock"],"mode":"hard"}"#));
    assert_eq!(x_cache(&one.connect().get("/a", "")), "MISS");

    let order = r#"{"prefixes":["/a"]}"#;
    let lines = format!("Host: a\r\nAuthorization: Bearer {PURGE_TOKEN}\r\nContent-Length: {}\r\n", order.len());
    let done = one.connect_admin().ask(format!("POST /invalidate HTTP/1.1\r\n{lines}\r\n{order}"));
    assert_eq!(done.status(), 200, "{}", done.text());
    assert_eq!(x_cache(&two.connect().get("/a", "")), "MISS");
}

#[test]
fn paths_have_lifetimes_and_bypasses_of_their_own() {
    let origin = Origin::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = flags(origin.address(), &["--ttl", "/products=60", "--bypass", "/admin", "--default-ttl", "0"]);
    let mut client = gateway.connect();
    for (path, first, second) in [
        ("/products/1", "MISS", "HIT"),
        ("/products", "MISS", "HIT"),
        ("/admin/x", "BYPASS", "BYPASS"),
        ("/", "MISS", "MISS"),
    ] {
        assert_eq!(x_cache(&client.get(path, "")), first, "{path}");
        assert_eq!(x_cache(&client.get(path, "")), second, "{path}");
    }
}

#[test]
fn the_profile_and_the_largest_content_decide_what_is_stored() {
    let origin = Origin::new(|wire, head| {
        let cookie = if head.line.contains("/cookie") { "Set-Cookie: a=b\r\n" } else { "" };
        wire.send(format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{cookie}Content-Length: 20\r\n\r\n{}",
            "x".repeat(20)
        ));
        true
    });
    for (settings, cookie, plain) in [
        (&[][..], "MISS", "HIT"),
        (&["--profile", "safe"], "MISS", "HIT"),
        (&["--profile", "rfc9111"], "HIT", "HIT"),
        (&["--max-body", "20"], "MISS", "HIT"),
        (&["--max-body", "19"], "MISS", "MISS"),
    ] {
        let gateway = flags(origin.address(), settings);
        let mut client = gateway.connect();
        for (path, second) in [("/cookie", cookie), ("/plain", plain)] {
            assert_eq!(x_cache(&client.get(path, "")), "MISS", "{path} {settings:?}");
            assert_eq!(x_cache(&client.get(path, "")), second, "{path} {settings:?}");
        }
    }
}

#[test]
fn an_origin_that_is_gone_gives_stale_answers_where_it_allowed_them_and_else_a_502() {
    let origin = Origin::new(|wire, head| {
        let control = if head.line.contains("/lasting") { "max-age=0, stale-if-error=600" } else { "no-store" };
        wire.send(format!("HTTP/1.1 200 OK\r\nCache-Control: {control}\r\nETag: \"1\"\r\nContent-Length: 2\r\n\r\nok"));
        false
    });
    let gateway = flags(origin.address(), &[]);
    let mut client = gateway.connect();
    for path in ["/lasting", "/fleeting"] {
        assert_eq!(client.get(path, "").text(), "ok");
    }
    drop(origin);
    let soon = Duration::from_secs(10);
    wait_until("the origin is gone", soon, || gateway.connect().get("/fleeting", "").status() == 502);
    client.get("/fleeting", "").problem(502);
    let stale = client.get("/lasting", "");
    assert_eq!((stale.status(), x_cache(&stale), stale.text().as_str()), (200, "STALE", "ok"));
}
