//! What is changed is stored, once, and nothing is lost or brought back.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use axum::routing::post;
use bytes::Bytes;
use futures_util::{FutureExt as _, future::join_all};
use http::{StatusCode, header};
use serde_json::{Map, Value};
use tower_gatehouse::{
    Backend, CacheLayer, HttpCache,
    backend::{Changes, Saved},
    session::{
        BearerToken, ForwardSessionLayer, KeyRing, ResolveError, Resolved, Session, SessionError, SessionLayer,
        Sessions, Source, TokenResolver, VerifySessionLayer,
    },
};

use crate::app::{App, Shop, backends, routes};

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_parallel_requests_that_change_different_fields_all_survive() {
    for backend in backends().await {
        let client = App::new(&backend).client();
        client.ok("POST", "/visit").await;
        // All have read the session before the first has written: none knows of the others.
        let changes = (0..200).map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.ok("POST", &format!("/put/f{n}/{n}")).await })
        });
        join_all(changes).await.into_iter().for_each(|done| drop(done.unwrap()));
        let all: Map<String, Value> = client.json("/all").await;
        assert_eq!(all.len(), 201, "{}", backend.name());
        assert!((0..200).all(|n| all[&format!("f{n}")] == *n.to_string()), "{}: {all:?}", backend.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_parallel_strict_increments_make_fifty() {
    for backend in backends().await {
        let client = App::new(&backend).client();
        client.ok("POST", "/theme/dark").await;
        let all = (0..50).map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.ok("POST", "/strict").await })
        });
        join_all(all).await.into_iter().for_each(|done| drop(done.unwrap()));
        let shop: Shop = client.json("/read").await;
        assert_eq!(shop, Shop { theme: "dark".into(), visits: 50 }, "{}", backend.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_hundred_logouts_that_race_a_change_none_is_undone() {
    for backend in backends().await {
        let app = App::new(&backend);
        let mut refused = 0;
        for _ in 0..300 {
            let client = app.client();
            client.ok("POST", "/visit").await;
            let (slow, other) = (client.twin(), client.twin());
            let (changed, out) = tokio::join!(
                tokio::spawn(async move { slow.post("/visit").await }),
                tokio::spawn(async move { other.post("/logout").await })
            );
            assert_eq!(out.unwrap().status(), StatusCode::OK);
            let changed = changed.unwrap();
            // Before the logout, after it (as somebody without a session, who gets a new one), or caught in between.
            refused += u32::from(changed.status() == StatusCode::UNAUTHORIZED);
            assert!(changed.status() == StatusCode::OK || changed.status() == StatusCode::UNAUTHORIZED);
            let shop: Shop = client.twin().json("/read").await;
            assert_eq!(shop, Shop::default(), "{}: a dead session came back", backend.name());
        }
        println!("{}: {refused} of 300 changes were caught in between", backend.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_after_a_post_sees_what_was_written_a_thousand_times() {
    for backend in backends().await {
        let client = App::new(&backend).client();
        for n in 0..1000 {
            let key = format!("f{}", n % 60);
            let response = client.post(&format!("/redirect/{key}")).await;
            assert_eq!(response.status(), StatusCode::SEE_OTHER);
            let all: Map<String, Value> = client.json(response.headers()["location"].to_str().unwrap()).await;
            assert_eq!(all[&key], true, "{} {n}", backend.name());
            if n % 60 == 59 {
                client.ok("POST", "/logout").await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_stored_whatever_the_status() {
    for backend in backends().await {
        let client = App::new(&backend).client();
        assert_eq!(client.post("/fail").await.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(client.post("/fail").await.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(client.json::<Shop>("/read").await.visits, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_types_share_a_session_and_leave_each_other_s_fields_alone() {
    for backend in backends().await {
        let client = App::new(&backend).client();
        client.ok("POST", "/theme/dark").await;
        client.ok("POST", "/login/ann").await;
        client.ok("POST", "/put/cart/full").await;
        client.ok("POST", "/visit").await;
        let all: Map<String, Value> = client.json("/all").await;
        let expected = serde_json::json!({"theme": "dark", "since": 1, "cart": "full", "visits": 1});
        assert_eq!(Value::Object(all), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_began_before_everything_was_revoked_does_not_survive() {
    for backend in backends().await {
        let (began, revoked) = (tokio::sync::Barrier::new(2), tokio::sync::Barrier::new(2));
        let barriers = std::sync::Arc::new((began, revoked));
        let waiting = barriers.clone();
        let slow = async move |s: Session<Shop>| {
            let login = s.begin_login("ann").await?;
            // The password is checked, and was good at that time.
            waiting.0.wait().await;
            waiting.1.wait().await;
            login.finish(|_| {}).await?;
            Ok::<_, SessionError>(StatusCode::NO_CONTENT)
        };
        let layer = SessionLayer::new(&backend, KeyRing::new([7; 32]).unwrap());
        let app = App(crate::app::routes().route("/slow", axum::routing::post(slow)).layer(layer));
        let (thief, ann) = (app.client(), app.client());
        ann.ok("POST", "/login/ann").await;
        let entering = tokio::spawn({
            let thief = thief.clone();
            async move { thief.post("/slow").await }
        });
        barriers.0.wait().await;
        assert_eq!(ann.ok("POST", "/everywhere").await, "1");
        barriers.1.wait().await;
        assert_eq!(entering.await.unwrap().status(), StatusCode::UNAUTHORIZED, "{}", backend.name());
        assert_eq!(thief.ok("GET", "/me").await, "");
        assert!(Sessions::new(&backend).of("ann").await.unwrap().is_empty());
        // Whoever knows the new password gets in.
        ann.ok("POST", "/login/ann").await;
        assert_eq!(ann.ok("GET", "/me").await, "ann");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everywhere_is_everywhere_and_only_the_user_s() {
    for backend in backends().await {
        let app = App::new(&backend);
        let (anns, bob) = ([app.client(), app.client(), app.client()], app.client());
        for ann in &anns {
            ann.ok("POST", "/login/ann").await;
        }
        bob.ok("POST", "/login/bob").await;
        assert_eq!(Sessions::new(&backend).of("ann").await.unwrap().len(), 3);
        assert_eq!(anns[1].ok("POST", "/everywhere").await, "3");
        for ann in &anns {
            assert_eq!(ann.ok("GET", "/me").await, "");
            assert_eq!(ann.token(), None, "the cookie is gone");
        }
        assert_eq!(bob.ok("GET", "/me").await, "bob");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_too_many_ends_the_oldest() {
    for backend in backends().await {
        let layer = SessionLayer::new(&backend, KeyRing::ephemeral()).max_sessions_per_user(2);
        let app = App::with(layer);
        let clients = [app.client(), app.client(), app.client()];
        for client in &clients {
            client.ok("POST", "/login/ann").await;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let mut users = Vec::new();
        for client in &clients {
            users.push(client.ok("GET", "/me").await);
        }
        assert_eq!(users, ["", "ann", "ann"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_an_error_and_never_cut_off() {
    for backend in backends().await {
        let client = App::new(&backend).client();
        client.ok("POST", "/put/a/b").await;
        let long = "x".repeat(4096);
        assert_eq!(client.post(&format!("/put/long/{long}")).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
        for n in 0..255 {
            client.ok("POST", &format!("/put/f{n}/1")).await;
        }
        assert_eq!(client.post("/put/one-more/1").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let all: Map<String, Value> = client.json("/all").await;
        assert!(all.len() == 256 && all["a"] == "b");
    }
}

#[tokio::test]
async fn after_the_head_has_gone_out_a_change_is_an_error() {
    let backend = tower_gatehouse::Backend::memory();
    let kept = std::sync::Arc::new(std::sync::Mutex::new(None));
    let keep = kept.clone();
    let layer = SessionLayer::new(&backend, KeyRing::ephemeral());
    let handler = async move |s: Session<Shop>| *keep.lock().unwrap() = Some(s);
    let app = App(axum::Router::new().route("/keep", axum::routing::get(handler)).layer(layer));
    app.client().ok("GET", "/keep").await;
    let session = kept.lock().unwrap().take().unwrap();
    assert!(matches!(session.update(|shop| shop.visits += 1).await, Err(SessionError::TooLate)));
    assert_eq!(session.load().await.unwrap(), Shop::default());
}

#[tokio::test]
async fn a_handler_without_the_layer_gets_an_error_that_names_it() {
    let app = App(crate::app::routes());
    let response = app.client().get("/read").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(response.body().contains("SessionLayer::new(&backend, keys)"), "{}", response.body());
}

#[tokio::test]
async fn the_layer_may_be_installed_twice() {
    let backend = tower_gatehouse::Backend::memory();
    let layer = SessionLayer::new(&backend, KeyRing::ephemeral());
    let app = App(crate::app::routes().layer(layer.clone()).layer(layer));
    let client = app.client();
    let response = client.post("/visit").await;
    assert_eq!(response.headers().get_all("set-cookie").iter().count(), 1);
    client.ok("POST", "/visit").await;
    assert_eq!(client.json::<Shop>("/read").await.visits, 2);
}

#[tokio::test]
async fn what_an_inner_layer_requires_counts() {
    let layer = SessionLayer::new(&tower_gatehouse::Backend::memory(), KeyRing::ephemeral());
    let admin = crate::app::routes().layer(layer.clone().required_with_user());
    let app = App(crate::app::routes().nest("/admin", admin).layer(layer));
    let client = app.client();
    client.ok("POST", "/visit").await;
    let response = client.get("/admin/me").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "anonymous is not enough");
    assert_eq!(response.headers()["cache-control"], "no-store");
    client.ok("POST", "/login/ann").await;
    assert_eq!(client.ok("GET", "/admin/me").await, "ann");
    let response = client.get("/admin").await;
    assert_eq!((response.headers()["cache-control"].as_bytes(), &**response.body()), (&b"private"[..], "hello"));
    let dead = client.twin();
    client.ok("POST", "/logout").await;
    let response = dead.get("/admin").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers().get_all("set-cookie").iter().count(), 1, "the cookie is expired, once");
}

#[tokio::test]
async fn an_inner_layer_with_other_sessions_is_refused() {
    let (backend, keys) = (tower_gatehouse::Backend::memory(), KeyRing::ephemeral());
    let outer = SessionLayer::new(&backend, keys.clone());
    let other_keys = SessionLayer::new(&backend, KeyRing::ephemeral());
    let other_store = SessionLayer::new(&tower_gatehouse::Backend::memory(), keys);
    for inner in [other_keys, other_store] {
        let app = App(crate::app::routes().layer(inner.required()).layer(outer.clone()));
        let response = app.client().get("/").await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(response.body().contains("make both from clones of one"), "{}", response.body());
    }
}

/// Two handles of one request: what one stages between two attempts of the other is no part of what is tried again.
#[tokio::test]
async fn what_is_staged_while_a_strict_update_is_tried_again_is_stored() {
    let backend = Backend::memory();
    let (store, attempts) = (backend.clone(), Arc::new(AtomicU32::new(0)));
    let handler = async move |s: Session<Shop>| {
        let key = s.info().await?.expect("a session").handle;
        let strict = s.update_strict(|shop| {
            // Others are faster, twice.
            if attempts.fetch_add(1, Ordering::Relaxed) < 2 {
                let set = [("other".into(), Bytes::from_static(b"1"))];
                let changes = Changes { set: &set, remove: &[] };
                let saved = store.commit_record(&key, changes, None).now_or_never().expect("it answers at once");
                assert!(matches!(saved, Ok(Saved::Done(_))), "{saved:?}");
            }
            shop.visits += 1;
        });
        let staged = async {
            while attempts.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            let staged = s.view::<Value>().insert("a", true).await;
            staged.map(|()| attempts.load(Ordering::Relaxed))
        };
        let (strict, staged) = tokio::join!(strict, staged);
        assert_eq!((staged?, attempts.load(Ordering::Relaxed)), (1, 3), "between the first attempt and the second");
        strict
    };
    let app = routes().route("/both", post(handler));
    let client = App(app.layer(SessionLayer::new(&backend, KeyRing::ephemeral()))).client();
    client.ok("POST", "/visit").await;
    client.ok("POST", "/both").await;
    let all: Map<String, Value> = client.json("/all").await;
    assert_eq!((&all["visits"], &all["other"], all.get("a")), (&2.into(), &1.into(), Some(&true.into())));
}

/// A call, or the same request of a client that speaks something else.
fn call(path: &str, content_type: &str, fields: &[(&str, &str)]) -> http::Request<axum::body::Body> {
    let mut request = http::Request::post(path).header(header::CONTENT_TYPE, content_type);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(axum::body::Body::empty()).unwrap()
}

struct Down;

impl TokenResolver for Down {
    async fn resolve(&self, _: &BearerToken) -> Result<Option<Resolved>, ResolveError> {
        Err("down".into())
    }
}

#[tokio::test]
async fn a_call_that_is_refused_gets_a_grpc_status() {
    let backend = Backend::memory();
    let keys = || KeyRing::new([7; 32]).unwrap();
    let layer = || SessionLayer::new(&backend, keys()).sources([Source::Bearer, Source::Cookie]);
    let strange = SessionLayer::new(&backend, KeyRing::ephemeral());
    let admin = Sessions::new(&backend);
    let ends = post(async move |s: Session| {
        s.insert("key", "value").await?;
        admin.revoke_all("ann").await.map_err(SessionError::from)?;
        Ok::<_, SessionError>([(header::CONTENT_TYPE, "application/grpc+proto")])
    });
    let ended = App(routes().route("/ends", ends).layer(layer()));
    let ann = ended.client();
    ann.ok("POST", "/login/ann").await;
    let cookie = format!("__Host-sid={}", ann.token().unwrap());
    let twice = [("authorization", "Bearer x"), ("authorization", "Bearer y")];
    for (app, path, fields, status, code) in [
        (App::with(layer().required()), "/me", &[][..], 401, "16"),
        (App(routes().layer(layer().required()).layer(layer())), "/me", &[], 401, "16"),
        (App::with(layer().resolver(Down).required()), "/me", &twice[..1], 503, "14"),
        (App::with(layer()), "/me", &twice[..], 400, "3"),
        (App(routes().layer(strange).layer(layer())), "/me", &[], 500, "13"),
        (App(routes().layer(ForwardSessionLayer::new("up", &keys()))), "/me", &[], 500, "13"),
        (App(routes().layer(VerifySessionLayer::new(keys().for_audience("up")))), "/me", &[], 401, "16"),
        (ended, "/ends", &[("cookie", &*cookie)], 200, "16"),
    ] {
        let answer = app.send(call(path, "application/grpc", fields)).await;
        assert_eq!(answer.status(), 200, "{path} {code}");
        let field = |name: &str| answer.headers()[name].to_str().unwrap();
        assert_eq!((field("grpc-status"), field("content-type")), (code, "application/grpc"), "{path}");
        assert!(!field("grpc-message").is_empty() && answer.body().is_empty());
        assert_eq!(field("cache-control"), "no-store");
        assert_eq!(answer.headers().contains_key(header::WWW_AUTHENTICATE), ["3", "16"].contains(&code), "{path}");
        if path == "/me" {
            let answer = app.send(call(path, "application/json", fields)).await;
            assert_eq!((answer.status().as_u16(), answer.headers().get("grpc-status")), (status, None));
            assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
        }
    }
}

#[tokio::test]
async fn the_user_shapes_the_answer_to_those_who_are_not_let_in() {
    let backend = Backend::memory();
    let layer = SessionLayer::new(&backend, KeyRing::ephemeral());
    let to_login = |request: &http::request::Parts, refusal: http::Response<Bytes>| {
        assert_eq!((refusal.status(), request.method.as_str()), (StatusCode::UNAUTHORIZED, "GET"));
        let to = format!("/login?next={}", request.uri.path());
        http::Response::builder()
            .status(StatusCode::SEE_OTHER)
            .header(header::LOCATION, to)
            .body("log in".into())
            .unwrap()
    };
    let shaped = layer.clone().required_under("/me").on_reject(to_login);
    let around = CacheLayer::new(HttpCache::new(&Backend::memory()).default_ttl(std::time::Duration::from_mins(1)));
    for app in [App::with(shaped.clone()), App(routes().layer(shaped).layer(layer))]
        .map(|app| App(app.0.layer(around.clone())))
    {
        let (ann, nobody) = (app.client(), app.client());
        let answer = nobody.get("/me").await;
        assert_eq!((answer.status(), &**answer.body()), (StatusCode::SEE_OTHER, "log in"));
        assert_eq!(answer.headers()[header::LOCATION], "/login?next=/me");
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "private");
        ann.ok("POST", "/login/ann").await;
        let gone = ann.twin();
        assert_eq!(ann.ok("GET", "/me").await, "ann", "it is no answer for others");
        ann.ok("POST", "/logout").await;
        let answer = gone.get("/me").await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(gone.token(), None, "the cookie of no use is expired");
        assert_eq!(nobody.ok("GET", "/").await, "hello");
    }
}
