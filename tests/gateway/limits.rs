//! `--limit`, `--trust`, `--limit-headers`, `--limit-shadow` and `--limit-on-error`. All requests come from 127.0.0.1.

use crate::{
    gateway::Gateway,
    origin::Origin,
    support::RedisServer,
    wire::{Message, Wire},
};

fn ok() -> Origin {
    Origin::always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
}

fn limited(origin: &Origin, flags: &[&str]) -> Gateway {
    Gateway::with(&[&["--layers", "limit", "--upstream", &origin.url()], flags].concat())
}

/// The statuses of so many requests with these lines.
fn statuses(client: &mut Wire, n: usize, lines: &str) -> Vec<u16> {
    (0..n).map(|_| client.get("/", lines).status()).collect()
}

fn from(address: &str) -> String {
    format!("X-Forwarded-For: 6.6.6.6, {address}\r\n")
}

#[test]
fn limits_refuse_with_429_and_say_when_to_come_back() {
    let origin = ok();
    let gateway = limited(&origin, &["--limit", "ip=2/60s;key=ip"]);
    let mut client = gateway.connect();
    for _ in 0..2 {
        let answer = client.get("/a", "");
        assert_eq!(answer.status(), 200);
        assert!(answer.head.get("ratelimit").is_some());
    }
    // X-Forwarded-For is not believed.
    let refused = client.get("/a", "X-Forwarded-For: 192.0.2.7\r\n");
    assert_eq!(refused.status(), 429);
    assert!(refused.head.get("retry-after").is_some());
}

#[test]
fn a_limit_by_a_header_field_has_its_burst_for_each_value() {
    let origin = ok();
    let gateway = limited(&origin, &["--limit", "api=100/3600s;burst=3;key=header:x-api-key"]);
    let mut client = gateway.connect();
    for key in ["one", "two"] {
        let lines = format!("X-Api-Key: {key}\r\n");
        let statuses: Vec<u16> = (0..4).map(|_| client.get("/a", &lines).status()).collect();
        assert_eq!(statuses, [200, 200, 200, 429], "{key}");
    }
    assert_eq!(client.get("/a", "").status(), 200, "without the field there is no such limit");
}

#[test]
fn addresses_are_those_that_trusted_proxies_tell_and_one_limit_may_be_for_all() {
    let origin = ok();
    let limits = ["--limit", "ip=2/3600s;key=ip", "--limit", "all=5/3600s;key=global"];
    for trust in ["hops:1", "127.0.0.0/8"] {
        let gateway = limited(&origin, &[&limits[..], &["--trust", trust]].concat());
        let mut client = gateway.connect();
        assert_eq!(statuses(&mut client, 3, &from("192.0.2.1")), [200, 200, 429], "{trust}");
        assert_eq!(statuses(&mut client, 3, &from("192.0.2.2")), [200, 200, 429], "{trust}");
        // What the one denied, the other did not count.
        assert_eq!(statuses(&mut client, 2, &from("192.0.2.3")), [200, 429], "{trust}");
        let refused = client.get("/", &from("192.0.2.4"));
        let told = refused.head.get("ratelimit").unwrap_or_default();
        assert!(told.contains(r#""ip";r=2;"#) && told.contains(r#""all";r=0;"#), "{told}");
    }
}

#[test]
fn the_fields_are_of_the_kind_that_was_asked_for() {
    const ALL: [&str; 8] = [
        "ratelimit",
        "ratelimit-policy",
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
    ];
    let origin = ok();
    for (kind, expected) in [("draft", &ALL[..2]), ("triple", &ALL[2..5]), ("x", &ALL[5..]), ("none", &[])] {
        let gateway = limited(&origin, &["--limit", "api=1/3600s", "--limit-headers", kind]);
        let mut client = gateway.connect();
        for status in [200, 429] {
            let answer = client.get("/", "");
            assert_eq!(answer.status(), status, "{kind}");
            let told = |name: &&&str| answer.head.get(name).is_some();
            assert_eq!(ALL.iter().filter(told).copied().collect::<Vec<_>>(), expected, "{kind}");
            assert_eq!(answer.head.get("retry-after").is_some(), status == 429, "{kind}");
        }
    }
}

#[test]
fn in_shadow_mode_nothing_is_refused_and_what_would_have_been_is_logged() {
    let origin = ok();
    let gateway = limited(&origin, &["--limit", "api=1/3600s", "--limit-shadow"]);
    let mut client = gateway.connect();
    assert_eq!(statuses(&mut client, 4, ""), [200; 4]);
    assert!(client.get("/", "").head.get("ratelimit").is_none(), "clients learn nothing of it");
    assert!(gateway.process.log().contains("would have refused"), "{}", gateway.process.log());
}

#[test]
fn without_redis_a_limit_is_local_or_allows_or_denies() {
    let origin = ok();
    for (on_error, expected) in
        [("local", [200, 200, 429, 429]), ("allow", [200, 200, 200, 200]), ("deny", [503, 503, 503, 503])]
    {
        let mut redis = RedisServer::start();
        let flags = ["--redis", &redis.url(), "--limit", "api=2/3600s;key=global", "--limit-on-error", on_error];
        let gateway = limited(&origin, &flags);
        redis.kill();
        let mut client = gateway.connect();
        let answers: Vec<Message> = expected.iter().map(|_| client.get("/", "")).collect();
        assert_eq!(answers.iter().map(Message::status).collect::<Vec<_>>(), expected, "{on_error}");
        let refused = answers.last().filter(|answer| answer.status() != 200);
        if let Some(refused) = refused {
            assert_eq!(refused.head.get("content-type"), Some("application/problem+json"));
        }
    }
}
