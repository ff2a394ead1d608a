//! Requests on which two servers may disagree where they end, or for whom they are.

use crate::{gateway::Gateway, origin::Origin, support::wait_until};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Requests that must end in 400 without an origin having heard of them.
#[test]
fn a_request_whose_end_is_in_doubt_is_refused_and_its_connection_closed() {
    let origin = Origin::echo();
    let gateway = Gateway::before(origin.address());
    let cases = [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Folded: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nNo-Colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Nul: a\0b\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    for case in cases {
        let mut client = gateway.connect();
        client.send(case);
        client.send(SMUGGLED);
        let answer = client.answer(false);
        assert_eq!(answer.status(), 400, "{case:?}");
        assert!(client.is_closed(), "{case:?}");
    }
    assert!(origin.heads().is_empty(), "{:?}", origin.heads());
}

#[test]
fn a_request_for_whom_nobody_knows_is_a_400() {
    let origin = Origin::echo();
    let gateway = Gateway::before(origin.address());
    for lines in
        ["", "Host: a\r\nHost: b\r\n", "Host: a\r\nHost: a\r\n", "Host: a/b\r\n", "Host: u@a\r\n", "Host: a, b\r\n"]
    {
        gateway.connect().ask(format!("GET / HTTP/1.1\r\n{lines}\r\n")).problem(400);
    }
    assert!(origin.heads().is_empty());
}

#[test]
fn chunks_win_over_a_length_and_the_origin_sees_the_chunks_only() {
    let origin = Origin::echo();
    let gateway = Gateway::before(origin.address());
    let length = SMUGGLED.len() + 5;
    for lines in [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
        format!("Transfer-Encoding: Chunked\r\ncontent-length: {length}\r\n"),
    ] {
        let before = origin.heads().len();
        let mut client = gateway.connect();
        client.send(format!("POST /first HTTP/1.1\r\nHost: a\r\n{lines}Connection: close\r\n\r\n0\r\n\r\n{SMUGGLED}"));
        let answer = client.answer(false);
        assert!(answer.status() == 400 || answer.text().contains("/first"), "{answer:?}");
        assert!(client.is_closed(), "nothing after it is read as a request of its own");
        for head in &origin.heads()[before..] {
            assert_eq!(head.line, "POST /first HTTP/1.1");
            assert_eq!((head.get("transfer-encoding"), head.get("content-length")), (Some("chunked"), None));
        }
    }
}

#[test]
fn a_request_that_closes_early_leaves_no_half_request_on_a_kept_connection() {
    let origin = Origin::echo();
    let gateway = Gateway::before(origin.address());
    assert_eq!(gateway.connect().get("/warm", "").status(), 200);
    let mut client = gateway.connect();
    client.send("POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nhello");
    wait_until("the origin sees the head", std::time::Duration::from_secs(10), || origin.heads().len() == 2);
    drop(client);
    for _ in 0..3 {
        assert!(gateway.connect().get("/next", "").text().contains("GET /next"));
    }
    assert!(origin.connected() >= 2, "the connection with half a request is not used again");
}

#[test]
fn a_response_with_chunks_and_a_length_is_read_by_its_chunks() {
    let origin = Origin::always(
        "HTTP/1.1 200 OK\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    let gateway = Gateway::before(origin.address());
    let mut client = gateway.connect();
    for _ in 0..2 {
        let answer = client.get("/", "");
        assert_eq!((answer.text().as_str(), answer.head.get("content-length")), ("ok", None));
    }
}

#[test]
fn a_response_that_is_not_http_is_a_502() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "SSH-2.0-OpenSSH_9.0\r\n",
    ] {
        let origin = Origin::always(answer);
        let gateway = Gateway::before(origin.address());
        assert_eq!(gateway.connect().get("/", "").problem(502), "The origin's answer is not valid HTTP.", "{answer:?}");
    }
}
