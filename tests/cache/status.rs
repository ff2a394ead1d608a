//! What a response says of how it came about: `Cache-Status` (RFC 9211), `X-Cache`, `Age`.

use std::time::Duration;

use tower_gatehouse::{CacheStatus, Rule};

use crate::{
    app::{Origin, get, get_with, request, respond, send},
    world::{Fields, World, app},
};

const URL: &str = "http://example.com/a";

#[tokio::test]
async fn each_way_has_its_words() {
    for world in World::all().await {
        let origin = Origin::new(|request, n| {
            if request.headers().contains_key("if-none-match") {
                return respond(304, &[("etag", "\"v1\""), ("cache-control", "max-age=60")], "");
            }
            match request.uri().path() {
                "/a" => {
                    let fields =
                        [("cache-control", "max-age=60, stale-if-error=60"), ("etag", "\"v1\""), ("vary", "x-a")];
                    respond(200, &fields, format!("answer {n}"))
                }
                "/none" => respond(200, &[], ""),
                _ => respond(200, &[("cache-control", "no-store")], ""),
            }
        });
        let cache = world.cache().rule("/bypass", Rule::bypass()).unwrap();
        let app = app(&cache, &origin);
        let steps: &[(u64, &str, &str, Fields, &str, &str)] = &[
            (0, "GET", "/a", &[], "MISS", "gatehouse; fwd=uri-miss; ttl=60; stored"),
            (10, "GET", "/a", &[], "HIT", "gatehouse; hit; ttl=50"),
            (0, "HEAD", "/a", &[], "HIT", "gatehouse; hit; ttl=50"),
            (0, "GET", "/a", &[("x-a", "1")], "MISS", "gatehouse; fwd=vary-miss; ttl=60; stored"),
            (
                0,
                "GET",
                "/a",
                &[("cache-control", "no-cache")],
                "REVALIDATED",
                "gatehouse; fwd=request; fwd-status=304; ttl=60; stored",
            ),
            (61, "GET", "/a", &[], "REVALIDATED", "gatehouse; fwd=stale; fwd-status=304; ttl=60; stored"),
            (70, "GET", "/a", &[("cache-control", "max-stale")], "STALE", "gatehouse; hit; ttl=-10"),
            (
                0,
                "GET",
                "/b",
                &[("cache-control", "only-if-cached")],
                "MISS",
                "gatehouse; fwd=miss; detail=only-if-cached",
            ),
            (0, "GET", "/none", &[], "MISS", "gatehouse; fwd=uri-miss; detail=no-freshness"),
            (0, "GET", "/b", &[], "MISS", "gatehouse; fwd=uri-miss; detail=no-store"),
            (0, "POST", "/b", &[], "BYPASS", "gatehouse; fwd=method"),
            (0, "GET", "/bypass", &[], "BYPASS", "gatehouse; fwd=bypass; detail=rule"),
            (0, "GET", "/bypass", &[("if-match", "\"v1\"")], "BYPASS", "gatehouse; fwd=bypass; detail=rule"),
            (0, "GET", "/a", &[("if-match", "\"v1\"")], "BYPASS", "gatehouse; fwd=bypass; detail=precondition"),
        ];
        for (wait, method, path, fields, x_cache, status) in steps {
            world.wait(*wait);
            let uri = format!("http://example.com{path}");
            let answer = send(&app, request(method, &uri, fields)).await;
            // A second may end between two requests on Redis, whose clock goes on; and a 304 without Date gets one of
            // whole seconds.
            let near = |ttl: i64| status.replace(&format!("ttl={ttl}"), &format!("ttl={}", ttl - 1));
            let ttl = CacheStatus::from_headers(&http::HeaderMap::from_iter([(
                http::HeaderName::from_static("cache-status"),
                status.parse().unwrap(),
            )]))
            .unwrap()
            .ttl()
            .unwrap_or_default();
            let said = answer.field("cache-status");
            assert!(said == *status || said == near(ttl), "{} {method} {path}: {said} for {status}", world.name);
            assert_eq!(answer.x_cache(), *x_cache, "{method} {path}");
            assert_eq!(answer.headers.contains_key("age"), said.contains("hit") || *x_cache == "REVALIDATED", "{said}");
        }
    }
}

#[tokio::test]
async fn the_name_the_key_and_the_fields_themselves_are_settings() {
    for world in World::all().await {
        let origin = Origin::with(&[("cache-control", "max-age=60")]);
        let named = app(&world.cache().named("edge").key_in_status(), &origin);
        let first = get(&named, URL).await.cache.unwrap();
        let hit = get(&named, URL).await.cache.unwrap();
        assert_eq!((hit.cache(), hit.is_hit()), ("edge", true));
        assert_eq!(hit.key(), first.key());
        assert!(hit.key().is_some_and(|key| key.len() == 32), "{hit:?}");
        let other = get(&named, "http://example.com/b").await.cache.unwrap();
        assert_ne!(other.key(), hit.key());
        let silent = app(&world.cache().without_status_fields(), &origin);
        let hit = get(&silent, URL).await;
        assert!(!hit.headers.contains_key("cache-status") && !hit.headers.contains_key("x-cache"));
        assert!(hit.headers.contains_key("age"));
    }
}

#[tokio::test]
async fn the_word_of_a_cache_further_in_comes_first() {
    for world in World::all().await {
        let origin = Origin::with(&[("cache-control", "max-age=60"), ("cache-status", "Origin; hit; ttl=1")]);
        let app = app(&world.cache(), &origin);
        for _ in 0..2 {
            let answer = get(&app, URL).await;
            let all = CacheStatus::all(&answer.headers);
            let names: Vec<_> = all.iter().map(CacheStatus::cache).collect();
            assert_eq!(names, ["Origin", "gatehouse"], "RFC 9211 §2: {}", world.name);
        }
    }
}

#[tokio::test]
async fn a_rule_changes_what_a_response_says_of_its_lifetime_only_where_it_overrides() {
    for world in World::all().await {
        let hour = Duration::from_hours(1);
        let cache =
            world.cache().rule("/ttl", Rule::ttl(hour)).unwrap().rule("/override", Rule::override_ttl(hour)).unwrap();
        let origin = Origin::with(&[("cache-control", "max-age=10"), ("age", "5"), ("etag", "\"a\"")]);
        let app = app(&cache, &origin);
        let ttl = async |path: &str| get(&app, &format!("http://example.com{path}")).await.cache.unwrap().ttl();
        let (ttl, overridden) = (ttl("/ttl").await.unwrap(), ttl("/override").await.unwrap());
        assert!((4..=5).contains(&ttl) && (3599..=3600).contains(&overridden), "{}: {ttl} {overridden}", world.name);
    }
}

#[tokio::test]
async fn what_the_origin_says_in_x_cache_does_not_stay() {
    for world in World::all().await {
        let origin = Origin::with(&[("cache-control", "max-age=60"), ("x-cache", "Miss from elsewhere")]);
        let app = app(&world.cache(), &origin);
        for x_cache in ["MISS", "HIT"] {
            let answer = get_with(&app, URL, &[]).await;
            assert_eq!(answer.headers.get_all("x-cache").iter().collect::<Vec<_>>(), [x_cache], "{}", world.name);
        }
    }
}

/// Of a 304 that says nothing else, one takes it that the origin has said it (RFC 9211 §2.3).
#[tokio::test]
async fn a_304_that_the_cache_makes_says_what_the_origin_has_said() {
    for world in World::all().await {
        let origin = Origin::with(&[("cache-control", "max-age=60"), ("etag", "\"v\"")]);
        let app = app(&world.cache(), &origin);
        for (path, known, status, said) in [
            ("/a", "\"v\"", 304, "gatehouse; fwd=uri-miss; fwd-status=200; ttl"),
            ("/b", "\"u\"", 200, "gatehouse; fwd=uri-miss; ttl"),
        ] {
            let answer = get_with(&app, &format!("http://example.com{path}"), &[("if-none-match", known)]).await;
            let cache_status = answer.headers["cache-status"].to_str().unwrap();
            assert!(answer.status == status && cache_status.starts_with(said), "{}: {cache_status}", world.name);
        }
    }
}
