//! One row per way in which the address of a client is told, mistold or hidden.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;

const PEER: &str = "10.0.0.2";

/// Trust, lines of the field, and whose address it is.
type Row = (&'static str, &'static str, &'static [&'static str], &'static str);

/// "x" and "f" are `X-Forwarded-For` and `Forwarded`; then hops, or networks.
const TABLE: &[Row] = &[
    // Nobody is trusted.
    ("the peer is the client where nobody is trusted", "x0", &["1.1.1.1"], PEER),
    ("nor is Forwarded believed then", "f0", &["for=1.1.1.1"], PEER),
    ("no field at all, one hop: the peer", "x1", &[], PEER),
    ("a peer that is not trusted is the client itself", "x192.168.0.0/16", &["1.1.1.1"], PEER),
    // Trusted hops.
    ("one hop: the entry that the proxy wrote", "x1", &["1.1.1.1"], "1.1.1.1"),
    ("one hop: what the client invented on the left is not seen", "x1", &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
    ("two hops: the entry of the outer proxy", "x2", &["6.6.6.6, 1.1.1.1, 10.0.0.3"], "1.1.1.1"),
    ("more hops than entries: the leftmost entry", "x3", &["1.1.1.1, 10.0.0.3"], "1.1.1.1"),
    ("several lines are one list", "x2", &["6.6.6.6", "1.1.1.1", "10.0.0.3"], "1.1.1.1"),
    ("a line of the client before that of the proxy", "x1", &["6.6.6.6", "1.1.1.1"], "1.1.1.1"),
    ("lines with several entries each", "x3", &["6.6.6.6, 1.1.1.1", "10.0.0.4, 10.0.0.3"], "1.1.1.1"),
    ("empty elements do not count", "x2", &[", 1.1.1.1,, ,10.0.0.3,"], "1.1.1.1"),
    ("an empty line does not count", "x1", &["1.1.1.1", ""], "1.1.1.1"),
    ("no blanks", "x2", &["6.6.6.6,1.1.1.1,10.0.0.3"], "1.1.1.1"),
    ("blanks and tabs", "x1", &["6.6.6.6 ,\t 1.1.1.1 \t"], "1.1.1.1"),
    // Trusted networks.
    ("the first from the right that is not trusted", "x10.0.0.0/8", &["6.6.6.6, 1.1.1.1, 10.9.9.9"], "1.1.1.1"),
    ("all are trusted: the leftmost", "x10.0.0.0/8", &["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
    ("a trusted address on the far left is not reached", "x10.0.0.0/8", &["10.6.6.6, 1.1.1.1"], "1.1.1.1"),
    ("several networks and one address", "x10.0.0.2,172.16.0.0/12", &["1.1.1.1, 172.16.3.4"], "1.1.1.1"),
    ("an IPv6 network", "x10.0.0.0/8, fd00::/8", &["2001:db8::1, fd00::7"], "2001:db8::1"),
    ("a mapped entry is trusted as IPv4", "x10.0.0.0/8", &["1.1.1.1, ::ffff:10.9.9.9"], "1.1.1.1"),
    ("a mapped network is one of IPv4", "x::ffff:10.0.0.0/104", &["1.1.1.1, 10.9.9.9"], "1.1.1.1"),
    // NAT64.
    ("the client of a NAT64 is one of IPv4", "x1", &["64:ff9b::192.0.2.1"], "192.0.2.1"),
    ("so it is behind networks", "x10.0.0.0/8", &["6.6.6.6, 64:ff9b::192.0.2.1"], "192.0.2.1"),
    ("what comes by NAT64 is not trusted as IPv4", "x10.0.0.0/8", &["6.6.6.6, 64:ff9b::10.9.9.9"], "10.9.9.9"),
    ("but as it comes", "x10.0.0.2, 64:ff9b::10.9.9.9", &["1.1.1.1, 64:ff9b::10.9.9.9"], "1.1.1.1"),
    ("other prefixes are networks of IPv6", "x1", &["64:ff9b:1::192.0.2.1"], "64:ff9b:1::c000:201"),
    // Junk ends the search at the proxy that wrote it.
    ("junk: the peer", "x1", &["junk"], PEER),
    ("junk on the left of what is reached", "x2", &["junk, 1.1.1.1"], "1.1.1.1"),
    ("junk between does not lead further left", "x3", &["6.6.6.6, junk, 1.1.1.1"], "1.1.1.1"),
    ("unknown", "x2", &["6.6.6.6, unknown, 10.0.0.3"], "10.0.0.3"),
    ("octal is junk", "x1", &["010.1.1.1"], PEER),
    ("too few parts are junk", "x1", &["1.1.1"], PEER),
    ("a name is junk", "x1", &["example.com"], PEER),
    ("a quoted address is junk in X-Forwarded-For", "x1", &["\"1.1.1.1\""], PEER),
    ("a port beyond 65535 is junk", "x1", &["1.1.1.1:65536"], PEER),
    ("a port that is not a number is junk", "x1", &["1.1.1.1:http"], PEER),
    ("junk with networks", "x10.0.0.0/8", &["6.6.6.6, junk, 10.0.0.3"], "10.0.0.3"),
    // Notations.
    ("IPv4 with port", "x1", &["1.1.1.1:4711"], "1.1.1.1"),
    ("IPv6", "x1", &["2001:db8::1"], "2001:db8::1"),
    ("IPv6 in brackets", "x1", &["[2001:db8::1]"], "2001:db8::1"),
    ("IPv6 in brackets with port", "x1", &["[2001:db8::1]:443"], "2001:db8::1"),
    ("IPv6 with a zone", "x1", &["fe80::1%eth0"], "fe80::1"),
    ("IPv6 in brackets with a zone and a port", "x1", &["[fe80::1%25eth0]:80"], "fe80::1"),
    ("an empty zone is junk", "x1", &["fe80::1%"], PEER),
    ("a bracket that does not close is junk", "x1", &["[2001:db8::1"], PEER),
    ("something behind the bracket is junk", "x1", &["[2001:db8::1]x"], PEER),
    ("mapped IPv4", "x1", &["::ffff:192.0.2.1"], "192.0.2.1"),
    ("mapped IPv4 in hexadecimal, brackets, port", "x1", &["[::ffff:c000:201]:80"], "192.0.2.1"),
    // Forwarded.
    ("for", "f1", &["for=1.1.1.1"], "1.1.1.1"),
    ("names are not case-sensitive", "f1", &["FoR=1.1.1.1;Proto=https"], "1.1.1.1"),
    ("other parameters", "f1", &["by=10.0.0.9;for=1.1.1.1;host=a.example;proto=http"], "1.1.1.1"),
    ("quoted", "f1", &["for=\"1.1.1.1\""], "1.1.1.1"),
    ("quoted IPv6 with port", "f1", &["for=\"[2001:db8::1]:4711\""], "2001:db8::1"),
    ("several elements", "f2", &["for=6.6.6.6, for=1.1.1.1;proto=https, for=10.0.0.3"], "1.1.1.1"),
    ("several lines", "f2", &["for=6.6.6.6", "for=1.1.1.1", "for=10.0.0.3"], "1.1.1.1"),
    ("networks", "f10.0.0.0/8", &["for=6.6.6.6, for=\"1.1.1.1:80\", for=10.0.0.3"], "1.1.1.1"),
    ("obfuscated", "f2", &["for=6.6.6.6, for=_hidden, for=10.0.0.3"], "10.0.0.3"),
    ("unknown in Forwarded", "f1", &["for=unknown"], PEER),
    ("an obfuscated port", "f1", &["for=\"1.1.1.1:_port\""], "1.1.1.1"),
    ("an element without for", "f2", &["for=6.6.6.6, proto=https, for=10.0.0.3"], "10.0.0.3"),
    ("for twice in one element", "f1", &["for=6.6.6.6;for=1.1.1.1"], PEER),
    ("a quote of the client that does not close", "f1", &["for=\"6.6.6.6, for=1.1.1.1"], "1.1.1.1"),
    ("the same over two lines", "f1", &["for=\"6.6.6.6", "for=1.1.1.1"], "1.1.1.1"),
    ("a comma and a for within quotes", "f1", &["for=1.1.1.1;host=\"a, for=6.6.6.6\""], "1.1.1.1"),
    ("an escaped quote within quotes", "f1", &[r#"for=1.1.1.1;host="a\", for=6.6.6.6;x=""#], "1.1.1.1"),
    ("a for hidden in another parameter", "f1", &["host=\"x;for=6.6.6.6\";for=1.1.1.1"], "1.1.1.1"),
    ("an empty pair at the end", "f1", &["for=1.1.1.1;"], "1.1.1.1"),
    ("an empty pair at the beginning", "f1", &[" ;for=1.1.1.1"], "1.1.1.1"),
    ("empty pairs between others", "f1", &["for=1.1.1.1;; ;proto=https"], "1.1.1.1"),
    ("nothing but empty pairs", "f2", &["for=6.6.6.6, ;;, for=10.0.0.3"], "10.0.0.3"),
    ("escaped characters", "f1", &[r#"for="1\.1.\1.1""#], "1.1.1.1"),
    ("an escaped bracket", "f1", &[r#"for="\[2001:db8::1\]:80""#], "2001:db8::1"),
    ("an escape of nothing", "f1", &[r#"for="1.1.1.1\""#], PEER),
    ("an escape outside of quotes", "f1", &[r"for=1\.1.1.1"], PEER),
    ("a quote within quotes", "f1", &[r#"for="1.1"".1.1""#], PEER),
    ("no value", "f1", &["for"], PEER),
    ("a half-open quote of the proxy", "f1", &["for=\"1.1.1.1"], PEER),
    // The other field is not read.
    ("Forwarded is not X-Forwarded-For", "x1", &["for=1.1.1.1"], PEER),
];

fn client_ip(trust: &str) -> (ClientIp, HeaderName) {
    let (field, trust) = trust.split_at(1);
    let client = match trust.parse() {
        Ok(hops) => ClientIp::behind(hops),
        Err(_) => ClientIp::trusting(trust).unwrap(),
    };
    match field {
        "x" => (client, HeaderName::from_static("x-forwarded-for")),
        _ => (client.forwarded(), http::header::FORWARDED),
    }
}

fn headers(name: &HeaderName, lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(name, HeaderValue::from_str(line).unwrap());
    }
    headers
}

#[test]
fn the_address_of_the_client_is_what_trusted_proxies_tell() {
    assert!(TABLE.len() >= 40);
    for (what, trust, lines, expected) in TABLE {
        let (client, name) = client_ip(trust);
        let found = client.find(PEER.parse().ok(), &headers(&name, lines));
        assert_eq!(found, expected.parse().ok(), "{what}: {lines:?} with {trust}");
    }
}

#[test]
fn bytes_that_are_not_text_are_junk_and_hide_nothing_on_their_right() {
    let mut headers = HeaderMap::new();
    headers.append("x-forwarded-for", HeaderValue::from_bytes(b"6.6.6.6, \xff\xfe, 1.1.1.1").unwrap());
    assert_eq!(ClientIp::behind(3).find(PEER.parse().ok(), &headers), "1.1.1.1".parse().ok());
    assert_eq!(ClientIp::behind(2).find(None, &headers), "1.1.1.1".parse().ok());
}

#[test]
fn without_peer_the_address_is_known_only_from_trusted_hops() {
    let headers = headers(&HeaderName::from_static("x-forwarded-for"), &["1.1.1.1"]);
    assert_eq!(ClientIp::behind(1).find(None, &headers), "1.1.1.1".parse().ok());
    assert_eq!(ClientIp::peer().find(None, &headers), None);
    assert_eq!(ClientIp::trusting("10.0.0.0/8").unwrap().find(None, &headers), None);
}

#[test]
fn a_mapped_peer_is_trusted_as_ipv4() {
    let headers = headers(&HeaderName::from_static("x-forwarded-for"), &["1.1.1.1"]);
    let client = ClientIp::trusting("10.0.0.0/8").unwrap();
    assert_eq!(client.find("::ffff:10.0.0.2".parse().ok(), &headers), "1.1.1.1".parse().ok());
}

#[test]
fn a_network_that_is_none_is_refused_in_one_sentence() {
    for (text, shown) in [("10.0.0.0/33", "\"10.0.0.0/33\""), ("", "\"\""), ("10.0.0.1, x", "\"x\"")] {
        let error = ClientIp::trusting(text).unwrap_err().to_string();
        assert_eq!(error, format!("{shown} is neither an IP address nor a network such as 10.0.0.0/8"));
    }
}

#[test]
fn a_million_addresses_of_one_network_of_64_bits_are_one_client() {
    let client = ClientIp::peer();
    let first = client.mask("2001:db8:1:2::".parse().unwrap());
    let network = u128::from_be_bytes("2001:db8:1:2::".parse::<Ipv6Addr>().unwrap().octets());
    let mut host: u64 = 1;
    for _ in 0..1_000_000 {
        host = host.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        assert_eq!(client.mask(Ipv6Addr::from_bits(network | u128::from(host)).into()), first);
    }
    assert_ne!(client.mask("2001:db8:1:3::".parse().unwrap()), first);
    let single = ClientIp::peer().ipv6_prefix(128);
    assert_ne!(single.mask("2001:db8::1".parse().unwrap()), single.mask("2001:db8::2".parse().unwrap()));
    let all = ClientIp::peer().ipv6_prefix(0);
    assert_eq!(all.mask("2001:db8::1".parse().unwrap()), all.mask("::".parse().unwrap()));
    assert_eq!(client.mask("1.2.3.4".parse().unwrap()), "1.2.3.4".parse::<IpAddr>().unwrap());
}
