//! Origins and clients that fail.

use std::{
    io::Read as _,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{gateway::Gateway, origin::Origin, support::wait_until};

/// Five times what any of it takes.
const SOON: Duration = Duration::from_secs(10);

fn with(origin: &str, flags: &[&str]) -> Gateway {
    Gateway::with(&[&["--layers", "none", "--upstream", origin], flags].concat())
}

#[test]
fn an_origin_that_refuses_is_a_502() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let gateway = Gateway::before(address);
    let answer = gateway.connect().get("/", "");
    assert_eq!(answer.problem(502), "The origin cannot be reached.");
    assert!(!answer.text().contains("127.0.0.1"), "a client does not learn where the origin is");
}

#[test]
fn an_origin_that_accepts_no_connection_in_time_is_a_504() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _guard = runtime.enter();
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let full = socket.listen(1).expect("a listener that nobody accepts from");
    let address = full.local_addr().expect("an address");
    // With its queue full, the kernel lets further connections wait.
    let _queue: Vec<_> =
        (0..4).map(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100))).collect();
    let gateway = with(&format!("http://{address}"), &["--connect-timeout", "0.2"]);
    let start = Instant::now();
    let answer = gateway.connect().get("/", "");
    assert_eq!(answer.problem(504), "The origin did not accept the connection in time.");
    assert!(start.elapsed() < Duration::from_secs(4), "that is not the time of the flag, but the default of 5 s");
}

#[test]
fn an_origin_that_is_slow_with_the_head_is_a_504_and_is_left() {
    let left = Arc::new(AtomicBool::new(false));
    let origin = Origin::new({
        let left = left.clone();
        move |wire, _| {
            left.store(wire.is_closed(), Ordering::SeqCst);
            false
        }
    });
    let gateway = with(&origin.url(), &["--head-timeout", "0.2"]);
    let start = Instant::now();
    let answer = gateway.connect().get("/", "");
    assert_eq!(answer.problem(504), "The origin did not answer in time.");
    assert!(start.elapsed() < Duration::from_secs(10), "that is not the time of the flag, but the default of 30 s");
    wait_until("the connection to the origin is closed", SOON, || left.load(Ordering::SeqCst));
}

#[test]
fn a_head_that_stays_half_is_a_504() {
    let origin = Origin::new(|wire, _| {
        wire.send("HTTP/1.1 200 OK\r\nContent-Le");
        wire.is_closed()
    });
    let gateway = with(&origin.url(), &["--head-timeout", "0.2"]);
    gateway.connect().get("/", "").problem(504);
}

#[test]
fn an_upload_that_takes_longer_than_the_time_for_the_head_is_no_fault_of_the_origin() {
    let origin = Origin::echo();
    // All of it takes longer than that, and no part of it nearly as long.
    let gateway = with(&origin.url(), &["--head-timeout", "5"]);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n");
    for part in ["ab", "cd", "ef", "gh"] {
        thread::sleep(Duration::from_millis(1500));
        client.send(part);
    }
    assert!(client.answer(false).text().contains("\nabcdefgh\n"));
}

#[test]
fn a_client_that_stops_sending_is_a_408() {
    let origin = Origin::echo();
    let gateway = with(&origin.url(), &["--head-timeout", "0.2"]);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nab");
    assert_eq!(client.answer(false).problem(408), "The content of the request did not arrive in time.");
}

#[test]
fn content_with_broken_chunks_is_a_400() {
    let origin = Origin::echo();
    let gateway = Gateway::before(origin.address());
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nXYZ\r\n");
    client.answer(false).problem(400);
}

#[test]
fn an_origin_that_closes_or_resets_before_an_answer_is_a_502() {
    for reset in [false, true] {
        let origin = Origin::connections(move |wire| {
            let _ = wire.head();
            if reset {
                wire.reset_on_drop();
            }
        });
        let gateway = Gateway::before(origin.address());
        let answer = gateway.connect().get("/", "");
        assert_eq!(answer.problem(502), "The origin closed the connection without an answer.", "reset: {reset}");
        assert_eq!(origin.connected(), 1, "on a new connection that is no accident, and not tried again");
    }
}

#[test]
fn a_head_that_breaks_off_is_a_502() {
    let origin = Origin::new(|wire, _| {
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Ha");
        false
    });
    Gateway::before(origin.address()).connect().get("/", "").problem(502);
}

#[test]
fn content_that_breaks_off_breaks_off_for_the_client_too() {
    let answers = [
        ("Content-Length: 10", "hello", false),
        ("Content-Length: 10", "hello", true),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n", false),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n", true),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\nxyz\r\n", false),
    ];
    for (framing, content, reset) in answers {
        let origin = Origin::new(move |wire, _| {
            wire.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{content}"));
            // A reset may overtake what was sent.
            thread::sleep(Duration::from_millis(50));
            if reset {
                wire.reset_on_drop();
            }
            false
        });
        let gateway = Gateway::before(origin.address());
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = client.head().expect("an answer");
        assert_eq!(head.status(), 200);
        assert!(client.rest(head, false).is_err(), "{framing} {content:?} looks complete to the client");
        assert!(client.is_closed());
    }
}

#[test]
fn a_client_that_leaves_before_the_answer_cancels_the_request() {
    let left = Arc::new(AtomicBool::new(false));
    let origin = Origin::new({
        let left = left.clone();
        move |wire, _| {
            left.store(wire.is_closed(), Ordering::SeqCst);
            false
        }
    });
    let gateway = Gateway::before(origin.address());
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the origin has the request", SOON, || origin.heads().len() == 1);
    drop(client);
    wait_until("the origin is left", SOON, || left.load(Ordering::SeqCst));
}

#[test]
fn a_client_that_leaves_during_the_answer_stops_the_origin() {
    let left = Arc::new(AtomicBool::new(false));
    let origin = Origin::new({
        let left = left.clone();
        move |wire, _| {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
            let part = vec![0; 64 * 1024];
            let mut writer = wire.writer();
            while std::io::Write::write_all(&mut writer, &part).is_ok() {}
            left.store(true, Ordering::SeqCst);
            false
        }
    });
    let gateway = Gateway::before(origin.address());
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().expect("an answer").status(), 200);
    client.stream().read_exact(&mut [0; 1024]).expect("content");
    drop(client);
    wait_until("the origin can send no more", SOON, || left.load(Ordering::SeqCst));
}

#[test]
fn an_answer_before_the_content_is_complete_reaches_the_client() {
    let origin = Origin::new(|wire, _| {
        wire.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        // Closing with unread input would reset, and the answer might be lost to the gateway.
        while wire.some(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
        false
    });
    let gateway = Gateway::before(origin.address());
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 104857600\r\n\r\nthe beginning of much");
    assert_eq!(client.answer(false).text(), "no");
}

/// Answers the first request on each connection, and closes it at the second.
fn forgetful(closed: &Arc<AtomicUsize>) -> Origin {
    let closed = closed.clone();
    Origin::connections(move |wire| {
        if wire.head().is_ok() {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
        if wire.head().is_ok() {
            closed.fetch_add(1, Ordering::SeqCst);
        }
    })
}

#[test]
fn a_kept_connection_that_the_origin_closes_just_then_costs_a_get_nothing() {
    let closed = Arc::new(AtomicUsize::new(0));
    let origin = forgetful(&closed);
    let gateway = Gateway::before(origin.address());
    let mut client = gateway.connect();
    for _ in 0..6 {
        assert_eq!(client.get("/", "").text(), "ok");
    }
    assert!(closed.load(Ordering::SeqCst) > 0, "no connection was closed under a request");
}

#[test]
fn what_may_have_been_done_is_not_done_twice() {
    let closed = Arc::new(AtomicUsize::new(0));
    let origin = forgetful(&closed);
    let gateway = Gateway::before(origin.address());
    let mut client = gateway.connect();
    assert_eq!(client.get("/", "").text(), "ok");
    client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").problem(502);
    assert_eq!((closed.load(Ordering::SeqCst), origin.connected()), (1, 1));
}
