//! Stale answers in the place of failures (RFC 9111 §4.2.4, RFC 5861 §4).

use std::time::Duration;

use tower_gatehouse::{HttpCache, Rule};

use crate::{
    app::{Origin, get, get_with, request, respond, try_send},
    world::{Fields, World, app},
};

const URL: &str = "http://example.com/a";

/// Answers once, then fails: with a status, or by not answering at all.
fn failing(control: &'static str, status: Option<u16>) -> Origin {
    Origin::new(move |_, n| match status {
        _ if n == 1 => respond(200, &[("cache-control", control)], "content"),
        Some(status) => respond(status, &[], "down"),
        None => respond(200, &[("x-refuse", "")], ""),
    })
}

#[tokio::test]
async fn a_stale_response_stands_in_exactly_where_it_may() {
    /// Why, the stored response's `Cache-Control`, the time since, the failure, the request's fields, whether it does.
    type Row = (&'static str, &'static str, u64, Option<u16>, Fields, bool);
    let rows: &[Row] = &[
        ("5861 §4 500", "max-age=10, stale-if-error=60", 30, Some(500), &[], true),
        ("5861 §4 502", "max-age=10, stale-if-error=60", 30, Some(502), &[], true),
        ("5861 §4 503", "max-age=10, stale-if-error=60", 30, Some(503), &[], true),
        ("5861 §4 504", "max-age=10, stale-if-error=60", 30, Some(504), &[], true),
        ("5861 §4 no connection", "max-age=10, stale-if-error=60", 30, None, &[], true),
        ("5861 §4 404 is an answer", "max-age=10, stale-if-error=60", 30, Some(404), &[], false),
        ("5861 §4 the window has ended", "max-age=10, stale-if-error=10", 30, Some(503), &[], false),
        ("9111 §4.2.4 must-revalidate", "max-age=10, must-revalidate, stale-if-error=60", 30, Some(503), &[], false),
        ("9111 §4.2.4 must-revalidate", "max-age=10, must-revalidate, stale-if-error=60", 30, None, &[], false),
        ("9111 §4.2.4 proxy-revalidate", "max-age=10, proxy-revalidate, stale-if-error=60", 30, Some(503), &[], false),
        ("9111 §5.2.2.10 s-maxage and explicitly", "s-maxage=10, stale-if-error=60", 30, Some(503), &[], true),
        (
            "5861 §4 the request allows it",
            "max-age=10, stale-if-error=5",
            30,
            Some(503),
            &[("cache-control", "stale-if-error=60")],
            true,
        ),
        ("9111 §4.2.4 nothing is said", "max-age=10", 30, Some(503), &[], true),
        ("9111 §4.2.4 nothing is said, no connection", "max-age=10", 30, None, &[], true),
        (
            "9111 §5.2.1.4 the request wants none",
            "max-age=10, stale-if-error=60",
            30,
            Some(503),
            &[("cache-control", "no-cache")],
            false,
        ),
    ];
    for world in World::all().await {
        for (number, (why, control, after, status, asked, stands_in)) in rows.iter().enumerate() {
            let origin = failing(control, *status);
            let app = app(&world.cache().scope(&number.to_string()), &origin);
            get(&app, URL).await;
            world.wait(*after);
            let answer = try_send(&app, request("GET", URL, asked)).await;
            if *stands_in {
                let answer = answer.expect(why);
                assert_eq!(
                    (answer.status, answer.body.as_str(), answer.x_cache()),
                    (200, "content", "STALE"),
                    "{} {why}",
                    world.name
                );
                let detail = if status.is_some() { "origin-error" } else { "origin-unreachable" };
                assert_eq!(answer.detail(), detail, "{why}");
            } else if let Some(status) = status {
                assert_eq!(answer.expect(why).status, *status, "{} {why}", world.name);
            } else {
                assert_eq!(answer.unwrap_err().to_string(), "connection refused", "{} {why}", world.name);
            }
            assert_eq!(origin.count(), 2, "{why}");
        }
    }
}

#[tokio::test]
async fn rules_and_strictness_say_more() {
    let minute = Duration::from_mins(1);
    let rule = |cache: HttpCache| cache.rule("/a", Rule::new().stale_if_error(minute)).unwrap();
    for world in World::all().await {
        let rows: Vec<(&str, HttpCache, &str, bool)> = vec![
            ("a rule allows it", rule(world.cache()), "max-age=10", true),
            ("the response's own directive wins", rule(world.cache()), "max-age=10, stale-if-error=5", false),
            ("must-revalidate wins", rule(world.cache()), "max-age=10, must-revalidate", false),
            ("s-maxage wins over a rule", rule(world.cache()), "s-maxage=10", false),
            ("strictly, s-maxage wins over all", world.cache().strict_stale(), "s-maxage=10, stale-if-error=60", false),
            ("strictly, all else is the same", world.cache().strict_stale(), "max-age=10, stale-if-error=60", true),
        ];
        for (why, cache, control, stands_in) in rows {
            let origin = failing(control, Some(503));
            let app = app(&cache.scope(why), &origin);
            get(&app, URL).await;
            world.wait(30);
            assert_eq!(get(&app, URL).await.x_cache() == "STALE", stands_in, "{} {why}", world.name);
        }
    }
}

#[tokio::test]
async fn a_failure_does_not_remove_what_is_stored() {
    for world in World::all().await {
        let origin = Origin::new(|_, n| match n {
            1 => respond(200, &[("cache-control", "max-age=10, must-revalidate"), ("etag", "\"v1\"")], "content"),
            2 => respond(503, &[], "down"),
            _ => respond(304, &[("etag", "\"v1\""), ("cache-control", "max-age=60")], ""),
        });
        let app = app(&world.cache(), &origin);
        get(&app, URL).await;
        world.wait(11);
        assert_eq!(get(&app, URL).await.status, 503);
        let after = get_with(&app, URL, &[]).await;
        assert_eq!((after.x_cache(), after.body.as_str()), ("REVALIDATED", "content"), "{}", world.name);
    }
}

#[tokio::test]
async fn an_error_with_freshness_of_its_own_does_not_replace_what_may_stand_in() {
    for world in World::all().await {
        let origin = Origin::new(|_, n| match n {
            1 => respond(200, &[("cache-control", "max-age=10, stale-if-error=600")], "content"),
            _ => respond(500, &[("cache-control", "max-age=60")], "down"),
        });
        let app = app(&world.cache(), &origin);
        get(&app, URL).await;
        for _ in 0..2 {
            world.wait(20);
            let answer = get(&app, URL).await;
            assert_eq!((answer.x_cache(), answer.body.as_str()), ("STALE", "content"), "{}", world.name);
        }
    }
}
