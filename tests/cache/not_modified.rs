//! 304s: those of the origin and those that the cache makes, and what they bring to the client that asked and to nobody
//! else.

use std::time::Duration;

use axum::{
    Router,
    routing::{get as route, post},
};
use futures_util::future::join_all;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use tower::{Layer, ServiceExt};
use tower_gatehouse::{
    Backend, CacheLayer, CacheStatus, HttpCache, Profile,
    session::{KeyRing, Session, SessionError, SessionLayer},
};

use crate::{
    app::{Origin, boxed, get, get_with, request, respond},
    world::{World, app, stack},
};

const URL: &str = "http://example.com/a";
const MAX_AGE: (&str, &str) = ("cache-control", "max-age=60");
const V1: (&str, &str) = ("etag", "\"v1\"");
const IF_V1: &[(&str, &str)] = &[("if-none-match", "\"v1\"")];

/// An origin whose page is for a minute, and holds with these fields.
fn still_holds(fields: &'static [(&'static str, &'static str)]) -> Origin {
    Origin::new(move |request, _| {
        if request.headers().contains_key("if-none-match") {
            let mut response = respond(304, fields, "");
            response.headers_mut().insert("etag", "\"v1\"".parse().unwrap());
            response
        } else {
            respond(200, &[MAX_AGE, V1], "page")
        }
    })
}

#[tokio::test]
async fn the_304_of_what_is_not_stored_keeps_its_cookie() {
    for world in World::all().await {
        let origin = Origin::new(|_, n| {
            let cookie = format!("sid={n}");
            respond(200, &[("cache-control", "private, no-cache"), V1, ("set-cookie", &cookie)], "page")
        });
        let app = app(&world.cache(), &origin);
        assert_eq!(get(&app, URL).await.field("set-cookie"), "sid=1");
        let again = get_with(&app, URL, IF_V1).await;
        assert_eq!((again.status, again.field("set-cookie")), (304, "sid=2"), "{} {again:?}", world.name);
    }
}

#[tokio::test]
async fn the_304_of_what_just_came_says_all_but_what_is_of_its_content() {
    let of_content = [
        ("content-type", "text/html"),
        ("content-length", "4"),
        ("content-encoding", "identity"),
        ("content-language", "en"),
        ("content-disposition", "inline"),
        ("accept-ranges", "bytes"),
        ("last-modified", "Thu, 01 Jan 2015 00:00:00 GMT"),
    ];
    let of_the_response = [
        V1,
        ("cache-control", "private"),
        ("content-location", "/a.html"),
        ("content-security-policy", "default-src 'self'"),
        ("vary", "accept"),
        ("x-csrf-token", "1"),
        ("access-control-allow-origin", "https://example.com"),
        ("strict-transport-security", "max-age=9"),
    ];
    let origin = Origin::new(move |_, _| respond(200, &[&of_content[..], &of_the_response].concat(), "page"));
    let app = boxed(CacheLayer::new(&Backend::memory()).layer(origin));
    let again = get_with(&app, URL, &[IF_V1[0], ("authorization", "Bearer x")]).await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    for (name, value) in of_the_response {
        assert_eq!(again.field(name), value, "{name}");
    }
    for (name, _) in of_content {
        assert!(!again.headers.contains_key(name), "{name}");
    }
    assert!(again.headers.contains_key("x-cache"));
}

#[tokio::test]
async fn the_304_of_what_was_stored_says_little() {
    let fields = &[MAX_AGE, V1, ("x-csrf-token", "1"), ("content-type", "text/html")];
    let app = app(&HttpCache::new(&Backend::memory()), &Origin::with(fields));
    get(&app, URL).await;
    let hit = get_with(&app, URL, IF_V1).await;
    assert_eq!((hit.status, hit.x_cache(), hit.field("etag")), (304, "HIT", "\"v1\""));
    assert_eq!((hit.field("x-csrf-token"), hit.field("content-type")), ("", ""));
}

#[tokio::test]
async fn a_new_token_reaches_a_session_that_validates() {
    let backend = Backend::memory();
    let session = SessionLayer::new(&backend, KeyRing::new([7; 32]).unwrap());
    let login = async |session: Session| session.login("ann", |_| {}).await.map(|()| "in");
    let who = async |session: Session| Ok::<_, SessionError>(session.user().await?.unwrap_or_default());
    let page = async |session: Session| session.cycle().await.map(|()| ([V1], "page"));
    let router = Router::new()
        .route("/login", post(login))
        .route("/who", route(who))
        .route("/page", route(page))
        .layer(session)
        .layer(CacheLayer::new(&backend));
    let ask = async |method: &str, path: &str, fields: &[(&str, &str)]| {
        let request = request(method, &format!("http://h{path}"), fields).map(axum::body::Body::new);
        let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
        (parts.status, parts.headers, body.collect().await.unwrap().to_bytes())
    };
    let token = |headers: &HeaderMap| {
        let cookie = headers.get("set-cookie").expect("a cookie").to_str().unwrap();
        cookie.split(';').next().unwrap().to_owned()
    };
    let old = token(&ask("POST", "/login", &[]).await.1);
    assert_eq!(ask("GET", "/who", &[("cookie", &old)]).await.2, "ann");
    let (status, headers, _) = ask("GET", "/page", &[("cookie", &old), IF_V1[0]]).await;
    assert_eq!(status, StatusCode::NOT_MODIFIED);
    let new = token(&headers);
    assert_ne!(new, old);
    assert_eq!(ask("GET", "/who", &[("cookie", &new)]).await.2, "ann");
}

#[tokio::test]
async fn the_cookies_of_the_origins_304_reach_the_client_that_asked() {
    for world in World::all().await {
        for conditional in [false, true] {
            let origin = still_holds(&[MAX_AGE, ("set-cookie", "sid=new"), ("set-cookie", "b=c")]);
            let app = app(&world.cache().scope(&conditional.to_string()), &origin);
            get(&app, URL).await;
            world.wait(61);
            let fields = [("cookie", "sid=old"), IF_V1[0]];
            let again = get_with(&app, URL, &fields[..=usize::from(conditional)]).await;
            assert_eq!((again.status, again.x_cache()), (if conditional { 304 } else { 200 }, "REVALIDATED"));
            let cookies: Vec<_> = again.headers.get_all("set-cookie").into_iter().collect();
            assert_eq!(cookies, ["sid=new", "b=c"], "{} {again:?}", world.name);
            let hit = get(&app, URL).await;
            assert_eq!((hit.x_cache(), hit.field("set-cookie")), ("HIT", ""), "{}", world.name);
        }
    }
}

#[tokio::test]
async fn the_cookie_of_the_origins_304_reaches_nobody_who_waited_for_it() {
    for world in World::all().await {
        let origin = still_holds(&[MAX_AGE, ("set-cookie", "sid=new"), ("x-wait", "1")]);
        let app = stack(&world.cache(), &origin);
        get(&app, URL).await;
        world.wait(61);
        let open = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            origin.gate.send_replace(true);
        };
        let (all, ()) = tokio::join!(join_all((0..4).map(|_| get(&app, URL))), open);
        let with = all.iter().filter(|answer| answer.headers.contains_key("set-cookie")).count();
        assert_eq!((origin.count(), with), (2, 1), "{}", world.name);
        let hit = get(&app, URL).await;
        assert_eq!((hit.x_cache(), hit.field("set-cookie")), ("HIT", ""), "{}", world.name);
    }
}

#[tokio::test]
async fn a_304_that_says_how_the_page_varies_is_stored() {
    for world in World::all().await {
        let origin = still_holds(&[MAX_AGE, ("vary", "origin")]);
        let app = app(&world.cache(), &origin);
        get(&app, URL).await;
        world.wait(61);
        let validated = get(&app, URL).await;
        assert_eq!((validated.x_cache(), validated.body.as_str()), ("REVALIDATED", "page"));
        assert!(validated.cache.as_ref().is_some_and(CacheStatus::is_stored));
        for _ in 0..3 {
            let hit = get(&app, URL).await;
            assert_eq!((hit.x_cache(), hit.body.as_str()), ("HIT", "page"), "{}", world.name);
        }
        assert_eq!(origin.count(), 2);
        let other = get_with(&app, URL, &[("origin", "https://other.example")]).await;
        assert_ne!(other.x_cache(), "HIT", "{}", world.name);
    }
}

#[tokio::test]
async fn a_304_is_said_to_be_stored_only_if_it_was() {
    for world in World::all().await {
        let origin = still_holds(&[MAX_AGE, ("x-wait", "1")]);
        let cache = world.cache();
        let app = app(&cache, &origin);
        get(&app, URL).await;
        world.wait(61);
        let purge = async {
            while origin.count() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cache.invalidate().url(URL).await.unwrap();
            origin.gate.send_replace(true);
        };
        let (validated, ()) = tokio::join!(get(&app, URL), purge);
        assert_eq!((validated.status, validated.body.as_str()), (200, "page"));
        assert!(!validated.cache.as_ref().is_some_and(CacheStatus::is_stored), "{} {validated:?}", world.name);
        assert_eq!(get(&app, URL).await.x_cache(), "MISS", "{}", world.name);
    }
}

/// An origin whose 304 is about something else.
fn mismatched(control: &'static str) -> Origin {
    Origin::new(move |request, n| {
        if request.headers().contains_key("if-none-match") {
            respond(304, &[("etag", "\"v2\""), ("set-cookie", "a=b")], "")
        } else {
            respond(200, &[("cache-control", control), V1], format!("answer {n}"))
        }
    })
}

#[tokio::test]
async fn what_must_be_validated_is_not_given_after_a_304_about_something_else() {
    for world in World::all().await {
        for control in ["max-age=60, must-revalidate", "max-age=60, proxy-revalidate", "no-cache", "s-maxage=60"] {
            for collapses in [false, true] {
                let origin = mismatched(control);
                let cache = world.cache().scope(&format!("{control}{collapses}"));
                let app = if collapses { stack(&cache, &origin) } else { app(&cache, &origin) };
                get(&app, URL).await;
                world.wait(61);
                let again = get(&app, URL).await;
                assert_eq!((again.status, again.body.as_str()), (502, ""), "{} {control} {again:?}", world.name);
                assert_eq!((again.field("etag"), again.detail()), ("", "validator-mismatch"), "{control}");
                let next = get(&app, URL).await;
                assert_eq!((next.status, next.body.as_str()), (200, "answer 3"), "{} {control}", world.name);
            }
        }
    }
}

#[tokio::test]
async fn what_may_be_stale_is_given_after_a_304_about_something_else() {
    for world in World::all().await {
        let app = app(&world.cache(), &mismatched("max-age=60"));
        get(&app, URL).await;
        world.wait(61);
        let again = get(&app, URL).await;
        assert_eq!((again.x_cache(), again.body.as_str()), ("STALE", "answer 1"), "{}", world.name);
        let next = get(&app, URL).await;
        assert_eq!((next.x_cache(), next.body.as_str()), ("MISS", "answer 3"), "{}", world.name);
    }
}

#[tokio::test]
async fn a_cookie_that_is_stored_is_sent_once() {
    for world in World::all().await {
        let origin = still_holds(&[MAX_AGE, ("set-cookie", "a=b")]);
        let app = app(&world.cache().profile(Profile::Rfc9111), &origin);
        get(&app, URL).await;
        world.wait(61);
        let cookies = async || get(&app, URL).await.headers.get_all("set-cookie").iter().count();
        assert_eq!((cookies().await, cookies().await), (1, 1), "{}", world.name);
    }
}

#[tokio::test]
async fn what_a_304_says_to_one_user_leaves_what_is_stored() {
    for world in World::all().await {
        let origin = Origin::new(|request, n| {
            if request.headers().contains_key("cookie") {
                return respond(304, &[V1, ("cache-control", "private")], "");
            }
            respond(200, &[MAX_AGE, V1], format!("{n}"))
        });
        let app = app(&world.cache(), &origin);
        get(&app, URL).await;
        get_with(&app, URL, &[("cookie", "a=b"), ("cache-control", "no-cache")]).await;
        let others = get(&app, URL).await;
        assert_eq!((others.x_cache(), others.body.as_str()), ("HIT", "1"), "{}", world.name);
    }
}
