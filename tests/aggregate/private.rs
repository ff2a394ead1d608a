//! What one user gets, another one does not.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_gatehouse::{
    Backend, CacheLayer, HttpCache, Identity, Personal,
    aggregate::{Aggregate, Part},
};

use crate::support::{Fields, answers, at_root, response};

type Incoming = Request<Full<Bytes>>;

/// A part that says who is asking.
fn who() -> Part {
    let service = service_fn(|request: Incoming| async move {
        let identity = Identity::of(request.extensions()).unwrap();
        let who = format!("\"{}\"", identity.user().unwrap_or("nobody"));
        Ok::<_, Infallible>(response(200, &[("cache-control", "max-age=60")], "").map(|_| Full::from(who)))
    });
    Part::new(service, |cx| cx.get("/me"))
}

/// What each of them gets, one after the other, where a layer outside of the cache says who is asking.
async fn each_gets(aggregate: Aggregate, field: Option<header::HeaderName>) -> Vec<String> {
    let cache = HttpCache::new(&Backend::memory());
    let mut contents = Vec::new();
    let app = CacheLayer::new(&cache).layer(aggregate);
    for user in ["alice", "bob"] {
        let authenticates = |mut request: Incoming| {
            request.extensions_mut().insert(Identity::anonymous().with_user(user));
            request
        };
        let app = ServiceBuilder::new().map_request(authenticates).service(app.clone());
        let mut request = Request::get("http://example.com/");
        if let Some(field) = &field {
            request = request.header(field, user);
        }
        let answer = app.oneshot(request.body(Full::default()).unwrap()).await.unwrap();
        contents.push(String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap());
    }
    contents
}

#[tokio::test]
async fn directives_of_one_part_do_not_share_what_another_one_says_of_the_user() {
    let others: [Fields; 3] = [
        &[("cache-control", "max-age=60")],
        &[("cache-control", "max-age=60, must-revalidate")],
        &[("cache-control", "max-age=60, s-maxage=60")],
    ];
    for other in others {
        for field in [None, Some(header::AUTHORIZATION), Some(header::HeaderName::from_static("x-session"))] {
            let aggregate = at_root().part("me", who()).part("news", answers(200, other, "1")).flat();
            let contents = each_gets(aggregate.build().unwrap(), field.clone()).await;
            assert!(contents[1].contains("bob"), "{other:?} {field:?}: {contents:?}");
        }
    }
}

#[derive(Clone)]
struct Tier(&'static str);

/// The second of two requests, of which only that one has what the part is given.
async fn second(part: Part, give: impl FnOnce(&mut Incoming)) -> Bytes {
    let app =
        CacheLayer::new(HttpCache::new(&Backend::memory())).layer(at_root().part("p", part).flat().build().unwrap());
    let request = || Request::get("http://example.com/").body(Full::default()).unwrap();
    app.clone().oneshot(request()).await.unwrap().into_body().collect().await.unwrap();
    let mut other = request();
    give(&mut other);
    app.oneshot(other).await.unwrap().into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn an_answer_without_what_is_forwarded_is_not_for_those_who_have_it() {
    let fresh = |what: String| response(200, &[("cache-control", "max-age=60")], "").map(|_| Full::from(what));
    let tier = service_fn(move |request: Incoming| async move {
        let tier = request.extensions().get::<Tier>().map_or("none", |tier| tier.0);
        Ok::<_, Infallible>(fresh(format!("\"{tier}\"")))
    });
    let part = Part::new(tier, |cx| cx.get("/")).forward_extension::<Tier>();
    let give = |request: &mut Incoming| {
        request.extensions_mut().insert(Tier("gold"));
    };
    assert_eq!(&second(part, give).await[..], br#"{"p":"gold"}"#);

    let cookie = service_fn(move |request: Incoming| async move {
        let cookie = request.headers().get(header::COOKIE).map_or("none", |cookie| cookie.to_str().unwrap());
        Ok::<_, Infallible>(fresh(format!("\"{cookie}\"")))
    });
    let part = Part::new(cookie, |cx| cx.get("/")).forward([header::COOKIE]);
    let give = |request: &mut Incoming| {
        request.headers_mut().insert(header::COOKIE, "u=1".parse().unwrap());
    };
    assert_eq!(&second(part, give).await[..], br#"{"p":"u=1"}"#);
}

#[tokio::test]
async fn a_part_that_brings_a_credential_keeps_the_whole_from_others() {
    let login = service_fn(|_: Incoming| async {
        let mark = Personal::default();
        mark.mark_credential();
        let mut response: Response<_> = response(200, &[("cache-control", "public, max-age=60")], "\"secret\"");
        response.extensions_mut().insert(mark);
        Ok::<_, Infallible>(response)
    });
    let aggregate = at_root().part("login", Part::new(login, |cx| cx.get("/"))).build().unwrap();
    let app = CacheLayer::new(HttpCache::new(&Backend::memory())).layer(aggregate);
    for _ in 0..2 {
        let request = Request::get("http://example.com/").body(Full::<Bytes>::default()).unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        assert_ne!(answer.headers()["x-cache"], "HIT");
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        answer.into_body().collect().await.unwrap();
    }
}
