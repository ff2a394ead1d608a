//! Parts of what is stored (RFC 9110 §14).

use std::time::Duration;

use crate::{
    app::{Origin, get, get_with, request, respond, send},
    world::{Fields, World, app},
};

const URL: &str = "http://example.com/a";
const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

#[tokio::test]
async fn parts_are_cut_from_a_complete_response() {
    let rows: &[(&str, Fields, u16, &str, &str)] = &[
        ("9110 §14.1.2 first-last", &[("range", "bytes=2-4")], 206, "234", "bytes 2-4/10"),
        ("9110 §14.1.2 one byte", &[("range", "bytes=0-0")], 206, "0", "bytes 0-0/10"),
        ("9110 §14.1.2 first-", &[("range", "bytes=7-")], 206, "789", "bytes 7-9/10"),
        ("9110 §14.1.2 -length", &[("range", "bytes=-3")], 206, "789", "bytes 7-9/10"),
        ("9110 §14.1.2 beyond the end", &[("range", "bytes=7-99")], 206, "789", "bytes 7-9/10"),
        ("9110 §14.1.2 a longer suffix", &[("range", "bytes=-99")], 206, "0123456789", "bytes 0-9/10"),
        ("9110 §14.1 the unit in any case", &[("range", "BYTES=0-1")], 206, "01", "bytes 0-1/10"),
        ("9110 §15.5.17 outside", &[("range", "bytes=10-")], 416, "", "bytes */10"),
        ("9110 §15.5.17 an empty suffix", &[("range", "bytes=-0")], 416, "", "bytes */10"),
        ("9110 §14.2 another unit is ignored", &[("range", "lines=0-1")], 200, "0123456789", ""),
        ("9110 §14.2 nonsense is ignored", &[("range", "bytes=a-b")], 200, "0123456789", ""),
        ("9110 §14.2 backwards is ignored", &[("range", "bytes=4-2")], 200, "0123456789", ""),
        ("9110 §14.2 several parts may be ignored", &[("range", "bytes=0-1,4-5")], 200, "0123456789", ""),
        (
            "9110 §13.1.5 If-Range, the same tag",
            &[("range", "bytes=2-4"), ("if-range", "\"v1\"")],
            206,
            "234",
            "bytes 2-4/10",
        ),
        (
            "9110 §13.1.5 If-Range, another tag",
            &[("range", "bytes=2-4"), ("if-range", "\"v2\"")],
            200,
            "0123456789",
            "",
        ),
        (
            "9110 §13.1.5 If-Range, a weak tag",
            &[("range", "bytes=2-4"), ("if-range", "W/\"v1\"")],
            200,
            "0123456789",
            "",
        ),
        ("9110 §13.1.5 If-Range, the date", &[("range", "bytes=2-4"), ("if-range", OLD)], 206, "234", "bytes 2-4/10"),
        (
            "9110 §13.1.5 If-Range, a later date",
            &[("range", "bytes=2-4"), ("if-range", "Mon, 07 Nov 1994 08:49:37 GMT")],
            200,
            "0123456789",
            "",
        ),
        ("9110 §13.2.2 the condition comes first", &[("range", "bytes=2-4"), ("if-none-match", "\"v1\"")], 304, "", ""),
    ];
    for world in World::all().await {
        let origin = Origin::new(|_, _| {
            let fields =
                [("cache-control", "max-age=60"), ("etag", "\"v1\""), ("last-modified", OLD), ("content-type", "a/b")];
            respond(200, &fields, "0123456789")
        });
        let app = app(&world.cache(), &origin);
        get(&app, URL).await;
        for (why, fields, status, body, content_range) in rows {
            let answer = get_with(&app, URL, fields).await;
            assert_eq!(
                (answer.status, answer.body.as_str(), answer.field("content-range"), answer.x_cache()),
                (*status, *body, *content_range, "HIT"),
                "{}: {why}",
                world.name
            );
            if *status == 206 || *status == 200 {
                assert_eq!(answer.field("content-length"), body.len().to_string(), "{why}");
                assert_eq!((answer.field("etag"), answer.field("content-type")), ("\"v1\"", "a/b"), "{why}");
            }
        }
        let head = send(&app, request("HEAD", URL, &[("range", "bytes=2-4")])).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "RFC 9110 §14.2: Range is for GET only");
        assert_eq!(origin.count(), 1);
    }
}

#[tokio::test]
async fn a_range_of_what_is_not_stored_goes_to_the_origin_and_its_part_is_not_taken_for_the_whole() {
    for world in World::all().await {
        let origin = Origin::new(|request, n| {
            if request.headers().contains_key("range") {
                let fields = [
                    ("cache-control", "max-age=60"),
                    ("etag", "\"v1\""),
                    ("content-range", "bytes 0-1/8"),
                    ("content-length", "2"),
                ];
                respond(206, &fields, "an")
            } else {
                respond(200, &[("cache-control", "max-age=60"), ("etag", "\"v1\"")], format!("answer {n}"))
            }
        });
        let app = app(&world.cache(), &origin);
        for _ in 0..2 {
            let part = get_with(&app, URL, &[("range", "bytes=0-1")]).await;
            assert_eq!(
                (part.status, part.body.as_str(), part.x_cache(), part.detail()),
                (206, "an", "MISS", "partial")
            );
        }
        let whole = get(&app, URL).await;
        assert_eq!((whole.status, whole.body.as_str(), whole.x_cache()), (200, "answer 3", "MISS"), "{}", world.name);
        let part = get_with(&app, URL, &[("range", "bytes=-1")]).await;
        assert_eq!((part.status, part.body.as_str(), part.x_cache()), (206, "3", "HIT"));
    }
}

#[tokio::test]
async fn a_part_that_is_the_whole_is_stored_as_the_whole_if_all_agrees() {
    let rows: &[(&str, Fields, &str)] = &[
        ("9111 §3.3 it is", &[("etag", "\"v1\""), ("content-range", "bytes 0-7/8"), ("content-length", "8")], "HIT"),
        (
            "9111 §3.3 lengths disagree",
            &[("etag", "\"v1\""), ("content-range", "bytes 0-8/9"), ("content-length", "8")],
            "MISS",
        ),
        (
            "9111 §3.4 a weak validator",
            &[("etag", "W/\"v1\""), ("content-range", "bytes 0-7/8"), ("content-length", "8")],
            "MISS",
        ),
        ("9111 §3.3 a part", &[("etag", "\"v1\""), ("content-range", "bytes 0-7/9"), ("content-length", "8")], "MISS"),
        ("9111 §3.3 nonsense", &[("etag", "\"v1\""), ("content-range", "bytes x"), ("content-length", "8")], "MISS"),
    ];
    for world in World::all().await {
        for (number, (why, fields, want)) in rows.iter().enumerate() {
            let origin = Origin::new(move |request, n| {
                let mut all = vec![("cache-control", "max-age=60")];
                if request.headers().contains_key("range") {
                    all.extend_from_slice(fields);
                    respond(206, &all, format!("answer {n}"))
                } else {
                    respond(200, &all, format!("answer {n}"))
                }
            });
            let app = app(&world.cache().scope(&number.to_string()), &origin);
            let part = get_with(&app, URL, &[("range", "bytes=0-")]).await;
            assert_eq!((part.status, part.body.as_str()), (206, "answer 1"), "{why}");
            let whole = get(&app, URL).await;
            assert_eq!((whole.status, whole.x_cache()), (200, *want), "{} {why}: {whole:?}", world.name);
            assert!(!whole.headers.contains_key("content-range"), "{why}");
        }
    }
}

#[tokio::test]
async fn a_stale_response_is_validated_for_a_range_and_asked_for_whole() {
    for world in World::all().await {
        let origin = Origin::with(&[("cache-control", "max-age=10"), ("etag", "\"v1\"")]);
        let app = app(&world.cache().keep_stale(Duration::from_secs(100)), &origin);
        get(&app, URL).await;
        world.wait(11);
        let answer = get_with(&app, URL, &[("range", "bytes=0-2")]).await;
        assert!(!origin.last().2.contains_key("range"), "{}", world.name);
        assert!(matches!(answer.status, 200 | 206), "either is an answer to a range");
        assert_eq!(get(&app, URL).await.body, "answer 2");
    }
}
