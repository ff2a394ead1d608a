use http::{HeaderMap, Method, StatusCode, Uri, header};

use super::headers;
use crate::policy::{
    Profile, invalidation,
    range::{self, Partial, Ranged},
    validation::{self, Conditions, HeadAnswer},
};

const OLD: &str = "Sun, 06 Nov 1994 08:48:37 GMT";
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn stored() -> HeaderMap {
    headers(&[("etag", "\"v1\""), ("last-modified", OLD), ("date", DATE), ("cache-control", "max-age=9"), ("x-a", "1")])
}

#[test]
fn the_clients_conditions_are_answered_from_the_store() {
    let answer =
        |lines: &[(&str, &str)]| validation::not_modified(&Method::GET, &headers(lines), StatusCode::OK, &stored());
    let rows: [(&[(&str, &str)], bool); 11] = [
        (&[("if-none-match", "\"v1\"")], true),
        (&[("if-none-match", "W/\"v1\"")], true),
        (&[("if-none-match", "\"a,b\", \"v1\"")], true),
        (&[("if-none-match", "\"a\""), ("if-none-match", "\"v1\"")], true),
        (&[("if-none-match", "*")], true),
        (&[("if-none-match", "\"v2\"")], false),
        (&[("if-none-match", "\"v2\""), ("if-modified-since", DATE)], false),
        (&[("if-modified-since", OLD)], true),
        (&[("if-modified-since", "Sun, 06 Nov 1994 08:48:36 GMT")], false),
        (&[("if-modified-since", "junk")], false),
        (&[], false),
    ];
    for (request, expected) in rows {
        assert_eq!(answer(request), expected, "{request:?}");
    }
    let tag = headers(&[("if-none-match", "\"v1\"")]);
    assert!(!validation::not_modified(&Method::POST, &tag, StatusCode::OK, &stored()));
    assert!(!validation::not_modified(&Method::GET, &tag, StatusCode::NOT_FOUND, &stored()));
    let mut names: Vec<_> =
        validation::not_modified_fields(&stored(), &[]).into_iter().filter_map(|(n, _)| n).collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    assert_eq!(names, [header::CACHE_CONTROL, header::DATE, header::ETAG]);
}

#[test]
fn the_caches_conditions_replace_the_clients() {
    let mut request =
        headers(&[("if-none-match", "\"v0\""), ("range", "bytes=0-1"), ("if-range", "\"v0\""), ("a", "b")]);
    Conditions::validating(&stored()).replace(&mut request);
    assert_eq!(request, headers(&[("if-none-match", "\"v1\""), ("if-modified-since", OLD), ("a", "b")]));
}

#[test]
fn a_304_updates_what_its_validator_selects() {
    let selects = |lines: &[(&str, &str)]| validation::selects(&stored(), &headers(lines));
    assert!(selects(&[("etag", "\"v1\"")]) && selects(&[("etag", "W/\"v1\"")]) && selects(&[]));
    assert!(!selects(&[("etag", "\"v2\"")]) && !selects(&[("etag", "\"v2\""), ("last-modified", OLD)]));
    assert!(!selects(&[("etag", "W/\"v2\"")]) && !selects(&[("etag", "W/\"v2\""), ("last-modified", OLD)]));
    // A tag that is new says nothing against a date that cannot stand for two.
    let dated = |date: &str, tag: &str| {
        let stored = headers(&[("last-modified", OLD), ("date", date)]);
        validation::selects(&stored, &headers(&[("etag", tag), ("last-modified", OLD)]))
    };
    assert!(dated(DATE, "\"v2\"") && dated(DATE, "W/\"v2\"") && dated(OLD, "W/\"v2\""));
    assert!(!dated(OLD, "\"v2\""), "it may have changed within that second");
    let mut merged = stored();
    let update = headers(&[
        ("x-a", "2"),
        ("x-a", "3"),
        ("content-foo", "new"),
        ("content-length", "0"),
        ("transfer-encoding", "chunked"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("set-cookie", "a=b"),
    ]);
    validation::merge(&mut merged, &update, Profile::Safe);
    let mut expected = stored();
    expected.remove("x-a");
    expected.extend(headers(&[("x-a", "2"), ("x-a", "3"), ("content-foo", "new")]));
    assert_eq!(merged, expected);
}

#[test]
fn a_head_answer_updates_or_invalidates() {
    let judge = |status, lines: &[(&str, &str)]| {
        validation::head_answer(&stored(), 5, StatusCode::from_u16(status).unwrap(), &headers(lines))
    };
    assert_eq!(judge(200, &[("etag", "\"v1\""), ("content-length", "5")]), HeadAnswer::Update);
    assert_eq!(judge(200, &[("etag", "\"v2\"")]), HeadAnswer::Invalidate);
    assert_eq!(judge(200, &[("content-length", "6")]), HeadAnswer::Invalidate);
    assert_eq!(judge(503, &[("etag", "\"v2\"")]), HeadAnswer::Nothing);
}

#[test]
fn ranges_have_three_forms() {
    let full = Ranged::Full;
    let rows = [
        ("bytes=0-0", Ranged::Part(0..1)),
        ("bytes=2-99", Ranged::Part(2..10)),
        ("bytes=4-", Ranged::Part(4..10)),
        ("bytes=-3", Ranged::Part(7..10)),
        ("bytes=-99", Ranged::Part(0..10)),
        ("Bytes=1-2", Ranged::Part(1..3)),
        ("bytes=10-", Ranged::Unsatisfiable),
        ("bytes=-0", Ranged::Unsatisfiable),
        ("bytes=99999999999999999999-", Ranged::Unsatisfiable),
        ("bytes=5-2", full.clone()),
        ("bytes=0-1,4-5", full.clone()),
        ("bytes=a-b", full.clone()),
        ("bytes=-", full.clone()),
        ("lines=0-1", full.clone()),
        ("junk", full.clone()),
    ];
    let select =
        |request: &[(&str, &str)]| range::select(&Method::GET, &headers(request), StatusCode::OK, &stored(), 10);
    for (value, expected) in rows {
        assert_eq!(select(&[("range", value)]), expected, "{value}");
    }
    let part = Ranged::Part(0..1);
    for (condition, expected) in
        [("\"v1\"", &part), ("W/\"v1\"", &full), ("\"v2\"", &full), (OLD, &part), (DATE, &full)]
    {
        assert_eq!(select(&[("range", "bytes=0-0"), ("if-range", condition)]), *expected, "{condition}");
    }
    assert_eq!(range::content_range(&(2..5), 10).unwrap(), "bytes 2-4/10");
    assert_eq!(range::unsatisfied(10).unwrap(), "bytes */10");
}

#[test]
fn partial_content_must_agree_with_itself_and_have_a_strong_validator() {
    let of = |range, tag, len| Partial::of(&headers(&[("content-range", range), ("etag", tag)]), len);
    assert!(of("bytes 0-9/10", "\"v\"", 10).unwrap().is_complete());
    assert!(!of("bytes 2-4/10", "\"v\"", 3).unwrap().is_complete());
    assert_eq!(of("bytes 2-4/10", "\"v\"", 4), None);
    assert_eq!(of("bytes 2-4/10", "W/\"v\"", 3), None);
    assert_eq!(of("bytes 2-4/*", "\"v\"", 3), None);
    assert_eq!(of("bytes 8-12/10", "\"v\"", 5), None);
}

#[test]
fn unsafe_methods_invalidate_on_success() {
    let applies =
        |method: &str, status| invalidation::applies(&method.parse().unwrap(), StatusCode::from_u16(status).unwrap());
    assert!(applies("POST", 200) && applies("M-SEARCH", 204) && applies("DELETE", 303));
    assert!(!applies("POST", 404) && !applies("PUT", 500) && !applies("GET", 200) && !applies("QUERY", 200));
    let target: Uri = "http://example.org/a/b?c=d".parse().unwrap();
    let also = |value| invalidation::also(&target, &headers(&[("location", value)])).first().map(Uri::to_string);
    let rows = [
        ("/x", Some("http://example.org/x")),
        ("x", Some("http://example.org/a/x")),
        ("../x/./y?q#f", Some("http://example.org/x/y?q")),
        ("?z", Some("http://example.org/a/b?z")),
        ("http://EXAMPLE.org:80/x", Some("http://EXAMPLE.org:80/x")),
        ("//example.org/x", Some("http://example.org/x")),
        ("https://example.org/x", None),
        ("http://example.org:81/x", None),
        ("http://evil.org/x", None),
        ("#f", None),
    ];
    for (value, expected) in rows {
        assert_eq!(also(value).as_deref(), expected, "{value}");
    }
}
