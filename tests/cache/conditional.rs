//! The client's own conditions, answered by the cache (RFC 9110 §13, RFC 9111 §4.3.2).

use crate::{
    app::{Origin, get, get_with, request, respond, send},
    world::{Fields, World, app, borrowed},
};

const URL: &str = "http://example.com/a";
const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const OLDER: &str = "Sat, 05 Nov 1994 08:49:37 GMT";
const NEWER: &str = "Mon, 07 Nov 1994 08:49:37 GMT";

#[tokio::test]
async fn the_clients_condition_is_answered_from_what_is_stored() {
    let rows: &[(&str, Fields, u16)] = &[
        ("9110 §13.1.2 the same tag", &[("if-none-match", "\"v1\"")], 304),
        ("9110 §13.1.2 another tag", &[("if-none-match", "\"v2\"")], 200),
        ("9110 §13.1.2 weak comparison", &[("if-none-match", "W/\"v1\"")], 304),
        ("9110 §13.1.2 a list", &[("if-none-match", "\"v0\", \"v1\", \"v2\"")], 304),
        ("9110 §13.1.2 a list without it", &[("if-none-match", "\"v0\", \"v2\"")], 200),
        ("9110 §13.1.2 several lines", &[("if-none-match", "\"v0\""), ("if-none-match", "\"v1\"")], 304),
        ("9110 §13.1.2 any", &[("if-none-match", "*")], 304),
        ("9110 §8.8.3 a comma in a tag", &[("if-none-match", "\"v0,v1\"")], 200),
        ("9110 §13.1.3 the same date", &[("if-modified-since", OLD)], 304),
        ("9110 §13.1.3 a later date", &[("if-modified-since", NEWER)], 304),
        ("9110 §13.1.3 an earlier date", &[("if-modified-since", OLDER)], 200),
        ("9110 §13.1.3 RFC 850", &[("if-modified-since", "Monday, 07-Nov-94 08:49:37 GMT")], 304),
        ("9110 §13.1.3 no date", &[("if-modified-since", "nonsense")], 200),
        ("9110 §13.2.2 the tag wins", &[("if-none-match", "\"v2\""), ("if-modified-since", NEWER)], 200),
        ("9110 §13.2.2 the tag wins", &[("if-none-match", "\"v1\""), ("if-modified-since", OLDER)], 304),
    ];
    for world in World::all().await {
        let fields: Fields = &[
            ("cache-control", "max-age=60"),
            ("etag", "\"v1\""),
            ("last-modified", OLD),
            ("date", "{now}"),
            ("expires", "{now+60}"),
            ("content-location", "/b"),
            ("vary", "x-a"),
            ("content-type", "text/plain"),
            ("content-language", "en"),
        ];
        let fields = world.fields(fields);
        let origin = Origin::new(move |_, _| respond(200, &borrowed(&fields), "content"));
        let app = app(&world.cache(), &origin);
        get(&app, URL).await;
        for (why, condition, status) in rows {
            for method in ["GET", "HEAD"] {
                let answer = send(&app, request(method, URL, condition)).await;
                assert_eq!((answer.status, answer.x_cache()), (*status, "HIT"), "{} {why}: {answer:?}", world.name);
                if *status == 304 {
                    assert_eq!(answer.body, "", "{why}");
                    for name in ["etag", "date", "cache-control", "content-location", "expires", "vary", "age"] {
                        assert!(answer.headers.contains_key(name), "{why}: RFC 9110 §15.4.5 {name}");
                    }
                    for name in ["content-type", "content-language", "content-length", "last-modified"] {
                        assert!(!answer.headers.contains_key(name), "{why}: {name}");
                    }
                }
            }
        }
        assert_eq!(origin.count(), 1);
    }
}

#[tokio::test]
async fn without_a_tag_the_date_is_the_validator() {
    for world in World::all().await {
        let origin = Origin::with(&[("cache-control", "max-age=60"), ("last-modified", OLD)]);
        let app = app(&world.cache(), &origin);
        get(&app, URL).await;
        let same = get_with(&app, URL, &[("if-modified-since", OLD)]).await;
        assert_eq!((same.status, same.field("last-modified")), (304, OLD));
        assert_eq!(get_with(&app, URL, &[("if-none-match", "\"v1\"")]).await.status, 200);
        assert_eq!(get_with(&app, URL, &[("if-modified-since", OLDER)]).await.status, 200);
    }
}

#[tokio::test]
async fn conditions_that_only_the_origin_can_evaluate_go_there() {
    for world in World::all().await {
        let origin = Origin::with(&[("cache-control", "max-age=60"), ("etag", "\"v1\"")]);
        let app = app(&world.cache(), &origin);
        get(&app, URL).await;
        for condition in [("if-match", "\"v1\""), ("if-unmodified-since", OLD)] {
            let before = origin.count();
            let answer = get_with(&app, URL, &[condition]).await;
            assert_eq!((answer.x_cache(), answer.detail(), origin.count()), ("BYPASS", "precondition", before + 1));
            assert!(origin.last().2.contains_key(condition.0));
        }
        assert_eq!(get(&app, URL).await.x_cache(), "HIT");
    }
}

#[tokio::test]
async fn only_successes_are_answered_by_304() {
    for world in World::all().await {
        for status in [404, 410, 301, 500] {
            let origin =
                Origin::new(move |_, _| respond(status, &[("cache-control", "max-age=60"), ("etag", "\"v1\"")], "x"));
            let app = app(&world.cache().scope(&status.to_string()), &origin);
            get(&app, URL).await;
            let answer = get_with(&app, URL, &[("if-none-match", "\"v1\"")]).await;
            assert_eq!((answer.status, answer.x_cache()), (status, "HIT"), "RFC 9110 §13.2.1");
        }
    }
}

#[tokio::test]
async fn a_client_that_validates_what_is_not_stored_gets_its_304_and_the_store_the_whole() {
    for world in World::all().await {
        let origin = Origin::new(|request, _| {
            assert!(!request.headers().contains_key("if-none-match"));
            respond(200, &[("cache-control", "max-age=60"), ("etag", "\"v1\"")], "content")
        });
        let app = app(&world.cache(), &origin);
        let filled = get_with(&app, URL, &[("if-none-match", "\"v1\"")]).await;
        assert_eq!((filled.status, filled.body.as_str(), filled.x_cache()), (304, "", "MISS"));
        // The fill goes on without its client.
        let mut hit = get(&app, URL).await;
        for _ in 0..100 {
            if hit.x_cache() == "HIT" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            hit = get(&app, URL).await;
        }
        assert_eq!((hit.x_cache(), hit.body.as_str()), ("HIT", "content"), "{}", world.name);
    }
}

#[tokio::test]
async fn what_is_not_stored_answers_conditions_too() {
    for world in World::all().await {
        let origin = Origin::with(&[("cache-control", "no-store"), ("etag", "\"v1\"")]);
        let app = app(&world.cache(), &origin);
        let answer = get_with(&app, URL, &[("if-none-match", "\"v1\"")]).await;
        assert_eq!((answer.status, answer.body.as_str(), answer.detail()), (304, "", "no-store"));
        let other = get_with(&app, URL, &[("if-none-match", "\"v2\"")]).await;
        assert_eq!((other.status, other.body.as_str()), (200, "answer 2"));
    }
}
