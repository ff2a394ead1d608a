//! Fields that concern one connection, and those that the gateway sets.

use crate::{gateway::Gateway, origin::Origin};

#[test]
fn fields_of_the_connection_stay_on_it_in_both_directions() {
    let origin = Origin::always(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-End: 2\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = Gateway::before(origin.address());
    let answer = gateway.connect().get(
        "/",
        "Connection: keep-alive, X-Hop\r\nConnection: X-Session\r\nX-Hop: 1\r\nx-session: forged\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nTE: gzip\r\n\
         X-End: 2\r\n",
    );
    assert_eq!(answer.text(), "ok");
    let hop =
        ["connection", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade", "te", "x-hop", "x-session"];
    for (side, head) in [("the origin", origin.head()), ("the client", answer.head)] {
        for name in hop {
            assert_eq!(head.all(name), [""; 0], "{name} reached {side}");
        }
        assert_eq!(head.get("x-end"), Some("2"), "{side}");
    }
}

#[test]
fn connection_cannot_take_the_host_the_length_or_the_cookies_away() {
    let origin = Origin::echo();
    let gateway = Gateway::before(origin.address());
    let answer = gateway.connect().ask(
        "POST / HTTP/1.1\r\nHost: shop.example\r\nConnection: Host, Content-Length, Cookie, X-Forwarded-For\r\n\
         Cookie: a=1\r\nX-Forwarded-For: 6.6.6.6\r\nContent-Length: 5\r\n\r\nhello",
    );
    assert!(answer.text().contains("\nhello\n"));
    let head = origin.head();
    assert_eq!(head.get("host"), Some("shop.example"));
    assert_eq!((head.get("content-length"), head.get("cookie")), (Some("5"), Some("a=1")));
    assert_eq!(head.get("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn a_client_that_wants_its_connection_closed_gets_that_and_the_origin_keeps_its_own() {
    let origin = Origin::always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::before(origin.address());
    for _ in 0..10 {
        let mut client = gateway.connect();
        assert_eq!(client.get("/", "Connection: close\r\n").status(), 200);
        assert!(client.is_closed());
    }
    // Not always the same one: it may not be back yet when the next request comes.
    assert!(origin.connected() < 10);
}

#[test]
fn via_names_the_gateway_to_the_origin_and_ends_a_loop() {
    let origin = Origin::always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::before(origin.address());
    assert_eq!(gateway.connect().get("/", "Via: 1.0 fred\r\n").status(), 200);
    assert_eq!(origin.head().all("via"), ["1.0 fred", "1.1 gatehouse"]);
    let circle = "Via: 1.1 gatehouse, 1.1 gatehouse\r\n".repeat(5);
    gateway.connect().get("/", &circle).problem(508);
    assert_eq!(origin.heads().len(), 1);
}

#[test]
fn max_forwards_ends_options_at_the_gateway() {
    let origin = Origin::always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::before(origin.address());
    let mut client = gateway.connect();
    assert_eq!(client.ask("OPTIONS /a HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n").status(), 204);
    assert_eq!(client.ask("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").status(), 204);
    assert!(origin.heads().is_empty());
    assert_eq!(client.ask("OPTIONS /a HTTP/1.1\r\nHost: a\r\nMax-Forwards: 5\r\n\r\n").status(), 200);
    assert_eq!(origin.head().get("max-forwards"), Some("4"));
}

#[test]
fn the_longest_prefix_wins_and_ends_at_a_slash() {
    let (all, shop, orders) = (named("all"), named("shop"), named("orders"));
    let flags = ["--upstream", &all.url(), "--upstream", &format!("/shop={}", shop.url())];
    let more = ["--upstream", &format!("/shop/orders/={}", orders.url()), "--layers", "none"];
    let gateway = Gateway::with(&[&flags[..], &more[..]].concat());
    let mut client = gateway.connect();
    let cases = [
        ("/", "all"),
        ("/shopping", "all"),
        ("/shop", "shop"),
        ("/shop?x=/shop/orders", "shop"),
        ("/shop/", "shop"),
        ("/shop/ordersx", "shop"),
        ("/shop/orders", "orders"),
        ("/shop/orders/1", "orders"),
        ("/SHOP", "all"),
        ("/shop%2Forders", "all"),
    ];
    for (path, expected) in cases {
        assert_eq!(client.get(path, "").text(), expected, "{path}");
    }
}

#[test]
fn a_path_that_no_service_has_is_a_404_of_the_gateway() {
    let origin = named("shop");
    let gateway = Gateway::with(&["--layers", "none", "--upstream", &format!("/shop={}", origin.url())]);
    assert_eq!(gateway.connect().get("/other", "").problem(404), "No service has this path.");
}

fn named(name: &'static str) -> Origin {
    Origin::always(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()))
}
