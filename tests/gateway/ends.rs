//! How it ends.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{gateway::Gateway, origin::Origin, support::wait_until};

const SOON: Duration = Duration::from_secs(10);
/// Less than the 8 s that what is under way has by default.
const AT_ONCE: Duration = Duration::from_secs(6);

#[test]
fn a_signal_ends_it_cleanly_even_with_idle_connections() {
    for signal in ["TERM", "INT"] {
        let origin = Origin::always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let mut gateway = Gateway::before(origin.address());
        let _silent = gateway.connect();
        let mut idle = gateway.connect();
        assert_eq!(idle.get("/", "").status(), 200);
        gateway.process.signal(signal);
        let status = gateway.process.wait(AT_ONCE).expect("it ends: nothing is under way");
        assert!(status.success(), "{signal}: {status}");
    }
}

#[test]
fn what_is_under_way_is_finished_while_the_port_refuses() {
    let go = Arc::new(AtomicBool::new(false));
    let origin = Origin::new({
        let go = go.clone();
        move |wire, _| {
            wait_until("the test lets it go", SOON, || go.load(Ordering::SeqCst));
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
            true
        }
    });
    let mut gateway = Gateway::before(origin.address());
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the origin has the request", SOON, || origin.heads().len() == 1);
    gateway.process.signal("TERM");
    wait_until("the port refuses", SOON, || TcpStream::connect(gateway.address()).is_err());
    assert!(gateway.process.is_running());
    go.store(true, Ordering::SeqCst);
    let answer = client.answer(false);
    assert_eq!((answer.text().as_str(), answer.head.get("connection")), ("hello", Some("close")));
    assert!(gateway.process.wait(SOON).expect("it ends").success());
}

#[test]
fn what_never_ends_is_cut_at_the_deadline_or_by_a_second_signal() {
    for second in [None, Some("INT")] {
        let origin = Origin::new(|wire, _| wire.is_closed());
        let drain = if second.is_some() { "60" } else { "0.3" };
        let flags = ["--layers", "none", "--upstream", &origin.url(), "--drain-timeout", drain];
        let mut gateway = Gateway::with(&flags);
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        wait_until("the origin has the request", SOON, || origin.heads().len() == 1);
        gateway.process.signal("TERM");
        if let Some(second) = second {
            wait_until("it has begun to end", SOON, || TcpStream::connect(gateway.address()).is_err());
            gateway.process.signal(second);
        }
        assert!(gateway.process.wait(AT_ONCE).expect("it ends").success());
        assert!(client.is_closed());
    }
}
