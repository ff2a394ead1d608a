//! What one client does to others, and what is malformed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{future::join_all, stream};
use http::{HeaderValue, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tower::{Layer, ServiceBuilder, service_fn};
use tower_gatehouse::{
    Backend, BodyKeyLayer, BoxError, CacheLayer, CoalesceLayer, HttpCache, Personal, Rule, SwrLayer,
    TagInvalidationLayer, TestClock, body_key::KeyedBody,
};

use crate::{
    app::{Answer, App, Body, Origin, boxed, full, get, get_with, request, respond, send, try_send},
    world::{World, app, check_with, row, stack},
};

const URL: &str = "http://example.com/a";
const MINUTE: Duration = Duration::from_mins(1);
const MAX_AGE: (&str, &str) = ("cache-control", "max-age=60");
const V1: (&str, &str) = ("etag", "\"v1\"");
/// Is there whatever the origin does.
const LENIENT: &[(&str, &str)] = &[("cache-control", "max-age=60, stale-while-revalidate=600, stale-if-error=600")];

/// Until the origin was asked so often, and its last answer has come to what it comes to.
async fn asked(origin: &Origin, times: usize) {
    while origin.count() < times {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// So many at once, of whom the origin answers nobody until all are there.
async fn herd(app: &App, origin: &Origin, size: usize) -> Vec<Answer> {
    let open = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        origin.gate.send_replace(true);
    };
    tokio::join!(join_all((0..size).map(|_| get(app, URL))), open).0
}

#[tokio::test]
async fn what_head_tells_one_user_is_for_nobody_else() {
    for world in World::all().await {
        let origin = Origin::new(|request, _| {
            let is_alice = request.headers().contains_key("cookie");
            let who = if is_alice { "alice" } else { "guest" };
            let content = if request.method() == "HEAD" { "" } else { "content" };
            let mut response = respond(200, &[MAX_AGE, V1, ("x-hello", who)], content);
            if is_alice {
                let mark = Personal::default();
                mark.mark();
                response.extensions_mut().insert(mark);
            }
            response
        });
        let app = app(&world.cache(), &origin);
        assert_eq!(get(&app, URL).await.field("x-hello"), "guest");
        world.wait(61);
        assert_eq!(send(&app, request("HEAD", URL, &[("cookie", "sid=a")])).await.field("x-hello"), "alice");
        assert_eq!(get(&app, URL).await.field("x-hello"), "guest", "{}", world.name);
    }
}

#[tokio::test]
async fn head_does_not_escape_the_rule_of_its_route() {
    for world in World::all().await {
        let origin = Origin::with(&[("cache-control", "max-age=3600"), V1]);
        let routed = Rule::override_ttl(Duration::from_secs(10)).layer(origin.clone());
        let app = boxed(CacheLayer::new(world.cache()).layer(routed));
        get(&app, URL).await;
        world.wait(11);
        send(&app, request("HEAD", URL, &[])).await;
        world.wait(11);
        let after = get(&app, URL).await;
        assert_ne!(after.x_cache(), "HIT", "{}: the route says ten seconds: {after:?}", world.name);
    }
}

#[tokio::test]
async fn what_one_user_does_not_find_others_still_have() {
    let hers: &[(&str, &str)] = &[("etag", "\"hers\""), ("cache-control", "private")];
    for world in World::all().await {
        for (status, fields) in [(404, &[] as &[_]), (200, hers)] {
            for method in ["GET", "HEAD"] {
                let origin = Origin::new(move |request, n| {
                    if request.headers().contains_key("cookie") {
                        return respond(status, fields, "");
                    }
                    respond(200, &[MAX_AGE, V1], format!("answer {n}"))
                });
                let app = app(&world.cache().scope(&format!("{status}{method}")), &origin);
                get(&app, URL).await;
                let anew = request(method, URL, &[("cookie", "a=b"), ("cache-control", "no-cache")]);
                assert_eq!(send(&app, anew).await.status, status);
                assert_eq!(get(&app, URL).await.x_cache(), "HIT", "{} {status} {method}", world.name);
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_wants_nothing_stored_leaves_what_is_stored() {
    for world in World::all().await {
        let origin = Origin::new(|_, n| match n {
            1 | 2 => respond(200, LENIENT, format!("answer {n}")),
            _ => respond(503, &[], "down"),
        });
        let app = stack(&world.cache(), &origin);
        get(&app, URL).await;
        world.wait(61);
        assert_eq!(get_with(&app, URL, &[("cache-control", "no-store")]).await.x_cache(), "STALE");
        asked(&origin, 2).await;
        let next = get(&app, URL).await;
        assert_eq!((next.status, next.body.as_str()), (200, "answer 1"), "{} {next:?}", world.name);
    }
}

#[tokio::test]
async fn what_one_client_is_refused_leaves_what_is_stored() {
    for world in World::all().await {
        for status in [417, 429, 431] {
            let origin = Origin::new(move |request, n| match n {
                _ if request.headers().contains_key("x-bad") => respond(status, &[], "refused"),
                1 | 2 => respond(200, LENIENT, format!("answer {n}")),
                _ => respond(503, &[], "down"),
            });
            let app = stack(&world.cache().scope(&status.to_string()), &origin);
            get(&app, URL).await;
            world.wait(61);
            assert_eq!(get_with(&app, URL, &[("x-bad", "1")]).await.x_cache(), "STALE");
            asked(&origin, 2).await;
            let next = get(&app, URL).await;
            assert_eq!((next.status, next.body.as_str()), (200, "answer 1"), "{} {status}", world.name);
        }
    }
}

#[tokio::test]
async fn what_is_about_one_request_does_not_end_the_sharing() {
    let refused: &[(&str, &str)] = &[("x-bad", "1")];
    let no_store: &[(&str, &str)] = &[("cache-control", "no-store")];
    for before in [&[refused] as &[_], &[no_store], &[refused, no_store]] {
        let origin = Origin::new(|request, n| match request.headers() {
            headers if headers.contains_key("x-bad") => respond(429, &[], "too often"),
            headers if headers.contains_key("cache-control") => respond(200, &[MAX_AGE], "for one"),
            _ => respond(200, &[MAX_AGE, ("x-wait", "1")], format!("answer {n}")),
        });
        let app = stack(&HttpCache::new(&Backend::memory()), &origin);
        for fields in before {
            get_with(&app, URL, fields).await;
        }
        // Those who waited with it have gone on together by then.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let all = herd(&app, &origin, 20).await;
        assert!(all.iter().all(|answer| answer.body == all[0].body), "{before:?}");
        assert_eq!(origin.count() - before.len(), 1, "{before:?}");
    }
}

#[tokio::test]
async fn followers_of_a_part_that_is_the_whole_get_the_whole() {
    let origin = Origin::new(|_, _| {
        let range = [("content-range", "bytes 0-6/7"), ("content-length", "7")];
        respond(206, &[MAX_AGE, V1, range[0], range[1], ("x-wait", "1")], "content")
    });
    let app = stack(&HttpCache::new(&Backend::memory()), &origin);
    let all = herd(&app, &origin, 3).await;
    assert_eq!(origin.count(), 1);
    for answer in &all {
        let is_part = answer.headers.contains_key("content-range");
        assert_eq!((answer.status == 206, answer.body.as_str()), (is_part, "content"), "{answer:?}");
    }
    assert_eq!(all.iter().filter(|answer| answer.status == 200).count(), 2, "all but the leader");
    let hit = get(&app, URL).await;
    assert_eq!((hit.x_cache(), hit.status, hit.field("content-range")), ("HIT", 200, ""));
}

#[tokio::test]
async fn a_query_with_a_precondition_is_for_the_origin() {
    let conditions = [("if-match", "\"other\""), ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT")];
    for world in World::all().await {
        for condition in conditions {
            let origin = Origin::new(move |request, n| {
                if conditions.iter().any(|(name, _)| request.headers().contains_key(*name)) {
                    return respond(412, &[], "");
                }
                let modified = ("last-modified", "Thu, 01 Jan 2015 00:00:00 GMT");
                respond(200, &[MAX_AGE, V1, modified], format!("answer {n}"))
            });
            let cache = world.cache().scope(condition.0);
            let layers = ServiceBuilder::new()
                .layer(BodyKeyLayer::new().method(Method::POST))
                .layer(SwrLayer::new(&cache))
                .layer(CacheLayer::new(&cache))
                .layer(CoalesceLayer::new(&cache))
                .map_request(|request: Request<KeyedBody<Body>>| {
                    request.map(|body| body.map_err(Into::<BoxError>::into).boxed_unsync())
                });
            let app = boxed(layers.service(origin.clone()));
            for method in ["POST", "QUERY"] {
                let ask = async |fields: &[(&str, &str)]| {
                    let mut request = request(method, URL, fields);
                    *request.body_mut() = full("q");
                    send(&app, request).await
                };
                assert_eq!(ask(&[]).await.x_cache(), "MISS");
                assert_eq!(ask(&[]).await.x_cache(), "HIT");
                let conditional = ask(&[condition]).await;
                assert_eq!((conditional.status, conditional.x_cache()), (412, "BYPASS"), "{method} {condition:?}");
                assert_eq!(ask(&[]).await.x_cache(), "HIT", "nothing was changed");
            }
        }
    }
}

#[tokio::test]
async fn a_change_that_ends_in_an_error_makes_the_page_stale() {
    let put = || request("PUT", URL, &[]);
    for world in World::all().await {
        for by_tag in [false, true] {
            let origin = Origin::new(|request, n| match n {
                _ if request.method() == "PUT" => respond(200, &[("x-refuse", "1")], ""),
                3 => respond(503, &[], "down"),
                _ => respond(200, &[LENIENT[0], ("cache-tag", "p")], format!("answer {n}")),
            });
            let cache = world.cache().scope(&by_tag.to_string());
            let reading = boxed(CacheLayer::new(&cache).layer(origin.clone()));
            let tags = TagInvalidationLayer::new(&cache).on("PUT /a", ["p"]).unwrap();
            let changing = if by_tag { boxed(tags.layer(origin.clone())) } else { reading.clone() };
            get(&reading, URL).await;
            assert_eq!(get(&reading, URL).await.x_cache(), "HIT");
            assert!(try_send(&changing, put()).await.is_err());
            let after = get(&reading, URL).await;
            assert_eq!((origin.count(), after.body.as_str()), (3, "answer 1"), "{} {by_tag} {after:?}", world.name);
            assert_eq!(after.x_cache(), "STALE", "it is not gone");
            assert_eq!(get(&reading, URL).await.body, "answer 4");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_times_out_makes_the_page_stale() {
    for by_tag in [false, true] {
        let is_changed = Arc::new(AtomicBool::new(false));
        let service = service_fn(move |request: Request<Body>| {
            let is_changed = Arc::clone(&is_changed);
            async move {
                if request.method() == "PUT" {
                    is_changed.store(true, Ordering::SeqCst);
                    tokio::time::sleep(MINUTE).await;
                }
                let content = format!("changed: {}", is_changed.load(Ordering::SeqCst));
                Ok::<Response<Body>, BoxError>(respond(200, &[MAX_AGE, ("cache-tag", "p")], content))
            }
        });
        let cache = HttpCache::new(&Backend::memory());
        let timed = ServiceBuilder::new().timeout(Duration::from_secs(5)).service(service);
        let reading = boxed(CacheLayer::new(&cache).layer(timed.clone()));
        let tags = TagInvalidationLayer::new(&cache).on("PUT /a", ["p"]).unwrap();
        let changing = if by_tag { boxed(tags.layer(timed)) } else { reading.clone() };
        assert_eq!(get(&reading, URL).await.body, "changed: false");
        assert!(try_send(&changing, request("PUT", URL, &[])).await.is_err());
        assert_eq!(get(&reading, URL).await.body, "changed: true", "by tag: {by_tag}");
    }
}

#[tokio::test]
async fn malformed_fields_hide_nothing_that_restricts() {
    let rows = [
        row("an unclosed quote", &[("cache-control", "max-age=60, ext=\"abc, no-store")]).not("no-store"),
        row("an unclosed quote", &[("cache-control", "max-age=60, ext=\"abc, private")]).not("private"),
        row("one at the end", &[("cache-control", "max-age=60, no-store, ext=\"")]).not("no-store"),
        row("one that is escaped", &[("cache-control", "max-age=60, ext=\"a\\\", private")]).not("private"),
        row("a semicolon", &[("cache-control", "private; max-age=60")]).not("private"),
        row("a semicolon", &[("cache-control", "private; max-age=60, max-age=60")]).not("private"),
        row("a semicolon after a space", &[("cache-control", "max-age=60, no-store ;x")]).not("no-store"),
        row("an argument", &[("cache-control", "no-store=1, max-age=60")]).not("no-store"),
        row("another case", &[("cache-control", "max-age=60, No-Store;x")]).not("no-store"),
        row("a space before =", &[("cache-control", "max-age=60, no-cache =\"x\"")]).not("no-cache"),
        row("no comma", &[("cache-control", "max-age=60, must-revalidate proxy-revalidate"), V1]).after(61).validated(),
        row("a semicolon behind a number", &[("cache-control", "max-age=60; private")]).not("private"),
        row("no comma behind a number", &[("cache-control", "s-maxage=60 no-store")]).not("no-store"),
        row("no comma before it", &[("cache-control", "public no-store, max-age=60")]).not("no-store"),
        row("a semicolon before it", &[("cache-control", "public; private, max-age=60")]).not("private"),
        row("a quote before it", &[("cache-control", "\"no-store, max-age=60")]).not("no-store"),
        // What is well-formed is read as it is.
        row("a comma in a string", &[("cache-control", "ext=\"a, no-store\", max-age=60")]),
        row("an escaped quote in a string", &[("cache-control", "ext=\"a\\\", private, b\", max-age=60")]),
        row("a semicolon in a string", &[("cache-control", "ext=\"private;x\", max-age=60")]),
        row("a longer name", &[("cache-control", "private-ish, no-storey, max-age=60")]),
    ];
    check_with(&rows, |cache| cache.default_ttl(MINUTE)).await;
}

#[tokio::test]
async fn a_newer_answer_that_is_too_large_to_be_stored_removes_the_older_one() {
    const LARGE: usize = 1_800_000;
    let grows = || {
        Origin::new(|_, n| {
            let mut response = respond(200, LENIENT, "old");
            if n > 1 {
                // Its place would be another one.
                response.headers_mut().insert("vary", HeaderValue::from_static("accept-language"));
                let chunks = (0..3).map(|_| Ok(Frame::data(vec![b'x'; LARGE / 3].into())));
                *response.body_mut() = StreamBody::new(stream::iter(chunks)).boxed_unsync();
            }
            response
        })
    };
    let app = boxed(CacheLayer::new(&Backend::memory()).layer(grows()));
    get(&app, URL).await;
    assert_eq!(get_with(&app, URL, &[("cache-control", "no-cache")]).await.body.len(), LARGE);
    assert_eq!(get(&app, URL).await.body.len(), LARGE);

    // Where nobody reads it, too.
    let (clock, origin) = (TestClock::new(), grows());
    let app = boxed(SwrLayer::new(HttpCache::new(&Backend::memory_with(&clock))).layer(origin.clone()));
    get(&app, URL).await;
    clock.advance(2 * MINUTE);
    assert_eq!(get(&app, URL).await.body, "old", "while it is validated");
    asked(&origin, 2).await;
    assert_eq!(get(&app, URL).await.body.len(), LARGE);
}
