//! What sessions cost beside a bare route, and on Redis beside a bare GET of as many bytes. Run with
//! `cargo bench --all-features --bench session`.

#[path = "../tests/support/mod.rs"]
mod servers;
mod support;

use axum::{Router, body::Body, routing::get};
use fred::interfaces::{ClientLike as _, KeysInterface as _};
use http::{Request, header};
use serde::{Deserialize, Serialize};
use support::{Subject, compare, each};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;
use tower_gatehouse::{
    Backend,
    session::{KeyRing, Session, SessionError, SessionLayer},
};

#[derive(Clone, Default, Serialize, Deserialize)]
struct Shop {
    theme: String,
    visits: u32,
    notes: String,
}

fn main() {
    let one_thread = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bare = Router::new().route("/", get(async || "hello")).with_state(());
    let floor = |runtime| -> Subject<'_> { request("a bare axum route", runtime, &bare, "/", "") };
    let sessions = Sessions::new(&one_thread, &Backend::memory());
    let none = "";
    compare(
        "in memory",
        vec![
            floor(&one_thread),
            request("no token", &one_thread, &sessions.app, "/", none),
            request("a forged token", &one_thread, &sessions.app, "/", &sessions.forged),
            request("a token, the session not asked for", &one_thread, &sessions.app, "/", &sessions.cookie),
            request("the session loaded", &one_thread, &sessions.app, "/load", &sessions.cookie),
            request("one value read", &one_thread, &sessions.app, "/get", &sessions.cookie),
            request("the session changed", &one_thread, &sessions.app, "/change", &sessions.cookie),
        ],
    );

    let server = servers::RedisServer::start();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let client = runtime.block_on(async {
        let client =
            fred::prelude::Builder::from_config(fred::prelude::Config::from_url(&server.url()).expect("a URL"))
                .build()
                .expect("a client");
        client.init().await.expect("Redis");
        let () = client.set("floor", "x".repeat(300), None, None, false).await.expect("SET");
        client
    });
    let backend = runtime.block_on(Backend::redis(server.url()).connect()).expect("Redis");
    let sessions = Sessions::new(&runtime, &backend);
    let bare_get = || runtime.block_on(async { client.get::<fred::bytes::Bytes, _>("floor").await.expect("GET") });
    compare(
        "on Redis",
        vec![
            each("a bare GET with fred, no route", bare_get),
            request("the session loaded", &runtime, &sessions.app, "/load", &sessions.cookie),
            request("the session changed", &runtime, &sessions.app, "/change", &sessions.cookie),
        ],
    );
}

struct Sessions {
    app: Router,
    cookie: String,
    forged: String,
}

impl Sessions {
    /// With one session, as a small shop would have it.
    fn new(runtime: &Runtime, backend: &Backend) -> Self {
        let load = async |s: Session<Shop>| Ok::<_, SessionError>(s.load().await?.theme);
        let one = async |s: Session<Shop>| Ok::<_, SessionError>(s.get::<String>("theme").await?.unwrap_or_default());
        let change = async |s: Session<Shop>| s.update(|shop| shop.visits = shop.visits.wrapping_add(1)).await;
        let begin = async |s: Session<Shop>| {
            s.login("ann", |shop| *shop = Shop { theme: "dark".into(), visits: 1, notes: "x".repeat(200) }).await
        };
        let app = Router::new()
            .route("/", get(async || "hello"))
            .route("/load", get(load))
            .route("/get", get(one))
            .route("/change", get(change))
            .route("/begin", get(begin))
            .layer(SessionLayer::new(backend, KeyRing::ephemeral()))
            // As a server does: without it, axum makes the layers anew for each request.
            .with_state(());
        let request = Request::get("/begin").body(Body::empty()).expect("a request");
        let response = runtime.block_on(app.clone().oneshot(request)).expect("an answer");
        let cookie = response.headers()[header::SET_COOKIE].to_str().expect("text");
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        let mut forged = cookie.clone();
        forged.replace_range(20..21, if &forged[20..21] == "A" { "B" } else { "A" });
        Self { app, cookie, forged }
    }
}

fn request<'a>(name: &'a str, runtime: &'a Runtime, app: &'a Router, path: &'a str, cookie: &'a str) -> Subject<'a> {
    each(name, move || {
        let mut request = Request::get(path);
        if !cookie.is_empty() {
            request = request.header(header::COOKIE, cookie);
        }
        let request = request.body(Body::empty()).expect("a request");
        let response = runtime.block_on(app.clone().oneshot(request)).expect("an answer");
        assert!(response.status().is_success());
        response
    })
}
