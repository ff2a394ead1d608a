//! What a session's answer tells caches.

use std::{convert::Infallible, time::Duration};

use axum::{Router, body::Body, extract::Request, routing::get};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{self, CACHE_CONTROL};
use http_body_util::BodyExt as _;
use tower::{ServiceBuilder, ServiceExt as _, util::MapRequestLayer};
use tower_gatehouse::{
    Backend, CacheLayer, HttpCache, Identity, Personal, SwrLayer,
    rate_limit::{ConcurrencyLimitLayer, Key, Policy, Quota, RateLimitLayer},
    session::{
        Claims, ForwardSessionLayer, ForwardedBody, KeyRing, Session, SessionError, SessionLayer, VerifySessionLayer,
    },
};

use crate::app::{App, routes};

#[tokio::test]
async fn an_answer_that_depends_on_the_session_is_private_and_marked() {
    let keys = KeyRing::ephemeral();
    let backend = Backend::memory();
    let reads = async |s: Session| {
        Ok::<_, SessionError>(([(CACHE_CONTROL, "max-age=60")], s.user().await?.unwrap_or_default()))
    };
    let public = async |s: Session| {
        s.user().await?;
        Ok::<_, SessionError>([(CACHE_CONTROL, "public, max-age=60")])
    };
    let more = Router::new()
        .route("/reads", get(reads))
        .route("/public", get(public))
        .route("/handle-only", get(async |_: Session| [(CACHE_CONTROL, "max-age=60")]));
    let asks = MapRequestLayer::new(|mut request: Request| {
        Personal::ask_for(request.extensions_mut());
        request
    });
    let app = App(routes().merge(more).layer(SessionLayer::new(&backend, keys)).layer(asks));
    let client = app.client();
    client.ok("POST", "/login/ann").await;
    let is_marked =
        |response: &http::Response<String>| response.extensions().get::<Personal>().is_some_and(Personal::is_marked);
    let controls = |response: &http::Response<String>| {
        response
            .headers()
            .get_all(CACHE_CONTROL)
            .iter()
            .map(|value| value.to_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };

    let response = client.get("/reads").await;
    assert!(is_marked(&response));
    assert_eq!(controls(&response), ["max-age=60", "private"]);
    let response = client.get("/me").await;
    assert!(is_marked(&response));
    assert_eq!(controls(&response), ["private"]);
    let response = client.get("/public").await;
    assert!(is_marked(&response), "whether public weighs more is for caches to say");
    assert_eq!(controls(&response), ["public, max-age=60"]);
    for path in ["/", "/handle-only"] {
        let response = client.get(path).await;
        assert!(!is_marked(&response), "{path} does not ask who it is");
        assert!(!controls(&response).contains(&"private".to_owned()));
    }
    // Nobody's answer is for nobody else: it would say so to everybody.
    assert!(is_marked(&app.client().get("/reads").await));
}

#[tokio::test]
async fn what_only_those_with_a_session_get_is_private_outside_of_the_layer_and_not_inside() {
    let inside = std::sync::Arc::new(std::sync::Mutex::new(None));
    let seen = inside.clone();
    let looks = MapRequestLayer::new(move |request: Request| {
        *seen.lock().unwrap() = Personal::of(request.extensions());
        request
    });
    let layer = SessionLayer::new(&Backend::memory(), KeyRing::ephemeral()).required_under("/members");
    let app = App(routes().route("/members", get(async || "news")).layer(looks).layer(layer));
    let client = app.client();
    client.ok("POST", "/login/ann").await;
    let response = client.get("/members").await;
    assert_eq!(response.headers()[CACHE_CONTROL], "private");
    assert!(response.extensions().get::<Personal>().unwrap().is_marked());
    assert!(!inside.lock().unwrap().as_ref().unwrap().is_marked(), "caches within may share it among members");
    let response = app.client().get("/members").await;
    assert_eq!((response.status().as_u16(), &response.headers()[CACHE_CONTROL]), (401, &"no-store".parse().unwrap()));
    assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
}

#[tokio::test]
async fn of_the_layers_that_say_who_is_asking_the_nearest_is_believed() {
    let who = async |request: Request| {
        let identity = Identity::of(request.extensions()).expect("every request has one");
        identity.known().await.unwrap().user().unwrap_or("nobody").to_owned()
    };
    let says = |user: &'static str| {
        MapRequestLayer::new(move |mut request: Request| {
            request.extensions_mut().insert(Identity::anonymous().with_user(user));
            request
        })
    };
    let session = SessionLayer::new(&Backend::memory(), KeyRing::ephemeral());
    let routes = || routes().route("/who", get(who));
    let inside = App(routes().layer(says("inside")).layer(session.clone()));
    assert_eq!(inside.client().get("/who").await.body(), "inside");
    let outside = App(routes().layer(session).layer(says("outside"))).client();
    assert_eq!(outside.get("/who").await.body(), "nobody");
    outside.ok("POST", "/login/ann").await;
    assert_eq!(outside.get("/who").await.body(), "ann");
}

/// Leaves a mark of its own, as a layer that authenticates in another way does.
fn leaves_a_mark() -> MapRequestLayer<impl Fn(Request) -> Request + Clone> {
    MapRequestLayer::new(|mut request: Request| {
        request.extensions_mut().insert(Personal::default());
        request
    })
}

#[tokio::test]
async fn whichever_mark_is_set_a_cache_anywhere_keeps_the_answer_from_others() {
    const MINUTE: [(header::HeaderName, &str); 1] = [(CACHE_CONTROL, "max-age=60")];
    let reads = async |s: Session| Ok::<_, SessionError>((MINUTE, s.user().await?.unwrap_or_default()));
    let marks = async |request: Request| {
        Personal::of(request.extensions()).unwrap().mark();
        (MINUTE, "mine")
    };
    // What a handler finds that knows of the other layer only.
    let marks_what_is_left = async |request: Request| {
        request.extensions().get::<Personal>().unwrap().mark();
        (MINUTE, "mine")
    };
    let routes = || {
        let more = Router::new().route("/reads", get(reads)).route("/marks", get(marks));
        routes().merge(more).route("/left", get(marks_what_is_left)).route("/shared", get(async || (MINUTE, "all")))
    };
    let cache = || HttpCache::new(&Backend::memory());
    let session = || SessionLayer::new(&Backend::memory(), KeyRing::ephemeral());
    let within = App(routes().layer(CacheLayer::new(cache())).layer(leaves_a_mark()).layer(session()));
    let around = App(routes().layer(leaves_a_mark()).layer(session()).layer(CacheLayer::new(cache())));
    let one = cache();
    let both_sides = routes().layer(CacheLayer::new(&one)).layer(session()).layer(SwrLayer::new(&one));
    let both_sides = App(both_sides.layer(leaves_a_mark()));
    for (app, paths) in [
        (within, &["/reads", "/marks", "/left"][..]),
        // A mark of a layer within that is not the session's is not told to those outside.
        (around, &["/reads", "/marks"]),
        (both_sides, &["/reads", "/marks", "/left"]),
    ] {
        let client = app.client();
        client.ok("POST", "/login/ann").await;
        for path in paths {
            for _ in 0..2 {
                let answer = client.get(path).await;
                assert_ne!(answer.headers()["x-cache"], "HIT", "{path}: {:?}", answer.headers());
            }
        }
        client.get("/shared").await;
        assert_eq!(client.get("/shared").await.headers()["x-cache"], "HIT", "what nobody marks is shared");
    }
}

#[tokio::test]
async fn the_mark_reaches_a_cache_that_nothing_was_asked_for_by_where_a_field_for_caches_rules() {
    let reads = async |s: Session| {
        s.user().await?;
        Ok::<_, SessionError>([("cdn-cache-control", "max-age=60")])
    };
    let forgets = MapRequestLayer::new(|request: Request| {
        if request.uri().path() != "/reads" {
            return request;
        }
        let (parts, body) = request.into_parts();
        let mut anew = Request::new(body);
        (*anew.method_mut(), *anew.uri_mut(), *anew.headers_mut()) = (parts.method, parts.uri, parts.headers);
        anew
    });
    let session = SessionLayer::new(&Backend::memory(), KeyRing::ephemeral());
    let app = routes().route("/reads", get(reads)).layer(session).layer(forgets);
    let app = App(app.layer(CacheLayer::new(HttpCache::new(&Backend::memory()))));
    let client = app.client();
    client.ok("POST", "/login/ann").await;
    for _ in 0..2 {
        assert_ne!(client.get("/reads").await.headers()["x-cache"], "HIT");
    }
}

#[tokio::test]
async fn who_is_asking_marks_the_answer_for_those_who_read_it_and_not_for_layers() {
    const MINUTE: [(header::HeaderName, &str); 1] = [(CACHE_CONTROL, "max-age=60")];
    let who = async |request: Request| {
        let identity = Identity::of(request.extensions()).unwrap().known().await.unwrap();
        (MINUTE, identity.user().unwrap_or("nobody").to_owned())
    };
    let backend = Backend::memory();
    // What a quota is by, and what a limit counts by.
    let by_user = |parts: &http::request::Parts| {
        let is_known = Identity::of(&parts.extensions).is_some_and(|identity| identity.user().is_some());
        is_known.then(|| Quota::per_minute(1000))
    };
    let policy = Policy::new("user", Key::user(), Quota::per_minute(100)).quota_by(by_user);
    let limit = RateLimitLayer::with_policies(&backend, [policy]);
    for limited in [false, true] {
        let mut app = routes().route("/who", get(who)).route("/shared", get(async || (MINUTE, "all")));
        app = app.layer(CacheLayer::new(HttpCache::new(&Backend::memory())));
        if limited {
            app = app.layer(limit.clone());
        }
        let app = App(app.layer(SessionLayer::new(&backend, KeyRing::ephemeral())));
        assert_eq!(app.client().get("/who").await.body(), "nobody");
        for user in ["ann", "bob"] {
            let client = app.client();
            client.ok("POST", &format!("/login/{user}")).await;
            assert_eq!(client.get("/who").await.body(), user);
            client.get("/shared").await;
            assert_eq!(client.get("/shared").await.headers()["x-cache"], "HIT");
        }
    }
}

/// Functions of limits may look at who is asking; they do not make the answer.
#[tokio::test]
async fn functions_of_limits_that_look_at_who_is_asking_mark_nothing() {
    const MINUTE: [(header::HeaderName, &str); 1] = [(CACHE_CONTROL, "max-age=60")];
    let user = |parts: &http::request::Parts| Some(Identity::of(&parts.extensions)?.user()?.to_owned());
    let is_staff = move |parts: &http::request::Parts| user(parts).as_deref() == Some("staff");
    let quota = Quota::per_minute(1000);
    let policy = |key| Policy::new("user", key, quota);
    let limits = |backend: &Backend| {
        let by_function = Key::from_fn(move |parts| Some(user(parts).unwrap_or_default()));
        let by_quota = policy(Key::global()).quota_by(move |parts| user(parts).map(|_| quota));
        [
            RateLimitLayer::with_policies(backend, [policy(by_function)]),
            RateLimitLayer::with_policies(backend, [by_quota]),
            RateLimitLayer::with_policies(backend, [policy(Key::global())]).exempt(is_staff),
        ]
    };
    let by_function = Key::from_fn(move |parts| Some(user(parts).unwrap_or_default()));
    let concurrency = ConcurrencyLimitLayer::new("most", by_function, 10);
    let backend = Backend::memory();
    let shared = || {
        let app = routes().route("/shared", get(async || (MINUTE, "all")));
        app.layer(CacheLayer::new(HttpCache::new(&Backend::memory())))
    };
    let apps = limits(&backend).map(|limit| shared().layer(limit)).into_iter().chain([shared().layer(concurrency)]);
    for (number, app) in apps.enumerate() {
        let app = App(app.layer(SessionLayer::new(&backend, KeyRing::ephemeral())));
        for is_logged_in in [false, true] {
            let client = app.client();
            if is_logged_in {
                client.ok("POST", "/login/ann").await;
            }
            client.get("/shared").await;
            assert_eq!(client.get("/shared").await.headers()["x-cache"], "HIT", "{number} {is_logged_in}");
        }
    }
}

/// A page is rendered while it streams, and the session is looked at on the way.
#[tokio::test]
async fn content_that_looks_at_the_session_while_it_streams_is_for_one_client() {
    let page = async |s: Session, pause: u64| {
        let name = async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            Ok::<_, Infallible>(Bytes::from(s.user().await.unwrap().unwrap_or_default()))
        };
        let body = stream::iter([Ok(Bytes::from_static(b"hello "))]).chain(stream::once(name));
        ([(CACHE_CONTROL, "max-age=60")], Body::from_stream(body))
    };
    let shared = async |pause: u64| {
        let body = stream::once(async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            Ok::<_, Infallible>(Bytes::from_static(b"all"))
        });
        ([(CACHE_CONTROL, "max-age=60")], Body::from_stream(body))
    };
    let backend = Backend::memory();
    let sessions = SessionLayer::new(&backend, KeyRing::ephemeral());
    for is_outside in [true, false] {
        let pages = || {
            let quick = get(move |s: Session| page(s, 0));
            let slow = get(move |s: Session| page(s, 300));
            let all = get(move |_: Session| shared(0));
            Router::new().route("/page", quick).route("/slow", slow).route("/shared", all)
        };
        let layers = HttpCache::new(&Backend::memory()).layers();
        let app = if is_outside {
            App(routes().merge(pages().layer(layers)).layer(sessions.clone()))
        } else {
            App(routes().merge(pages()).layer(sessions.clone()).layer(layers))
        };
        let (ann, bob) = (app.client(), app.client());
        ann.ok("POST", "/login/ann").await;
        bob.ok("POST", "/login/bob").await;
        for _ in 0..2 {
            assert_eq!(ann.ok("GET", "/page").await, "hello ann");
            assert_eq!(bob.ok("GET", "/page").await, "hello bob");
        }
        ann.ok("GET", "/shared").await;
        assert_eq!(bob.get("/shared").await.headers()["x-cache"], "HIT", "a handle that nobody asks");
        // Who reads along is cut off, and who was there first goes on: those with cookies have flights of their own.
        let read = async |pause| {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let request = http::Request::get("/slow").body(Body::empty()).unwrap();
            app.0.clone().oneshot(request).await.unwrap().into_body().collect().await
        };
        let (first, second) = tokio::join!(read(0), read(100));
        assert_eq!(first.unwrap().to_bytes(), "hello ");
        assert!(second.is_err(), "{is_outside} {second:?}");
        assert_eq!(bob.ok("GET", "/slow").await, "hello bob");
    }
}

/// A browser that several use: without another word it keeps what has an end, or an age.
#[tokio::test]
async fn what_a_browser_may_keep_is_for_the_session() {
    for (name, value) in [
        ("cache-control", "max-age=60"),
        ("expires", "Fri, 01 Jan 2100 00:00:00 GMT"),
        ("last-modified", "Wed, 01 Jan 2020 00:00:00 GMT"),
    ] {
        let page =
            async move |s: Session| Ok::<_, SessionError>(([(name, value)], s.user().await?.unwrap_or_default()));
        let layer = SessionLayer::new(&Backend::memory(), KeyRing::ephemeral());
        let client = App(routes().route("/page", get(page)).layer(layer)).client();
        client.ok("POST", "/login/ann").await;
        let answer = client.get("/page").await;
        let last = answer.headers().get_all(CACHE_CONTROL).iter().next_back();
        assert_eq!(
            (last.unwrap(), &answer.headers()["vary"]),
            (&"private".parse().unwrap(), &"cookie".parse().unwrap()),
            "{name}"
        );
    }
}

/// A service behind the gateway, with a cache of its own within; its author forgot to say that the page is private.
#[tokio::test]
async fn what_a_service_learns_of_claims_is_for_one_client() {
    const MINUTE: [(header::HeaderName, &str); 1] = [(CACHE_CONTROL, "max-age=60")];
    let keys = KeyRing::ephemeral();
    let user = async |claims: Claims| (MINUTE, claims.user().unwrap_or("nobody").to_owned());
    let marks = async |claims: Claims, request: Request| {
        let personal = Personal::of(request.extensions()).unwrap();
        let request_id = (claims.request_id().len(), personal.is_marked());
        let user = (claims.user().is_some(), personal.is_marked());
        format!("{request_id:?} {user:?}")
    };
    let cache = HttpCache::new(&Backend::memory()).identity_fields([header::HeaderName::from_static("x-api-key")]);
    let service = Router::new()
        .route("/user", get(user))
        .route("/marks", get(marks))
        .layer(CacheLayer::new(cache))
        .layer(VerifySessionLayer::new(keys.for_audience("orders")));
    // In front of a service that is a process of its own.
    let travels = MapRequestLayer::new(|mut request: http::Request<ForwardedBody<Body>>| {
        request.extensions_mut().clear();
        request.map(Body::new)
    });
    let service =
        ServiceBuilder::new().layer(ForwardSessionLayer::new("orders", &keys)).layer(travels).service(service);
    let gateway = App(routes().fallback_service(service).layer(SessionLayer::new(&Backend::memory(), keys)));
    let (ann, bob) = (gateway.client(), gateway.client());
    ann.ok("POST", "/login/ann").await;
    bob.ok("POST", "/login/bob").await;
    assert_eq!((ann.ok("GET", "/user").await, bob.ok("GET", "/user").await), ("ann".into(), "bob".into()));
    assert_eq!(ann.ok("GET", "/marks").await, "(16, false) (true, true)");
}
