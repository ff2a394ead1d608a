//! What the origin's 304 and its answers to HEAD do to what is stored (RFC 9111 §3.2, §4.3).

use crate::{
    app::{Origin, get, get_with, request, respond, send},
    world::{World, app},
};

const URL: &str = "http://example.com/a";
const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

#[tokio::test]
async fn a_stale_response_is_asked_about_with_its_own_validators_and_the_fields_of_the_request() {
    for world in World::all().await {
        let origin = Origin::with(&[("cache-control", "max-age=10"), ("etag", "W/\"v1\""), ("last-modified", OLD)]);
        let app = app(&world.cache(), &origin);
        get(&app, URL).await;
        world.wait(11);
        let fields = [
            ("if-none-match", "\"client\""),
            ("if-modified-since", "Mon, 07 Nov 1994 08:49:37 GMT"),
            ("if-range", "\"client\""),
            ("range", "bytes=0-1"),
            ("x-a", "1"),
            ("user-agent", "test"),
        ];
        get_with(&app, URL, &fields).await;
        let (_, _, asked) = origin.last();
        assert_eq!(
            (&asked["if-none-match"], &asked["if-modified-since"]),
            (&"W/\"v1\"".parse().unwrap(), &OLD.parse().unwrap())
        );
        assert!(!asked.contains_key("range") && !asked.contains_key("if-range"), "{}", world.name);
        assert_eq!((&asked["x-a"], &asked["user-agent"]), (&"1".parse().unwrap(), &"test".parse().unwrap()));
    }
}

#[tokio::test]
async fn a_304_replaces_and_adds_fields_but_not_the_length() {
    for world in World::all().await {
        let origin = Origin::new(|request, _| {
            if request.headers().contains_key("if-none-match") {
                let fields = [
                    ("etag", "\"v1\""),
                    ("cache-control", "max-age=100"),
                    ("x-a", "new"),
                    ("x-b", "1"),
                    ("x-b", "2"),
                    ("x-added", "yes"),
                    ("content-x", "new"),
                    ("content-type", "text/new"),
                    ("content-length", "0"),
                    ("connection", "x-hop"),
                    ("x-hop", "1"),
                    ("age", "0"),
                ];
                respond(304, &fields, "")
            } else {
                let fields = [
                    ("etag", "\"v1\""),
                    ("cache-control", "max-age=10"),
                    ("x-a", "old"),
                    ("x-b", "old"),
                    ("x-kept", "yes"),
                    ("content-x", "old"),
                    ("content-type", "text/old"),
                    ("age", "5"),
                ];
                respond(200, &fields, "content")
            }
        });
        let app = app(&world.cache(), &origin);
        get(&app, URL).await;
        world.wait(11);
        for (x_cache, wait) in [("REVALIDATED", 90), ("HIT", 0)] {
            let answer = get(&app, URL).await;
            assert_eq!(
                (answer.x_cache(), answer.status, answer.body.as_str()),
                (x_cache, 200, "content"),
                "{answer:?}"
            );
            for (name, value) in [
                ("x-a", "new"),
                ("x-added", "yes"),
                ("x-kept", "yes"),
                ("content-x", "new"),
                ("content-type", "text/new"),
                ("content-length", "7"),
                ("cache-control", "max-age=100"),
            ] {
                assert_eq!(answer.field(name), value, "{} {x_cache}: {name}", world.name);
            }
            assert_eq!(answer.headers.get_all("x-b").iter().collect::<Vec<_>>(), ["1", "2"]);
            assert!(!answer.headers.contains_key("x-hop"));
            assert_eq!(answer.headers.get_all("age").iter().count(), 1, "the stored Age is dropped");
            world.wait(wait);
        }
        world.wait(11);
        assert_eq!(get(&app, URL).await.x_cache(), "REVALIDATED", "its lifetime began anew, once");
    }
}

#[tokio::test]
async fn after_a_validation_the_clients_own_condition_is_answered() {
    for world in World::all().await {
        let origin = Origin::new(|request, _| {
            let status = if request.headers().contains_key("if-none-match") { 304 } else { 200 };
            respond(status, &[("etag", "\"v1\""), ("cache-control", "max-age=10")], "content")
        });
        let app = app(&world.cache(), &origin);
        get(&app, URL).await;
        let rows = [("\"v1\"", 304, ""), ("\"v2\"", 200, "content")];
        for (tag, status, body) in rows {
            world.wait(11);
            let answer = get_with(&app, URL, &[("if-none-match", tag)]).await;
            assert_eq!((answer.x_cache(), answer.status, answer.body.as_str()), ("REVALIDATED", status, body));
            assert_eq!(origin.last().2["if-none-match"], "\"v1\"", "{}", world.name);
        }
        world.wait(11);
        let part = get_with(&app, URL, &[("range", "bytes=0-2")]).await;
        assert_eq!((part.x_cache(), part.status, part.body.as_str()), ("REVALIDATED", 206, "con"));
    }
}

#[tokio::test]
async fn a_new_response_replaces_the_stale_one_also_if_it_cannot_be_reused() {
    for world in World::all().await {
        for (second, third) in [("max-age=60", "HIT"), ("no-store", "MISS")] {
            let origin = Origin::new(move |_, n| {
                let control = if n == 1 { "max-age=10" } else { second };
                respond(200, &[("cache-control", control), ("etag", &format!("\"{n}\""))], format!("answer {n}"))
            });
            let app = app(&world.cache().scope(second), &origin);
            get(&app, URL).await;
            world.wait(11);
            let replaced = get(&app, URL).await;
            assert_eq!((replaced.x_cache(), replaced.body.as_str()), ("MISS", "answer 2"));
            assert_eq!(replaced.cache.as_ref().unwrap().forward().unwrap().as_str(), "stale");
            let after = get(&app, URL).await;
            assert_eq!(after.x_cache(), third, "{} {second}", world.name);
            if third == "MISS" {
                assert!(!origin.last().2.contains_key("if-none-match"), "the old one is gone");
                assert_eq!(after.cache.as_ref().unwrap().forward().unwrap().as_str(), "uri-miss");
            }
        }
    }
}

#[tokio::test]
async fn a_304_about_another_response_does_not_refresh_this_one() {
    for world in World::all().await {
        let origin = Origin::new(|request, n| {
            if request.headers().contains_key("if-none-match") {
                respond(304, &[("etag", "\"other\""), ("cache-control", "max-age=60")], "")
            } else {
                respond(200, &[("etag", "\"v1\""), ("cache-control", "max-age=10")], format!("answer {n}"))
            }
        });
        let app = app(&world.cache(), &origin);
        get(&app, URL).await;
        world.wait(11);
        let mismatch = get(&app, URL).await;
        assert_ne!(mismatch.x_cache(), "REVALIDATED", "{}: {mismatch:?}", world.name);
        assert_eq!(get(&app, URL).await.body, "answer 3", "the origin is asked for the whole");
    }
}

#[tokio::test]
async fn head_is_answered_from_a_stored_get_and_fills_nothing() {
    for world in World::all().await {
        let origin = Origin::new(|request, n| {
            let body = if request.method() == "HEAD" { String::new() } else { format!("answer {n}") };
            respond(200, &[("cache-control", "max-age=60")], body)
        });
        let app = app(&world.cache(), &origin);
        for _ in 0..2 {
            assert_eq!(send(&app, request("HEAD", URL, &[])).await.x_cache(), "MISS", "HEAD never fills");
        }
        assert_eq!(origin.last().0, "HEAD");
        assert_eq!(get(&app, URL).await.body, "answer 3");
        let head = send(&app, request("HEAD", URL, &[])).await;
        assert_eq!((head.x_cache(), head.body.as_str(), head.field("content-length")), ("HIT", "", "8"));
        assert_eq!(origin.count(), 3);
    }
}

#[tokio::test]
async fn an_answer_to_head_updates_or_removes_what_is_stored() {
    // Fields of the answer, and what X-Cache says to the next GET.
    let rows = [
        ("9111 §4.3.5 the same", 200, vec![("etag", "\"v1\""), ("cache-control", "max-age=60"), ("x-new", "1")], "HIT"),
        (
            "the same length and no validator: it may be other content",
            200,
            vec![("content-length", "7"), ("cache-control", "max-age=60"), ("x-new", "1")],
            "MISS",
        ),
        ("9111 §4.3.5 another tag", 200, vec![("etag", "\"v2\""), ("cache-control", "max-age=60")], "MISS"),
        (
            "9111 §4.3.5 another length",
            200,
            vec![("etag", "\"v1\""), ("content-length", "8"), ("cache-control", "max-age=60")],
            "MISS",
        ),
        ("9111 §4.3.5 gone", 410, vec![], "MISS"),
    ];
    for world in World::all().await {
        for (number, (why, status, fields, want)) in rows.iter().enumerate() {
            let (status, fields) = (*status, fields.clone());
            let origin = Origin::new(move |request, _| {
                if request.method() == "HEAD" {
                    // The cache's own condition is left unanswered: a server may.
                    respond(status, &fields, "")
                } else {
                    respond(200, &[("etag", "\"v1\""), ("cache-control", "max-age=10")], "content")
                }
            });
            let app = app(&world.cache().scope(&number.to_string()), &origin);
            get(&app, URL).await;
            world.wait(11);
            let head = send(&app, request("HEAD", URL, &[])).await;
            assert_eq!((head.status, head.body.as_str()), (status, ""), "{why}");
            let after = get(&app, URL).await;
            assert_eq!(after.x_cache(), *want, "{} {why}: {after:?}", world.name);
            assert_eq!(after.field("x-new") == "1", *want == "HIT", "{why}");
        }
    }
}
