//! 101 and 100: what happens between the head of a request and its answer.

use std::{thread, time::Duration};

use super::LAYERS;
use crate::{gateway::Gateway, origin::Origin};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Switches, says hello, then sends back what comes.
fn chat() -> Origin {
    Origin::new(|wire, head| {
        if head.get("upgrade").is_none() {
            wire.send("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n");
            return true;
        }
        assert_eq!(head.get("upgrade"), Some("websocket"));
        assert!(head.get("connection").expect("a Connection field").eq_ignore_ascii_case("upgrade"));
        assert_eq!(head.get("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
        // The first bytes of the new protocol come in one write with the head.
        wire.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello",
        );
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = wire.some(&mut buffer) {
            wire.send(&buffer[..read]);
        }
        wire.send("bye");
        false
    })
}

#[test]
fn a_websocket_is_tunnelled_both_ways_until_both_ends_close() {
    let origin = chat();
    let gateway = Gateway::through(LAYERS, origin.address());
    let mut client = gateway.connect();
    let answer = client.ask(UPGRADE);
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.head.get("upgrade"), Some("websocket"));
    assert_eq!(answer.head.get("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(client.exactly(5), b"hello");
    for message in [b"\x81\x05ping!".to_vec(), b"\x00\xff\r\n\r\n".to_vec(), vec![7; 200_000]] {
        let mut writer = client.writer();
        let copy = message.clone();
        let sending = thread::spawn(move || std::io::Write::write_all(&mut writer, &copy));
        assert!(client.exactly(message.len()) == message, "what comes back differs");
        sending.join().expect("no panic").expect("the gateway takes it");
    }
    client.finish();
    assert_eq!(client.exactly(3), b"bye", "one direction closes before the other");
    assert!(client.is_closed());
}

#[test]
fn an_upgrade_that_the_origin_declines_is_an_ordinary_answer() {
    let origin = Origin::always("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let gateway = Gateway::through(LAYERS, origin.address());
    let mut client = gateway.connect();
    assert_eq!(client.ask(UPGRADE).text(), "no");
    assert_eq!(client.get("/", "").text(), "no", "the connection goes on with HTTP");
}

#[test]
fn no_other_protocol_is_tunnelled() {
    let origin = chat();
    let gateway = Gateway::through(LAYERS, origin.address());
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n";
    let both = "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n";
    let unasked = "Upgrade: websocket\r\n";
    for lines in [h2c, both, unasked] {
        assert_eq!(gateway.connect().get("/", lines).status(), 426, "{lines}");
    }
    for head in origin.heads() {
        assert_eq!((head.get("upgrade"), head.get("http2-settings"), head.get("connection")), (None, None, None));
    }
}

#[test]
fn connect_and_trace_are_refused_and_reach_no_origin() {
    let origin = Origin::echo();
    let gateway = Gateway::through(LAYERS, origin.address());
    let answer = gateway.connect().ask("CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n");
    assert_eq!(answer.problem(501), "This is a reverse proxy; it opens no tunnels.");
    let answer = gateway.connect().ask("TRACE / HTTP/1.1\r\nHost: a\r\nCookie: secret=1\r\n\r\n");
    answer.problem(405);
    assert!(answer.head.get("allow").is_some());
    assert!(origin.heads().is_empty());
}

#[test]
fn a_switch_that_nobody_asked_for_is_no_answer() {
    let origin = Origin::always("HTTP/1.1 101 Switching Protocols\r\nUpgrade: tls\r\nConnection: Upgrade\r\n\r\n");
    let gateway = Gateway::through(LAYERS, origin.address());
    gateway.connect().get("/", "").problem(502);
    gateway.connect().ask(UPGRADE).problem(502);
}

#[test]
fn a_client_sends_its_content_when_the_origin_says_100() {
    let origin = Origin::new(|wire, head| {
        assert_eq!(head.get("expect"), Some("100-continue"));
        thread::sleep(Duration::from_millis(100));
        wire.send("HTTP/1.1 100 Continue\r\n\r\n");
        let content = wire.rest(head.clone(), false).expect("the content").text();
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}", content.len()));
        true
    });
    let gateway = Gateway::through(LAYERS, origin.address());
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.head().expect("an interim answer").line, "HTTP/1.1 100 Continue");
    client.send("hello");
    assert_eq!(client.answer(false).text(), "hello");
}

#[test]
fn a_client_keeps_its_content_when_the_origin_refuses_it() {
    let origin = Origin::new(|wire, _| {
        wire.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        false
    });
    let gateway = Gateway::through(LAYERS, origin.address());
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 104857600\r\n\r\n");
    let answer = client.answer(false);
    assert_eq!((answer.status(), answer.text().as_str()), (413, "no"), "not asked for its content before");
}

#[test]
fn an_origin_that_knows_no_expectations_gets_the_content_all_the_same() {
    let origin = Origin::echo();
    let gateway = Gateway::through(LAYERS, origin.address());
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.head().expect("an interim answer").line, "HTTP/1.1 100 Continue");
    client.send("hello");
    assert!(client.answer(false).text().contains("\nhello\n"));
}

#[test]
fn early_hints_do_not_disturb_the_answer() {
    let origin = Origin::always(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nSet-Cookie: early=1\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = Gateway::through(LAYERS, origin.address());
    let answer = gateway.connect().get("/", "");
    assert_eq!((answer.status(), answer.text().as_str(), answer.head.get("set-cookie")), (200, "ok", None));
}
