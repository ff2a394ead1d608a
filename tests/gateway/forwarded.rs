//! Who the client is, as told to the origin. All requests of these tests come from 127.0.0.1.

use crate::{gateway::Gateway, origin::Origin, wire::Head};

/// The head that an origin sees of a request with these lines.
fn seen(origin: &Origin, gateway: &Gateway, lines: &str) -> Head {
    assert_eq!(gateway.connect().get("/", lines).status(), 200);
    origin.heads().pop().expect("a request")
}

fn ok() -> Origin {
    Origin::always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
}

fn trusting(origin: &Origin, trust: &str) -> Gateway {
    Gateway::with(&["--layers", "none", "--upstream", &origin.url(), "--trust", trust])
}

#[test]
fn the_fields_are_set_from_the_connection() {
    let origin = ok();
    let head = seen(&origin, &Gateway::before(origin.address()), "");
    assert_eq!(head.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.get("x-forwarded-host"), Some("shop.example"));
    assert_eq!(head.get("x-forwarded-proto"), Some("http"));
}

#[test]
fn what_a_client_claims_is_dropped_however_it_is_spelt() {
    let origin = ok();
    let head = seen(
        &origin,
        &Gateway::before(origin.address()),
        "X-Forwarded-For: 6.6.6.6\r\nX-FORWARDED-FOR: 7.7.7.7\r\nX_Forwarded_For: 8.8.8.8\r\nX-Forwarded_Host: evil\r\n\
         X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /a\r\n\
         Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n",
    );
    let told: Vec<_> = head.fields.iter().filter(|(name, _)| name.replace('_', "-").contains("forwarded")).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(head.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.get("x-forwarded-host"), Some("shop.example"));
    assert_eq!(head.get("x-forwarded-proto"), Some("http"));
    assert_eq!(head.get("x-real-ip"), None);
}

#[test]
fn connection_does_not_remove_what_a_trusted_proxy_wrote() {
    let origin = ok();
    let lines = "X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\nConnection: keep-alive, X-Forwarded-For\r\n";
    let head = seen(&origin, &trusting(&origin, "hops:1"), lines);
    assert_eq!(head.get("x-forwarded-for"), Some("1.2.3.4, 127.0.0.1"));
}

#[test]
fn of_the_addresses_only_what_a_trusted_proxy_wrote_is_passed_on() {
    let cases: [(&str, &[(&str, &str)]); 5] = [
        ("hops:1", &[("", "127.0.0.1"), ("6.6.6.6, 1.2.3.4", "1.2.3.4, 127.0.0.1")]),
        (
            "hops:2",
            &[("6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4, 10.0.0.2, 127.0.0.1"), ("1.2.3.4", "1.2.3.4, 127.0.0.1")],
        ),
        (
            "127.0.0.0/8, 10.0.0.0/8",
            &[
                ("6.6.6.6, 1.2.3.4,10.0.0.2", "1.2.3.4, 10.0.0.2, 127.0.0.1"),
                ("6.6.6.6, 1.2.3.4\r\nX-Forwarded-For: 10.0.0.2", "1.2.3.4, 10.0.0.2, 127.0.0.1"),
                ("6.6.6.6, 1.2.3.4, [::ffff:10.0.0.2]:80", "1.2.3.4, [::ffff:10.0.0.2]:80, 127.0.0.1"),
                ("6.6.6.6, unknown, 10.0.0.2:99", "unknown, 10.0.0.2:99, 127.0.0.1"),
            ],
        ),
        ("192.168.0.1", &[("1.2.3.4", "127.0.0.1")]),
        ("127.0.0.1", &[("6.6.6.6, 1.2.3.4", "1.2.3.4, 127.0.0.1")]),
    ];
    for (trust, claims) in cases {
        let origin = ok();
        let gateway = trusting(&origin, trust);
        for (claimed, expected) in claims {
            let head = seen(&origin, &gateway, &format!("X-Forwarded-For: {claimed}\r\n"));
            assert_eq!(head.get("x-forwarded-for"), Some(*expected), "{trust}: {claimed}");
        }
    }
}

#[test]
fn a_trusted_proxy_tells_the_host_and_the_scheme() {
    let origin = ok();
    let lines = "X-Forwarded-Host: www.example\r\nX-Forwarded-Proto: https\r\n";
    let head = seen(&origin, &trusting(&origin, "hops:1"), lines);
    assert_eq!((head.get("x-forwarded-host"), head.get("x-forwarded-proto")), (Some("www.example"), Some("https")));
    assert_eq!(head.get("host"), Some("shop.example"));
    let head = seen(&origin, &trusting(&origin, "10.0.0.0/8"), lines);
    assert_eq!((head.get("x-forwarded-host"), head.get("x-forwarded-proto")), (Some("shop.example"), Some("http")));
}
