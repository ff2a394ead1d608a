use std::time::Duration;

use http::header;
use proptest::prelude::*;

use super::{NOW, headers};
use crate::{
    Timestamp,
    backend::{Variant, VarySpec},
    policy::{
        MaxStale, NotStored, RequestDirectives, ResponseDirectives, age, cache_control, cache_status, date, hop_by_hop,
        lists, tags, targeted,
        vary::{self, Normalisers},
    },
};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn dates_are_read_in_three_formats_and_nothing_else() {
    let good = [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777),
        ("Sun Nov  6 08:49:37 1994", 784_111_777),
        ("Sun Nov 16 08:49:37 1994", 784_975_777),
        // names in any case, weekdays unchecked
        ("sUN, 06 nOV 1994 08:49:37 gmt", 784_111_777),
        ("Mon, 06 Nov 1994 08:49:37 GMT", 784_111_777),
        ("MONDAY, 06-NOV-94 08:49:37 GMT", 784_111_777),
        // beyond 2038 and 2^32 s; before the epoch; leap days and seconds
        ("Tue, 19 Jan 2038 03:14:08 GMT", 2_147_483_648),
        ("Sun, 07 Feb 2106 06:28:16 GMT", 4_294_967_296),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
        ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
        ("Tue, 29 Feb 2000 00:00:00 GMT", 951_782_400),
        ("Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_799),
        // RFC 850: at most 50 years ahead of 1994
        ("Sunday, 06-Nov-44 08:49:37 GMT", 2_362_034_977),
        ("Sunday, 06-Nov-45 08:49:37 GMT", -762_189_023),
    ];
    for (text, seconds) in good {
        assert_eq!(date::parse(text.as_bytes(), NOW), Some(seconds), "{text}");
    }
    let bad = [
        "",
        "0",
        "-1",
        "now",
        "Sun, 06 Nov 1994 08:49:37 EST",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun 06 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08.49.37 GMT",
        "Sun,  06 Nov 1994 08:49:37 GMT",
        "Sun, 06  Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Xyz, 06 Nov 1994 08:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Mon, 29 Feb 1900 00:00:00 GMT",
    ];
    for text in bad {
        assert_eq!(date::parse(text.as_bytes(), NOW), None, "{text}");
    }
}

#[test]
fn cache_control_of_responses_is_read_as_origins_write_it() {
    let age = |value: &str| ResponseDirectives::from_headers(&headers(&[("cache-control", value)])).max_age;
    // RFC 9111 §1.2.2, §4.2.1, §5.2
    let rows = [
        ("max-age=60", Some(60)),
        ("MaX-aGe=60", Some(60)),
        ("max-age=0060", Some(60)),
        ("max-age=\"60\"", Some(60)),
        ("max-age=99999999999999999999", Some(cache_control::MAX_DELTA)),
        ("max-age=-1", Some(0)),
        ("max-age=1.5", Some(0)),
        ("max-age='60'", Some(0)),
        ("max-age=abc", Some(0)),
        ("max-age=", Some(0)),
        ("max-age", Some(0)),
        ("max-age=60, max-age=10", Some(10)),
        ("max-age=10, max-age=60", Some(10)),
        ("foo=\"a, max-age=5\", max-age=60", Some(60)),
        ("foo=\"a\\\", max-age=5\", max-age=60", Some(60)),
        (", ,max-age=60 ,", Some(60)),
        ("max-age =60", None),
        ("x-max-age=60", None),
        ("unknown", None),
    ];
    for (value, expected) in rows {
        assert_eq!(age(value), expected.map(secs), "{value}");
    }
    let both =
        ResponseDirectives::from_headers(&headers(&[("cache-control", "public"), ("cache-control", "s-maxage=5")]));
    assert!(both.public);
    assert_eq!(both.s_maxage, Some(secs(5)));
}

#[test]
fn qualified_no_cache_and_private_concern_these_fields_only() {
    let read = |value| ResponseDirectives::from_headers(&headers(&[("cache-control", value)]));
    let one = read("private=\"Set-Cookie, x-a\", no-cache=\"etag\"");
    assert!(!one.private && !one.no_cache);
    assert_eq!(one.private_fields, ["set-cookie", "x-a"]);
    assert_eq!(one.no_cache_fields, ["etag"]);
    let empty = read("private=\"\", no-cache=\" , \"");
    assert!(empty.private && empty.no_cache);
}

#[test]
fn request_directives_and_pragma() {
    let read = |lines: &[(&str, &str)]| RequestDirectives::from_headers(&headers(lines));
    assert_eq!(read(&[("accept", "*/*")]), None);
    assert!(read(&[("pragma", "No-Cache")]).unwrap().no_cache);
    // §5.4: Pragma only where Cache-Control is absent
    assert!(!read(&[("pragma", "no-cache"), ("cache-control", "max-age=5")]).unwrap().no_cache);
    assert_eq!(read(&[("pragma", "other")]), None);
    let stale = |value| read(&[("cache-control", value)]).unwrap().max_stale;
    assert_eq!(stale("max-stale"), Some(MaxStale::Any));
    assert_eq!(stale("max-stale=5"), Some(MaxStale::For(secs(5))));
    assert_eq!(stale("max-stale=x"), Some(MaxStale::For(secs(0))));
    assert_eq!(stale("max-stale, max-stale=9"), Some(MaxStale::For(secs(9))));
}

#[test]
fn a_targeted_field_is_a_strict_dictionary() {
    // RFC 9213 §2.1
    let good = [
        ("max-age=60", Some(60)),
        ("max-age=0060", Some(60)),
        ("max-age=-1", Some(0)),
        ("max-age=1, max-age=9", Some(9)),
        ("no-store", None),
        ("foo=1.5", None),
        ("max-age=60;a=b", Some(60)),
    ];
    for (value, expected) in good {
        let read = targeted::parse(value.as_bytes()).unwrap_or_else(|| panic!("{value}"));
        assert_eq!(read.max_age, expected.map(secs), "{value}");
    }
    let absent = [
        "",
        "  ",
        "MaX-aGe=60",
        "max-age=\"60\"",
        "max-age=1.5",
        "max-age='60'",
        "max-age =60",
        "max-age",
        "max-age=(1)",
        "max-age=60,",
        "no-store=1",
        "max-age=9999999999999999",
        "&",
    ];
    for value in absent {
        assert_eq!(targeted::parse(value.as_bytes()), None, "{value}");
    }
    let lines = headers(&[("b", "max-age=2"), ("a", "junk("), ("c", "max-age=3")]);
    let targets = ["a", "b", "c"].map(header::HeaderName::from_static);
    assert_eq!(targeted::from_headers(&lines, &targets).unwrap().max_age, Some(secs(2)));
}

#[test]
fn received_ages_take_the_first_member_of_the_first_line() {
    // §5.1, §4.2.3
    let rows = [
        ("60", 60),
        ("60, 10", 60),
        ("10, 60", 10),
        ("-5", 0),
        ("1.5", 0),
        ("x", 0),
        ("", 0),
        ("007", 7),
        ("99999999999999999999", cache_control::MAX_DELTA),
    ];
    for (value, expected) in rows {
        assert_eq!(age::received(&headers(&[("age", value)])), secs(expected), "{value}");
    }
    assert_eq!(age::received(&headers(&[("age", "4"), ("age", "9")])), secs(4));
}

#[test]
fn the_initial_age_is_the_larger_of_two_in_milliseconds() {
    let sent = NOW;
    let received = NOW.plus(Duration::from_millis(1500));
    let initial = |lines: &[(&str, &str)]| age::initial(&headers(lines), sent, received);
    assert_eq!(initial(&[("age", "3")]), Duration::from_millis(4500));
    assert_eq!(initial(&[("date", "Sun, 06 Nov 1994 08:49:27 GMT"), ("age", "3")]), Duration::from_millis(11_500));
    assert_eq!(initial(&[("date", "junk")]), Duration::from_millis(1500));
    assert_eq!(initial(&[("date", "Sun, 06 Nov 1995 08:49:27 GMT")]), Duration::from_millis(1500));
}

#[test]
fn vary_of_all_lines_names_fields_in_one_form() {
    let spec = |lines: &[(&str, &str)]| vary::spec(&headers(lines));
    assert_eq!(spec(&[]), Ok(VarySpec::none()));
    assert_eq!(spec(&[("vary", " , ,")]), Ok(VarySpec::none()));
    assert_eq!(spec(&[("vary", "B, a"), ("vary", "a,,c")]), spec(&[("vary", "A,b,C")]));
    assert_eq!(spec(&[("vary", "a"), ("vary", "b, *")]), Err(NotStored::VaryStar));
    assert_eq!(spec(&[("vary", "a b")]), Err(NotStored::VaryNames));
    assert!(spec(&[("vary", "a,b,c,d,e,f,g,h")]).is_ok());
    assert_eq!(spec(&[("vary", "a,b,c,d,e,f,g,h,i")]), Err(NotStored::VaryNames));
    assert!(!spec(&[("vary", "-")]).unwrap().is_none());
}

fn variant_of(names: &str, request: &[(&str, &str)], normalise: &Normalisers) -> Variant {
    let spec = vary::spec(&headers(&[("vary", names)])).unwrap();
    vary::variant(&spec, &headers(request), normalise)
}

#[test]
fn requests_select_the_same_variant_where_their_fields_mean_the_same() {
    let plain = Normalisers::default();
    let same = |names: &str, a: &[(&str, &str)], b: &[(&str, &str)]| {
        variant_of(names, a, &plain) == variant_of(names, b, &plain)
    };
    assert!(!same("a", &[("a", "1, 2")], &[("a", "1"), ("a", "2")]));
    assert!(same("accept", &[("accept", "1, 2")], &[("accept", "1"), ("accept", "2")]));
    assert!(same("cookie", &[("cookie", "a=1; b=2")], &[("cookie", "a=1"), ("cookie", "b=2")]));
    assert!(same("accept", &[("accept", "1 ,2,")], &[("accept", "1,2")]));
    assert!(!same("a", &[("a", "1 ,2")], &[("a", "1,2")]) && !same("a", &[("a", "1,")], &[("a", "1")]));
    assert!(!same("a", &[("a", "\"1 ,2\"")], &[("a", "\"1,2\"")]));
    assert!(!same("a", &[("a", "")], &[]));
    assert!(!same("a", &[("a", "1,2")], &[("a", "2,1")]));
    assert!(!same("a, b", &[("a", "x")], &[("b", "x")]));
    assert!(!same("a, b", &[("a", "12"), ("b", "3")], &[("a", "1"), ("b", "23")]));
    assert!(same("accept-language", &[("accept-language", "de-AT")], &[("accept-language", "DE-at")]));
    assert!(!same("a", &[("a", "X")], &[("a", "x")]));
    assert_eq!(vary::variant(&VarySpec::none(), &headers(&[("a", "1")]), &plain), Variant(None));
}

#[test]
fn normalisers_join_requests_that_want_the_same() {
    let few = Normalisers { encodings: vec!["br".into(), "gzip".into()], languages: vec!["en".into(), "de".into()] };
    let one = |name: &str, value: &str| variant_of(name, &[(name, value)], &few);
    let rows = [
        ("accept-encoding", "gzip, deflate, br", "br;q=0.1", true),
        ("accept-encoding", "gzip", "gzip, deflate", true),
        ("accept-encoding", "gzip;q=0, br", "br", true),
        ("accept-encoding", "br;q=0, gzip", "br", false),
        ("accept-encoding", "*", "br", true),
        ("accept-encoding", "deflate", "identity", true),
        ("accept-language", "de-AT, en;q=0.5", "de", true),
        ("accept-language", "fr", "en", true),
        ("accept-language", "en;q=0.5, de;q=0.8", "de", true),
        ("accept-language", "en", "de", false),
    ];
    for (name, a, b, same) in rows {
        assert_eq!(one(name, a) == one(name, b), same, "{a} and {b}");
    }
}

#[test]
fn hop_by_hop_fields_go_with_those_that_connection_names() {
    let mut fields = headers(&[
        ("connection", "close, X-Mine"),
        ("connection", "x-other"),
        ("x-mine", "1"),
        ("x-other", "1"),
        ("keep-alive", "1"),
        ("transfer-encoding", "chunked"),
        ("proxy-authenticate", "x"),
        ("etag", "\"v\""),
    ]);
    hop_by_hop::remove(&mut fields);
    assert_eq!(fields.keys().collect::<Vec<_>>(), [header::ETAG]);
}

#[test]
fn tags_come_from_all_fields_and_too_many_or_bad_ones_are_refused() {
    let origin = ("https", "example.org");
    let count = |lines: &[(&str, &str)]| tags::collect(&headers(lines), origin, []).map(|tags| tags.len());
    assert_eq!(count(&[("surrogate-key", "a  b a"), ("cache-tag", "c, d ,"), ("edge-cache-tag", "a,e")]), Ok(5));
    assert_eq!(count(&[("cache-groups", "\"a\", \"b c\"")]), Ok(2));
    assert_eq!(count(&[("cache-groups", "a, \"b\"")]), Ok(0));
    let many = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>().join(" ");
    assert_eq!(count(&[("surrogate-key", &many(64))]), Ok(64));
    assert_eq!(count(&[("surrogate-key", &many(65))]), Err(tags::BadTags));
    assert_eq!(count(&[("surrogate-key", &"x".repeat(256))]), Ok(1));
    assert_eq!(count(&[("surrogate-key", &"x".repeat(257))]), Err(tags::BadTags));
    assert_eq!(count(&[("cache-tag", "two words")]), Err(tags::BadTags));
    // RFC 9875 §2.1: a group belongs to its origin
    let stored = tags::collect(&headers(&[("cache-groups", "\"g\"")]), origin, []).unwrap();
    let hit = |origin| tags::invalidated_groups(&headers(&[("cache-group-invalidation", "\"g\"")]), origin);
    assert_eq!(hit(("https", "EXAMPLE.org")), stored);
    assert_ne!(hit(("https", "example.com")), stored);
}

#[test]
fn cache_status_is_written_and_read_back() {
    use cache_status::{Builder, CacheStatus, Forward};
    let value = Builder::new("gatehouse")
        .forward(Forward::UriMiss)
        .forward_status(http::StatusCode::OK)
        .ttl(-3)
        .stored()
        .collapsed()
        .key("a\"\\\u{e9}b")
        .detail("no-freshness")
        .build();
    assert_eq!(
        value,
        "gatehouse; fwd=uri-miss; fwd-status=200; ttl=-3; stored; collapsed; key=\"a\\\"\\\\b\"; detail=no-freshness"
    );
    let mut fields = headers(&[("cache-status", "origin; hit")]);
    fields.append("cache-status", value);
    let status = CacheStatus::from_headers(&fields).unwrap();
    assert_eq!((status.cache(), status.is_hit(), status.ttl()), ("gatehouse", false, Some(-3)));
    assert_eq!((status.forward(), status.forward_status()), (Some(Forward::UriMiss), Some(200)));
    assert_eq!((status.key(), status.detail()), (Some("a\"\\b"), Some("no-freshness")));
    assert!(status.is_stored() && status.is_collapsed() && CacheStatus::all(&fields)[0].is_hit());
    assert_eq!(Builder::new("gatehouse").hit().ttl(42).build(), "gatehouse; hit; ttl=42");
    assert_eq!(CacheStatus::from_headers(&headers(&[("cache-status", "(")])), None);
}

proptest! {
    #[test]
    fn dates_that_are_written_are_read_back(seconds in 0_u64..253_402_300_800) {
        let value = date::format(Timestamp::from_micros(seconds * 1_000_000));
        prop_assert_eq!(date::parse(value.as_bytes(), NOW), Some(i64::try_from(seconds).unwrap()));
    }

    #[test]
    fn parsers_take_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = date::parse(&bytes, NOW);
        let _ = targeted::parse(&bytes);
        for directive in cache_control::directives(&bytes) {
            prop_assert!(directive.name.contains(&b'"') || !directive.name.iter().any(|b| b"=,".contains(b)));
        }
    }

    #[test]
    fn lists_without_quotes_split_at_each_comma(text in "[a-z ,=]{0,40}") {
        let naive: Vec<&[u8]> = text.split(',').map(|m| m.trim_matches(' ').as_bytes()).filter(|m| !m.is_empty()).collect();
        prop_assert_eq!(lists::members(text.as_bytes()).collect::<Vec<_>>(), naive);
    }
}
