//! What passes as it is.

use std::{
    io::Write,
    sync::{LazyLock, Mutex, mpsc},
    thread,
    time::Duration,
};

use super::LAYERS;
use crate::{gateway::Gateway, origin::Origin, wire::Wire};

const MIB: usize = 1024 * 1024;

/// Bytes in which a lost, doubled or moved part shows; at most a mebibyte of them.
fn pattern(from: usize, length: usize) -> &'static [u8] {
    static PERIODS: LazyLock<Vec<u8>> = LazyLock::new(|| (0..=250).cycle().take(MIB + 251).collect());
    &PERIODS[from % 251..][..length]
}

/// Sends `length` bytes of the pattern in parts, as chunks where `chunked`.
fn send_pattern(mut stream: impl Write, length: usize, chunked: bool) -> std::io::Result<()> {
    let mut sent = 0;
    while sent < length {
        let part = pattern(sent, (length - sent).min(MIB));
        if chunked {
            write!(stream, "{:x}\r\n", part.len())?;
        }
        stream.write_all(part)?;
        if chunked {
            stream.write_all(b"\r\n")?;
        }
        sent += part.len();
    }
    if chunked { stream.write_all(b"0\r\n\r\n") } else { Ok(()) }
}

/// Reads content of the pattern without keeping it; its length.
fn read_pattern(wire: &mut Wire, length: Option<usize>) -> usize {
    let mut read = 0;
    let mut check = |part: &[u8]| {
        assert!(
            part.iter().enumerate().all(|(at, byte)| usize::from(*byte) == (read + at) % 251),
            "after {read} bytes"
        );
        read += part.len();
        read
    };
    let Some(length) = length else {
        while let Some(chunk) = wire.chunk().expect("a chunk") {
            check(&chunk);
        }
        wire.exactly(2);
        return read;
    };
    let mut buffer = vec![0; 64 * 1024];
    let mut left = length;
    while left > 0 {
        let most = left.min(buffer.len());
        let count = wire.some(&mut buffer[..most]).expect("more content");
        assert!(count > 0, "the content ends {left} bytes early");
        left = length - check(&buffer[..count]);
    }
    read
}

fn framing(length: usize, chunked: bool) -> String {
    if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {length}") }
}

/// Takes the pattern and tells how long it was; sends as much of it as the path says.
fn warehouse() -> Origin {
    Origin::new(|wire, head| {
        let length = head.get("content-length").map(|length| length.parse().expect("a length"));
        let has_content = length.is_some() || head.get("transfer-encoding").is_some();
        let read = if has_content { read_pattern(wire, length) } else { 0 };
        let mut words = head.line.split([' ', '/']).skip(2);
        let send: usize = words.next().and_then(|word| word.parse().ok()).expect("a length in the path");
        let chunked = words.next() == Some("chunked");
        wire.send(format!("HTTP/1.1 200 OK\r\nX-Read: {read}\r\n{}\r\n\r\n", framing(send, chunked)));
        send_pattern(wire.writer(), send, chunked).is_ok()
    })
}

#[test]
fn content_of_every_size_passes_both_ways_with_a_length_and_in_chunks() {
    let origin = warehouse();
    let gateway = Gateway::through(LAYERS, origin.address());
    let mut client = gateway.connect();
    for length in [0, 1, 2, 8 * 1024 - 1, 8 * 1024, 64 * 1024 + 1, 3 * MIB] {
        for chunked in [false, true] {
            let way = if chunked { "chunked" } else { "plain" };
            client.send(format!("POST /{length}/{way} HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", framing(length, chunked)));
            // The origin reads everything before it answers.
            send_pattern(client.writer(), length, chunked).expect("the gateway takes all of it");
            let head = client.head().expect("an answer");
            assert_eq!(head.status(), 200);
            assert_eq!(head.get("x-read"), Some(length.to_string().as_str()), "{length} {way}");
            let expected = (!chunked).then_some(length);
            assert_eq!(head.get("content-length").map(|length| length.parse().unwrap()), expected);
            assert_eq!(read_pattern(&mut client, expected), length);
        }
    }
    assert!(origin.connected() < 14, "connections to the origin are not kept");
}

#[test]
fn one_hundred_mebibytes_pass_both_ways_in_little_memory() {
    let origin = warehouse();
    let gateway = Gateway::through(LAYERS, origin.address());
    let mut client = gateway.connect();
    let length = 100 * MIB;
    let before = gateway.peak_memory();
    client.send(format!("PUT /{length}/plain HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
    send_pattern(client.writer(), length, false).expect("the gateway takes all of it");
    let head = client.head().expect("an answer");
    assert_eq!(head.get("x-read"), Some(length.to_string().as_str()));
    assert_eq!(read_pattern(&mut client, Some(length)), length);
    let grown = gateway.peak_memory() - before;
    assert!(grown < 20 * MIB as u64, "the gateway grew by {grown} bytes");
}

#[test]
fn a_reader_that_stops_holds_up_its_origin_and_not_the_memory() {
    let origin = warehouse();
    let gateway = Gateway::through(LAYERS, origin.address());
    let before = gateway.peak_memory();
    let mut readers: Vec<Wire> = (0..10).map(|_| gateway.connect()).collect();
    for reader in &mut readers {
        reader.send("GET /104857600/plain HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(reader.head().expect("an answer").status(), 200);
    }
    thread::sleep(Duration::from_millis(300));
    assert!(gateway.peak_memory() - before < 30 * MIB as u64, "the gateway keeps what nobody reads");
    assert_eq!(gateway.connect().get("/1/plain", "").body, pattern(0, 1), "others are served");
}

#[test]
fn chunks_arrive_as_they_are_sent() {
    let origin = Origin::new(|wire, _| {
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..3 {
            // The next one is sent only when the client has told that it has the last one.
            wire.send("5\r\nchunk\r\n");
            assert_eq!(wire.chunk().expect("a chunk of the request"), Some(b"seen".to_vec()));
        }
        wire.send("0\r\n\r\n");
        false
    });
    let gateway = Gateway::through(LAYERS, origin.address());
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.head().expect("an answer before the request is complete").status(), 200);
    for _ in 0..3 {
        assert_eq!(client.chunk().expect("a chunk"), Some(b"chunk".to_vec()));
        client.send("4\r\nseen\r\n");
    }
    assert_eq!(client.chunk().expect("the end"), None);
}

#[test]
fn a_server_sent_event_arrives_before_the_next_one_is_made() {
    let (seen, next) = mpsc::channel();
    let next = Mutex::new(next);
    let origin = Origin::new(move |wire, _| {
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n");
        for count in 0..3 {
            wire.send(format!("data: {count}\n\n"));
            // The client has it; where it waits for more, it gives up.
            if next.lock().expect("no panic").recv().is_err() {
                break;
            }
        }
        false
    });
    let gateway = Gateway::through(LAYERS, origin.address());
    let mut client = gateway.connect();
    client.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    let head = client.head().expect("an answer");
    assert_eq!(head.get("content-type"), Some("text/event-stream"));
    for count in 0..3 {
        assert_eq!(client.chunk().expect("an event"), Some(format!("data: {count}\n\n").into_bytes()));
        seen.send(()).expect("an origin that waits");
    }
    assert_eq!(client.chunk().expect("the end"), None);
}

#[test]
fn trailers_pass_both_ways() {
    let origin = Origin::new(|wire, head| {
        let message = wire.rest(head.clone(), false).expect("the content of the request");
        assert_eq!(message.text(), "abc");
        let [(name, value)] = &message.trailers[..] else { panic!("{message:?}") };
        assert_eq!(name, "x-sum");
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-copy\r\n\r\n2\r\nok\r\n");
        wire.send(format!("0\r\nX-Copy: {value}\r\n\r\n"));
        true
    });
    let gateway = Gateway::through(LAYERS, origin.address());
    let answer = gateway.connect().ask(
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: 900150983cd24fb0\r\n\r\n",
    );
    assert_eq!(answer.text(), "ok");
    assert_eq!(answer.head.get("trailer"), Some("x-copy"));
    assert_eq!(answer.trailers, [("x-copy".to_owned(), "900150983cd24fb0".to_owned())]);
    assert_eq!(origin.head().get("te"), Some("trailers"));
}

#[test]
fn head_keeps_the_length_and_has_no_content() {
    let origin = Origin::new(|wire, head| {
        let content = if head.line.starts_with("HEAD ") { "" } else { "hello" };
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"1\"\r\n\r\n{content}"));
        true
    });
    let gateway = Gateway::through(LAYERS, origin.address());
    let mut client = gateway.connect();
    let answer = client.ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status(), answer.head.get("content-length")), (200, Some("5")));
    assert_eq!(answer.head.get("etag"), Some("\"1\""));
    assert_eq!(client.get("/", "").text(), "hello", "the connection is in step");
}

#[test]
fn no_content_and_not_modified_pass_without_content() {
    let origin = Origin::new(|wire, head| {
        let is_204 = head.line.contains("/204");
        let answer = if is_204 { "204 No Content" } else { "304 Not Modified\r\nContent-Length: 5" };
        wire.send(format!("HTTP/1.1 {answer}\r\nETag: \"1\"\r\n\r\n"));
        true
    });
    let gateway = Gateway::through(LAYERS, origin.address());
    let mut client = gateway.connect();
    let answer = client.ask("DELETE /204 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status(), answer.head.get("content-length")), (204, None));
    assert_eq!(answer.head.get("transfer-encoding"), None);
    let answer = client.get("/304", "If-None-Match: \"1\"\r\n");
    assert_eq!((answer.status(), answer.head.get("etag")), (304, Some("\"1\"")));
    assert_eq!(answer.head.get("transfer-encoding"), None);
    assert_eq!(client.get("/304", "").status(), 304, "the connection is in step");
    if LAYERS == "none" {
        // A cache puts conditions of its own there.
        assert_eq!(origin.heads()[1].get("if-none-match"), Some("\"1\""));
    }
}

#[test]
fn the_target_and_the_host_arrive_as_they_were_sent() {
    let origin = Origin::always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::through(LAYERS, origin.address());
    let mut client = gateway.connect();
    let targets = ["/", "//evil.example/a", "/a/../b/./c", "/a%2Fb%2f?q=%20+&q=;&empty=", "/?", "/~a!$&'()*,;=:@"];
    for target in targets {
        assert_eq!(client.ask(format!("GET {target} HTTP/1.1\r\nHost: Shop.Example:81\r\n\r\n")).status(), 200);
    }
    let heads = origin.heads();
    for (head, target) in heads.iter().zip(targets) {
        assert_eq!(head.line, format!("GET {target} HTTP/1.1"));
        assert_eq!(head.get("host"), Some("Shop.Example:81"));
    }
    // An absolute target overrides the field (RFC 9112 §3.2.2).
    client.ask("GET http://other.example/x HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let head = origin.heads().pop().expect("a request");
    assert_eq!((head.line.as_str(), head.get("host")), ("GET /x HTTP/1.1", Some("other.example")));
}

#[test]
fn any_method_passes_with_its_content_even_get() {
    let origin = Origin::echo();
    let gateway = Gateway::through(LAYERS, origin.address());
    let mut client = gateway.connect();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "PROPFIND", "M-SEARCH"] {
        for framed in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
            let text = client.ask(format!("{method} /x HTTP/1.1\r\nHost: a\r\n{framed}")).text();
            assert!(text.contains(&format!("{method} /x HTTP/1.1")) && text.contains("\nhello\n"), "{text}");
        }
    }
}

#[test]
fn end_to_end_fields_pass_with_their_lines_order_and_bytes() {
    let origin = Origin::always(
        b"HTTP/1.1 299 Odd But Fine\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Latin: caf\xe9\r\nServer: origin\r\n\
          Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n"
            .as_slice(),
    );
    let gateway = Gateway::through(LAYERS, origin.address());
    let mut client = gateway.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Latin: caf\xe9\r\nAccept: a\r\nX-Empty:\r\nAccept: b\r\n\r\n");
    let answer = client.answer(false);
    assert_eq!(answer.head.line, "HTTP/1.1 299 Odd But Fine");
    assert_eq!(answer.head.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.head.get("x-latin"), Some("caf\u{e9}"));
    assert_eq!(answer.head.get("date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    assert_eq!(answer.head.get("server"), Some("origin"));
    let head = origin.head();
    assert_eq!(head.all("accept"), ["a", "b"]);
    assert_eq!((head.get("x-latin"), head.get("x-empty")), (Some("caf\u{e9}"), Some("")));
}

#[test]
fn sixty_four_kilobytes_of_fields_pass_both_ways() {
    let long = "x".repeat(16 * 1024);
    let lines = [0, 1, 2, 3].map(|nth| format!("X-Long-{nth}: {long}\r\n")).concat();
    let origin = Origin::always(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{lines}\r\n"));
    let gateway = Gateway::through(LAYERS, origin.address());
    let answer = gateway.connect().get("/", &lines);
    assert_eq!((answer.status(), answer.head.get("x-long-3")), (200, Some(long.as_str())));
    assert_eq!(origin.head().get("x-long-3"), Some(long.as_str()));
}

#[test]
fn a_client_of_http_1_0_gets_no_chunks() {
    let origin = Origin::new(|wire, _| {
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        true
    });
    let gateway = Gateway::through(LAYERS, origin.address());
    let answer = gateway.connect().ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((answer.head.get("transfer-encoding"), answer.text().as_str()), (None, "hello"));
    assert_eq!(origin.head().line, "GET / HTTP/1.1");
}

#[tokio::test]
async fn a_client_of_http_2_gets_the_same() {
    use http_body_util::{BodyExt, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let origin = Origin::echo();
    let gateway = Gateway::through(LAYERS, origin.address());
    let stream = tokio::net::TcpStream::connect(gateway.address()).await.expect("the gateway listens");
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    let asked: Vec<_> = (0..20)
        .map(|nth| {
            let request = http::Request::post(format!("http://shop.example/p?{nth}"))
                .body(Full::<bytes::Bytes>::from(format!("content {nth}")))
                .expect("a request");
            send.send_request(request)
        })
        .collect();
    for (nth, answer) in asked.into_iter().enumerate() {
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let text = answer.into_body().collect().await.expect("content").to_bytes();
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains(&format!("POST /p?{nth} HTTP/1.1")), "{text}");
        assert!(text.contains(&format!("content {nth}")), "{text}");
        assert!(text.contains("shop.example"), "{text}");
    }
}
