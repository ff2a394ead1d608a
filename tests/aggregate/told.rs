//! Caches of parts, where the part is told who is asking: what it says to one is for nobody else.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Json, Router, body::Body, extract::Path, routing::get};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_gatehouse::{
    Backend, CacheLayer, HttpCache, Identity, Personal,
    aggregate::{Aggregate, Part},
    rate_limit::{Key, PeerAddr, Quota, RateLimitLayer},
    session::{Claims, ForwardSessionLayer, KeyRing, Session, SessionLayer, VerifySessionLayer},
};

use crate::support::{ask, at_root, response};

type Incoming = Request<Full<Bytes>>;

const MINUTE: [(&str, &str); 1] = [("cache-control", "max-age=60")];

/// Answers with the field `x-user`, else with who is asking, from a cache of its own.
fn says_who() -> Router {
    let who = async |request: Request<Body>| {
        let user = match request.headers().get("x-user") {
            Some(user) => user.to_str().unwrap().to_owned(),
            None => match Identity::of(request.extensions()) {
                Some(identity) => identity.known().await.unwrap().user().unwrap_or("nobody").to_owned(),
                None => "unknown".to_owned(),
            },
        };
        (MINUTE, Json(user))
    };
    Router::new().fallback(who).layer(CacheLayer::new(HttpCache::new(&Backend::memory())))
}

async fn log_in(Path(user): Path<String>, request: Request<Body>) {
    let session: Session = Session::of(&request).unwrap();
    session.login(user, |_| ()).await.unwrap();
}

async fn content<S>(app: S, request: Request<Body>) -> String
where
    S: Service<Request<Body>, Response = axum::response::Response, Error = Infallible>,
{
    let body = app.oneshot(request).await.unwrap().into_body().collect().await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

/// What ann and bob get, who are logged in, behind a limit that has looked up who they are.
async fn logged_in(part: Part) -> [String; 2] {
    answers(at_root().part("me", part).flat().build().unwrap()).await
}

async fn answers(aggregate: Aggregate) -> [String; 2] {
    let backend = Backend::memory();
    let app = Router::new()
        .route_service("/", aggregate)
        .route("/begin/{user}", get(log_in))
        .layer(RateLimitLayer::new(&backend, "user", Key::user().or(Key::global()), Quota::per_minute(100)))
        .layer(SessionLayer::new(&backend, KeyRing::ephemeral()));
    let gets = async |user| {
        let request = Request::get(format!("/begin/{user}")).body(Body::empty()).unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap();
        content(app.clone(), Request::get("/").header("cookie", cookie).body(Body::empty()).unwrap()).await
    };
    [gets("ann").await, gets("bob").await]
}

/// What one part has learnt of who is asking, told to the next one in a field.
#[tokio::test]
async fn each_gets_their_own_where_a_part_is_told_what_another_one_has_said_to_one_client() {
    let me = Router::new().fallback(async |request: Request<Body>| {
        let identity = Identity::of(request.extensions()).unwrap().known().await.unwrap();
        (MINUTE, Json(identity.user().unwrap_or("nobody").to_owned()))
    });
    let greeting = Part::new(says_who(), |cx| {
        let mut request = cx.get("/")?;
        request.headers_mut().insert("x-user", cx.part("me")?.as_str().unwrap().parse()?);
        Ok(request)
    });
    let parts = at_root().part("me", Part::new(me, |cx| cx.get("/"))).part("greeting", greeting.depends_on("me"));
    let [ann, bob] = answers(parts.flat().build().unwrap()).await;
    assert_eq!(ann, r#"{"me":"ann","greeting":"ann"}"#);
    assert_eq!(bob, r#"{"me":"bob","greeting":"bob"}"#);
}

#[tokio::test]
async fn each_gets_their_own_however_the_part_is_told() {
    let parts = [
        Part::new(says_who(), |cx| cx.get("/")),
        Part::new(says_who(), |cx| cx.get("/")).forward_extension::<Identity>(),
        Part::new(says_who(), |cx| {
            let mut request = cx.get("/")?;
            let user = cx.identity().unwrap().user().unwrap().parse()?;
            request.headers_mut().insert("x-user", user);
            Ok(request)
        }),
        Part::new(says_who(), |cx| {
            let mut request = cx.get("/")?;
            let user = cx.extension::<Identity>().unwrap().user().unwrap().parse()?;
            request.headers_mut().insert("x-user", user);
            Ok(request)
        }),
        Part::new(says_who(), |cx| {
            let mut request = cx.get("/")?;
            request.extensions_mut().insert(cx.extension::<Identity>().unwrap().clone());
            Ok(request)
        }),
        Part::new(says_who(), |cx| {
            let mut request = cx.get("/")?;
            request.extensions_mut().insert(Personal::default());
            Ok(request)
        }),
    ];
    for (number, part) in parts.into_iter().enumerate() {
        assert_eq!(logged_in(part).await, [r#"{"me":"ann"}"#, r#"{"me":"bob"}"#], "{number}");
    }
}

#[tokio::test]
async fn who_compares_an_identity_has_read_it() {
    let greets = async |request: Request<Body>| {
        let identity = Identity::of(request.extensions()).unwrap().known().await.unwrap();
        (MINUTE, Json(if identity == Identity::anonymous().with_user("ann") { "ann" } else { "somebody" }))
    };
    let greets = Router::new().fallback(greets).layer(CacheLayer::new(HttpCache::new(&Backend::memory())));
    let aggregate = at_root().part("me", Part::new(greets, |cx| cx.get("/"))).flat().build().unwrap();
    for (user, greeted) in [("ann", "ann"), ("bob", "somebody")] {
        let mut request = Request::get("/").body(()).unwrap();
        request.extensions_mut().insert(Identity::anonymous().with_user(user));
        assert_eq!(ask(aggregate.clone(), request).await.content, format!(r#"{{"me":"{greeted}"}}"#));
    }
}

#[tokio::test]
async fn a_layer_of_one_s_own_says_who_is_asking() {
    for outside in [false, true] {
        let cache = || CacheLayer::new(HttpCache::new(&Backend::memory()));
        let part = if outside {
            let who = service_fn(|request: Incoming| async move {
                let identity = Identity::of(request.extensions()).unwrap();
                let said = format!("\"{}\"", identity.user().unwrap_or("nobody"));
                Ok::<_, Infallible>(response(200, &MINUTE, "").map(|_| Full::from(said)))
            });
            Part::new(who, |cx| cx.get("/"))
        } else {
            Part::new(says_who(), |cx| cx.get("/"))
        };
        let aggregate = at_root().part("me", part).flat().build().unwrap();
        let (whole, cached) = (aggregate.clone(), cache().layer(aggregate));
        for user in [None, Some("ann"), Some("bob")] {
            let mut request = Request::get("http://shop.example/").body(Full::<Bytes>::default()).unwrap();
            let identity = Identity::anonymous();
            request.extensions_mut().insert(user.map_or(identity.clone(), |user| identity.with_user(user)));
            let body = if outside {
                cached.clone().oneshot(request).await.unwrap().into_body().collect().await.map_err(|_| ()).unwrap()
            } else {
                whole.clone().oneshot(request).await.unwrap().into_body().collect().await.unwrap()
            };
            assert_eq!(&body.to_bytes()[..], format!(r#"{{"me":"{}"}}"#, user.unwrap_or("nobody")).as_bytes());
        }
    }
}

#[tokio::test]
async fn a_function_that_has_read_a_credential_may_say_it_in_other_words() {
    let part = Part::new(says_who(), |cx| {
        let mut request = cx.get("/")?;
        request.headers_mut().insert("x-user", cx.header(header::COOKIE).unwrap().clone());
        Ok(request)
    });
    let aggregate = at_root().part("me", part).flat().build().unwrap();
    for user in ["ann", "bob"] {
        let request = Request::get("/").header("cookie", user).body(()).unwrap();
        assert_eq!(ask(aggregate.clone(), request).await.content, format!(r#"{{"me":"{user}"}}"#));
    }
}

#[tokio::test]
async fn claims_that_are_forwarded_alone_are_for_one() {
    let (backend, keys) = (Backend::memory(), KeyRing::ephemeral());
    let me = async |request: Request<Body>| {
        let user = Claims::of(&request).ok().and_then(|claims| claims.user().map(str::to_owned));
        (MINUTE, Json(user))
    };
    let me = Router::new().fallback(me).layer(CacheLayer::new(HttpCache::new(&Backend::memory())));
    let part = Part::new(me, |cx| cx.get("/")).forward_extension::<Claims>();
    let gathers = Router::new()
        .route_service("/", at_root().part("me", part).flat().build().unwrap())
        .layer(VerifySessionLayer::new(keys.for_audience("shop")));
    // In a process of its own.
    let upstream = gathers.map_request(|mut request: Request<_>| {
        request.extensions_mut().clear();
        request.map(Body::new)
    });
    let app = Router::new()
        .route("/begin/{user}", get(log_in))
        .fallback_service(ForwardSessionLayer::new("shop", &keys).layer(upstream))
        .layer(SessionLayer::new(&backend, keys));
    for user in ["ann", "bob"] {
        let request = Request::get(format!("/begin/{user}")).body(Body::empty()).unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap();
        let request = Request::get("/").header("cookie", cookie).body(Body::empty()).unwrap();
        assert_eq!(content(app.clone(), request).await, format!(r#"{{"me":"{user}"}}"#));
    }
}

#[tokio::test]
async fn an_address_for_limits_keeps_nothing_from_being_stored() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let news = async move || {
        count.fetch_add(1, Ordering::Relaxed);
        (MINUTE, Json("news"))
    };
    let limit = RateLimitLayer::new(&Backend::memory(), "part", Key::peer_ip(), Quota::per_minute(9));
    let news = Router::new().fallback(news).layer(CacheLayer::new(HttpCache::new(&Backend::memory()))).layer(limit);
    let part = Part::new(news, |cx| cx.get("/")).forward_extension::<PeerAddr>();
    let aggregate = at_root().part("news", part).build().unwrap();
    for host in 1..=2 {
        let mut request = Request::get("/").body(()).unwrap();
        request.extensions_mut().insert(PeerAddr(([192, 0, 2, host], 1).into()));
        assert_eq!(ask(aggregate.clone(), request).await.status, 200);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
