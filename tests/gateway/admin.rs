//! What operators see.

use std::time::Duration;

use crate::{gateway::Gateway, origin::Origin, support::wait_until};

#[test]
fn the_admin_listener_counts_what_was_answered() {
    let origin = Origin::new(|wire, head| {
        let status = if head.line.contains("/missing") { "404 Not Found" } else { "200 OK" };
        wire.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        true
    });
    let gateway = Gateway::before(origin.address());
    let mut client = gateway.connect();
    for path in ["/", "/", "/missing"] {
        client.get(path, "");
    }
    let mut admin = gateway.connect_admin();
    assert_eq!(admin.get("/healthz", "").text(), "ok\n");
    let stats: serde_json::Value = serde_json::from_slice(&admin.get("/stats", "").body).expect("JSON");
    assert_eq!((&stats["requests"]["2xx"], &stats["requests"]["4xx"]), (&2.into(), &1.into()), "{stats}");
    assert_eq!((&stats["origin"]["requests"], &stats["origin"]["errors"]), (&3.into(), &0.into()), "{stats}");
    let metrics = admin.get("/metrics", "");
    assert_eq!(metrics.head.get("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = metrics.text();
    for line in [
        "gateway_requests_total{status=\"2xx\"} 2",
        "gateway_requests_total{status=\"4xx\"} 1",
        "gateway_origin_requests_total 3",
        "gateway_requests_in_flight 0",
        "gateway_request_seconds_count 3",
    ] {
        assert!(text.lines().any(|other| other == line), "no {line:?} in {text}");
    }
    assert_eq!(gateway.connect().get("/metrics", "").head.get("content-type"), None, "clients get the origin's");
}

#[test]
fn requests_under_way_and_errors_of_origins_are_seen() {
    let origin = Origin::new(|wire, _| wire.is_closed());
    let gateway = Gateway::before(origin.address());
    let mut admin = gateway.connect_admin();
    let mut stats =
        move || -> serde_json::Value { serde_json::from_slice(&admin.get("/stats", "").body).expect("JSON") };
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let soon = Duration::from_secs(10);
    wait_until("one is under way", soon, || stats()["requests"]["in_flight"] == 1);
    drop(client);
    wait_until("none is under way", soon, || stats()["requests"]["in_flight"] == 0);
    drop(origin);
    wait_until("the listener is gone", soon, || gateway.connect().get("/", "").status() == 502);
    assert!(stats()["origin"]["errors"].as_u64() > Some(0));
}
