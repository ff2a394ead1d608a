//! Where an aggregate stands, and what can stand behind it.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, body::Body, extract::Path, routing::get};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneService};
use tower_gatehouse::aggregate::{Aggregate, Part};

use crate::support::{at_root, echo};

fn users() -> Router {
    Router::new().route("/users/{id}", get(|Path(id): Path<u32>| async move { Json(json!({ "id": id })) }))
}

async fn content(response: Response<Body>) -> Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test]
async fn it_is_a_route_a_fallback_and_nested_in_axum_with_routers_behind_it() {
    let profile = || {
        Aggregate::at("/profile/{id}")
            .unwrap()
            .part("user", Part::new(users(), |cx| cx.get(format!("/users/{}", cx.path("id")?))))
            .build()
            .unwrap()
    };
    let apps = [
        (Router::new().route_service("/profile/{id}", profile()), "/profile/7"),
        (Router::new().fallback_service(profile()), "/profile/7"),
        (Router::new().nest("/api", Router::new().route_service("/profile/{id}", profile())), "/api/profile/7"),
        (Router::new().nest_service("/api", profile()), "/api/profile/7"),
    ];
    for (app, path) in apps {
        let response = app.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        // Captures of the outer router would be taken for those of the part's.
        let length = response.headers()["content-length"].clone();
        assert_eq!(content(response).await, json!({ "data": { "user": { "id": 7 } }, "errors": {} }));
        let response = app.oneshot(Request::head(path).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.headers()["content-length"], length);
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}

#[tokio::test]
async fn a_client_of_hyper_is_a_source_and_hyper_serves_it() {
    let origin = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin_at = origin.local_addr().unwrap();
    let serving_origin = tokio::spawn(async move { axum::serve(origin, users()).await });

    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    // Bound, so that nobody else has the port, and nobody listens.
    let unheard = tokio::net::TcpSocket::new_v4().unwrap();
    unheard.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = unheard.local_addr().unwrap();
    let aggregate = Aggregate::at("/profile/{id}")
        .unwrap()
        .part(
            "user",
            Part::new(client.clone(), move |cx| cx.get(format!("http://{origin_at}/users/{}", cx.path("id")?))),
        )
        .part("down", Part::new(client.clone(), move |cx| cx.get(format!("http://{nobody}/"))).optional())
        .build()
        .unwrap();
    let gateway = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway_at = gateway.local_addr().unwrap();
    let serving_gateway =
        tokio::spawn(async move { axum::serve(gateway, Router::new().fallback_service(aggregate)).await });

    for (method, expected) in [("GET", true), ("HEAD", false)] {
        let request = Request::builder().method(method).uri(format!("http://{gateway_at}/profile/9"));
        let response = client.request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(
            (response.status(), &response.headers()["x-aggregate-complete"]),
            (StatusCode::OK, &"false".parse().unwrap())
        );
        let length: usize = response.headers()["content-length"].to_str().unwrap().parse().unwrap();
        let content = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(content.len(), if expected { length } else { 0 });
        if expected {
            let json: Value = serde_json::from_slice(&content).unwrap();
            assert_eq!(json["data"], json!({ "user": { "id": 9 }, "down": null }));
            assert_eq!(json["errors"]["down"]["kind"], "unreachable");
        }
    }
    serving_gateway.abort();
    serving_origin.abort();
}

#[tokio::test]
async fn a_source_has_layers_of_its_own_and_is_polled_until_it_is_ready() {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = {
        let (running, most) = (running.clone(), most.clone());
        service_fn(move |_: Request<Full<Bytes>>| {
            let (running, most) = (running.clone(), most.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("1")))
            }
        })
    };
    let limited = ServiceBuilder::new().concurrency_limit(1).service(counted);
    let mut aggregate = at_root();
    for name in ["a", "b", "c", "d"] {
        aggregate = aggregate.part(name, Part::new(limited.clone(), |cx| cx.get("/")));
    }
    let answer = crate::support::get(aggregate.build().unwrap(), "/").await;
    assert_eq!(answer.json()["data"], json!({ "a": 1, "b": 1, "c": 1, "d": 1 }));
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_source_may_have_any_body_and_error_and_need_not_be_sync() {
    let bodies = service_fn(|request: Request<String>| async move {
        Ok::<_, std::io::Error>(Response::new(Body::from(format!("\"{}\"", request.body()))))
    });
    let boxed: BoxCloneService<Request<Full<Bytes>>, Response<Full<Bytes>>, Infallible> = BoxCloneService::new(echo());
    let mut aggregate = at_root()
        .part("string", Part::new(bodies, |_| Ok(Request::post("/").body("asked".to_owned())?)))
        .part("boxed", Part::new(boxed, |cx| cx.get("/boxed")))
        .build()
        .unwrap();
    shareable(&aggregate);
    // Always ready, for requests with any body.
    let ready = <Aggregate as ServiceExt<Request<Vec<u8>>>>::ready(&mut aggregate).await.unwrap();
    let response = ready.call(Request::get("/").body(vec![1]).unwrap()).await.unwrap();
    let content: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!((&content["data"]["string"], &content["data"]["boxed"]["uri"]), (&json!("asked"), &json!("/boxed")));
}

fn shareable<T: Clone + Send + Sync + 'static>(_: &T) {}

#[test]
fn debug_output_shows_no_credentials() {
    let aggregate = at_root().part("user", Part::new(echo(), |cx| cx.get("/"))).build().unwrap();
    assert_eq!(format!("{aggregate:?}"), r#"Aggregate { pattern: /, parts: ["user"], shape: Envelope }"#);
}

#[cfg(feature = "memory")]
mod with_layers {
    use std::net::{Ipv4Addr, SocketAddr};

    use tower::Layer;
    use tower_gatehouse::{
        Backend, CacheLayer, HttpCache, Identity, Personal,
        rate_limit::{Key, PeerAddr, Quota, RateLimitLayer},
        session::{KeyRing, Session, SessionLayer},
    };

    use super::*;

    #[tokio::test]
    async fn a_part_has_limits_of_its_own_and_its_refusal_is_passed_on() {
        let limit = RateLimitLayer::new(&Backend::memory(), "part", Key::peer_ip(), Quota::per_minute(1));
        let part = || Part::new(limit.clone().layer(echo()), |cx| cx.get("/")).forward_extension::<PeerAddr>();
        let ask = async |aggregate: Aggregate, host: u8| {
            let mut request = Request::get("/").body(()).unwrap();
            request.extensions_mut().insert(PeerAddr(SocketAddr::from((Ipv4Addr::new(192, 0, 2, host), 1))));
            crate::support::ask(aggregate, request).await
        };
        let required = at_root().part("a", part()).build().unwrap();
        assert_eq!(ask(required.clone(), 1).await.status, 200);
        let refused = ask(required.clone(), 1).await;
        assert_eq!(refused.status, 429);
        let seconds: u64 = refused.field("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds));
        assert_eq!(ask(required, 2).await.status, 200);
        let optional = at_root().part("a", part().optional()).build().unwrap();
        assert_eq!(ask(optional, 1).await.json()["errors"]["a"]["status"], 429);
    }

    #[tokio::test]
    async fn a_part_that_uses_the_session_makes_the_answer_personal() {
        let cart = service_fn(|request: Request<Full<Bytes>>| async move {
            let session: Session = Session::of(&request).unwrap();
            let cart: Option<u32> = session.get("cart").await.unwrap();
            session.insert("cart", cart.unwrap_or(0) + 1).await.unwrap();
            let response = Response::builder().header("cache-control", "max-age=60");
            Ok::<_, Infallible>(response.body(Full::<Bytes>::from(json!(cart).to_string())).unwrap())
        });
        let aggregate = at_root()
            .part("cart", Part::new(cart, |cx| cx.get("/")).forward_extension::<Session>())
            .part("shop", crate::support::answers(200, &[("cache-control", "max-age=60")], "1"))
            .build()
            .unwrap();
        let stack = SessionLayer::new(&Backend::memory(), KeyRing::ephemeral()).layer(aggregate);
        let mut cookie = None;
        for expected in [Value::Null, json!(1), json!(2)] {
            let mut request = Request::get("/");
            if let Some(cookie) = &cookie {
                request = request.header("cookie", cookie);
            }
            let mut request = request.body(Full::<Bytes>::default()).unwrap();
            Personal::ask_for(request.extensions_mut());
            let response = stack.clone().oneshot(request).await.unwrap();
            assert!(response.extensions().get::<Personal>().is_some_and(Personal::is_marked));
            let control = response.headers()["cache-control"].to_str().unwrap();
            assert!(control.contains("private") || control.contains("no-store"), "{control}");
            if let Some(set) = response.headers().get("set-cookie") {
                cookie = set.to_str().unwrap().split(';').next().map(str::to_owned);
            }
            let content = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(serde_json::from_slice::<Value>(&content).unwrap()["data"]["cart"], expected);
        }
    }

    #[tokio::test]
    async fn what_one_part_reads_of_the_session_does_not_keep_the_caches_of_the_others_from_storing() {
        let backend = Backend::memory();
        let cached = |scope| CacheLayer::new(HttpCache::new(&backend).scope(scope));
        let cart = async |session: Session| session.get::<String>("cart").await.unwrap().unwrap_or_default();
        let cart = service_fn(move |request: Request<Full<Bytes>>| async move {
            let said = cart(Session::of(&request).unwrap()).await;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(json!(said).to_string())))
        });
        let fresh = |what: String| ([("cache-control", "max-age=60")], Json(what));
        let (asked_news, asked_who): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let (count_news, count_who) = (asked_news.clone(), asked_who.clone());
        let news = Router::new().fallback(async move || {
            count_news.fetch_add(1, Ordering::Relaxed);
            // The others have read by then.
            tokio::time::sleep(Duration::from_millis(50)).await;
            fresh("news".into())
        });
        let who = Router::new().fallback(async move |request: Request<Body>| {
            count_who.fetch_add(1, Ordering::Relaxed);
            let identity = Identity::of(request.extensions()).unwrap().known().await.unwrap();
            fresh(identity.user().unwrap_or("nobody").into())
        });
        let aggregate = at_root()
            .part("cart", Part::new(cart, |cx| cx.get("/")).forward_extension::<Session>())
            .part("news", Part::new(cached("news").layer(news), |cx| cx.get("/")))
            .part("who", Part::new(cached("who").layer(who), |cx| cx.get("/")))
            .flat()
            .build()
            .unwrap();
        let log_in = |Path(user): Path<String>, request: Request<Body>| async move {
            let session: Session = Session::of(&request).unwrap();
            session.insert("cart", format!("of {user}")).await.unwrap();
            session.login(user, |_| ()).await.unwrap();
        };
        let app = Router::new()
            .route_service("/", aggregate)
            .route("/begin/{user}", get(log_in))
            .layer(SessionLayer::new(&backend, KeyRing::ephemeral()));
        for user in ["ann", "bob"] {
            let request = Request::get(format!("/begin/{user}")).body(Body::empty()).unwrap();
            let begun = app.clone().oneshot(request).await.unwrap();
            let cookie = begun.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap();
            let request = Request::get("/").header("cookie", cookie).body(Body::empty()).unwrap();
            let answer = app.clone().oneshot(request).await.unwrap();
            assert!(answer.headers()["cache-control"].to_str().unwrap().contains("private"));
            let cart = format!("of {user}");
            assert_eq!(content(answer).await, json!({ "cart": cart, "news": "news", "who": user }));
        }
        assert_eq!(asked_news.load(Ordering::Relaxed), 1, "stored for both");
        assert_eq!(asked_who.load(Ordering::Relaxed), 2, "each for themselves");
    }
}
