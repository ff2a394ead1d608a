//! Sessions beside tower-sessions with its own stores: in memory, and on Redis (its store uses fred, too).
//!
//! A token of ours carries a MAC. Of tower-sessions there is what it does by default, where the cookie is a bare id, and
//! in memory also what does the same as ours: signed cookies. And the least that could do what ours does.
//!
//! ```text
//! cargo bench --manifest-path benches/peers/Cargo.toml --bench session
//! ```

#[allow(dead_code)]
#[path = "../../support/mod.rs"]
mod bench;
mod least;
mod redis;
#[path = "../../support/rounds.rs"]
mod rounds;

use std::convert::Infallible;

use axum::{Router, body::Body, extract::FromRequestParts, routing::get};
use bench::{Subject, compare};
use fred::prelude::{ClientLike, KeysInterface, Pool};
use http::{Request, StatusCode, header, request::Parts};
use least::Least;
use redis::Redis;
use rounds::rounds;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tower::{ServiceExt, util::MapRequestLayer};
use tower_gatehouse::{
    Backend,
    session::{KeyRing, Session, SessionError, SessionLayer},
};
use tower_sessions::{
    Expiry, MemoryStore, SessionManagerLayer, SessionStore,
    cookie::{Key, time::Duration},
};
use tower_sessions_redis_store::RedisStore;

/// What a small shop keeps.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Shop {
    theme: String,
    visits: u32,
    notes: String,
}

impl Shop {
    fn some() -> Self {
        Self { theme: "dark".into(), visits: 1, notes: "x".repeat(200) }
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let signed =
        Visitor::new(&runtime, their_routes().layer(their_layer(MemoryStore::default()).with_signed(Key::generate())));
    let theirs = Visitor::new(&runtime, theirs(MemoryStore::default()));
    let ours = Visitor::new(&runtime, ours(&Backend::memory()));
    let bare = Visitor { app: no_session().with_state(()), cookie: String::new() };
    // What both contain: the cookie, what axum does for each layer and extractor, and the answer.
    let nothing = MapRequestLayer::new(|request: Request<Body>| request);
    let floor = Visitor { app: no_session().layer(nothing).with_state(()), cookie: ours.cookie.clone() };
    let reference = Least::default();
    let cookie = reference.begin(&Shop::some());
    let reference = Visitor { app: least_routes().layer(reference).with_state(()), cookie };
    for (what, path) in [("loaded", "/load"), ("not asked for", "/"), ("changed", "/change")] {
        let mut subjects = vec![
            theirs.asks(&runtime, "tower-sessions", path, 1),
            ours.asks(&runtime, "SessionLayer", path, 1),
            floor.asks(&runtime, "no session: a cookie, a layer that does nothing", path, 1),
            bare.asks(&runtime, "no session: a bare axum route", path, 1),
            signed.asks(&runtime, "with signed cookies, tower-sessions", path, 1),
        ];
        if path == "/load" {
            subjects.push(reference.asks(&runtime, "the least that a token with a MAC and JSON can cost", path, 1));
        }
        let nanos = compare(&format!("in memory, one at a time, {what}"), subjects);
        if let [theirs, ours, floor, _, signed, ..] = nanos[..]
            && ours.is_finite()
        {
            let beyond = |theirs| (ours - floor) / (theirs - floor);
            println!("  SessionLayer, beyond the route without a session: x {:.2}", beyond(theirs));
            println!("  SessionLayer beside signed cookies: x {:.2}, beyond x {:.2}", ours / signed, beyond(signed));
        }
    }
    // Multiplexed clients have a task of their own.
    on_redis(&tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
}

fn on_redis(runtime: &Runtime) {
    let server = Redis::start();
    let (backend, pool) = runtime.block_on(async {
        let config = fred::types::config::Config::from_url(&server.url()).unwrap();
        // One connection, as ours has.
        let pool = Pool::new(config, None, None, None, 1).unwrap();
        pool.init().await.unwrap();
        let _: () = pool.set("floor", vec![b'x'; 300].as_slice(), None, None, false).await.unwrap();
        (
            Backend::redis(server.url()).operation_timeout(std::time::Duration::from_hours(1)).connect().await.unwrap(),
            pool,
        )
    });
    // At once, the same visitor or each one of their own.
    let visitors = |app: Router| (0..64).map(|_| Visitor::new(runtime, app.clone())).collect::<Vec<_>>();
    let (theirs, ours) = (visitors(theirs(RedisStore::new(pool.clone()))), visitors(ours(&backend)));
    let (theirs, ours) = (&theirs, &ours);
    for (at_once, of) in [(1, 1), (64, 1), (64, 64)] {
        let get = async |_| {
            let value: fred::types::Value = pool.get("floor").await.unwrap();
            assert_eq!(value.as_bytes().map(<[u8]>::len), Some(300));
        };
        let title = format!("on Redis, {at_once} at once, of {of} sessions: one round of all");
        compare(
            &title,
            vec![
                rounds(runtime, "tower-sessions, loaded", at_once, move |n| theirs[n % of].ask("/load")),
                rounds(runtime, "SessionLayer, loaded", at_once, move |n| ours[n % of].ask("/load")),
                rounds(runtime, "a bare GET of 300 bytes, no route", at_once, get),
            ],
        );
        compare(
            &title,
            vec![
                rounds(runtime, "tower-sessions, changed", at_once, move |n| theirs[n % of].ask("/change")),
                rounds(runtime, "SessionLayer, changed", at_once, move |n| ours[n % of].ask("/change")),
            ],
        );
    }
}

fn theirs(store: impl SessionStore + Clone) -> Router {
    their_routes().layer(their_layer(store))
}

fn their_layer<S: SessionStore>(store: S) -> SessionManagerLayer<S> {
    SessionManagerLayer::new(store).with_expiry(Expiry::OnInactivity(Duration::minutes(30)))
}

fn their_routes() -> Router {
    type Result<T> = std::result::Result<T, StatusCode>;
    fn failed<E>(_: E) -> StatusCode {
        StatusCode::INTERNAL_SERVER_ERROR
    }
    let load = async |s: tower_sessions::Session| -> Result<String> {
        Ok(s.get::<Shop>("shop").await.map_err(failed)?.unwrap_or_default().theme)
    };
    let change = async |s: tower_sessions::Session| -> Result<()> {
        let mut shop = s.get::<Shop>("shop").await.map_err(failed)?.unwrap_or_default();
        shop.visits = shop.visits.wrapping_add(1);
        s.insert("shop", shop).await.map_err(failed)
    };
    let begin = async |s: tower_sessions::Session| s.insert("shop", Shop::some()).await.map_err(failed);
    Router::new()
        .route("/", get(async || "hello"))
        .route("/load", get(load))
        .route("/change", get(change))
        .route("/begin", get(begin))
}

fn ours(backend: &Backend) -> Router {
    let load = async |s: Session<Shop>| Ok::<_, SessionError>(s.load().await?.theme);
    let change = async |s: Session<Shop>| s.update(|shop| shop.visits = shop.visits.wrapping_add(1)).await;
    let begin = async |s: Session<Shop>| s.update(|shop| *shop = Shop::some()).await;
    Router::new()
        .route("/", get(async || "hello"))
        .route("/load", get(load))
        .route("/change", get(change))
        .route("/begin", get(begin))
        .layer(SessionLayer::new(backend, KeyRing::ephemeral()))
}

/// It can only be read.
fn least_routes() -> Router {
    let load = async |s: least::Session| Ok::<_, StatusCode>(s.load::<Shop>()?.theme);
    Router::new().route("/", get(async || "hello")).route("/load", get(load))
}

/// The same routes where nothing is kept.
fn no_session() -> Router {
    /// Extracts nothing.
    struct Nothing;

    impl<S: Sync> FromRequestParts<S> for Nothing {
        type Rejection = Infallible;

        async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
            Ok(Self)
        }
    }

    Router::new()
        .route("/", get(async || "hello"))
        .route("/load", get(async |_: Nothing| Ok::<_, StatusCode>(String::from("dark"))))
        .route("/change", get(async |_: Nothing| Ok::<_, StatusCode>(())))
}

/// A browser with a session.
struct Visitor {
    app: Router,
    cookie: String,
}

impl Visitor {
    fn new(runtime: &Runtime, app: Router) -> Self {
        let app = app.with_state(());
        let request = Request::get("/begin").body(Body::empty()).unwrap();
        let response = runtime.block_on(app.clone().oneshot(request)).unwrap();
        let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        let visitor = Self { app, cookie };
        let loaded = runtime.block_on(visitor.ask("/load"));
        assert_eq!(loaded, 4, "the theme");
        visitor
    }

    /// How long the content is.
    async fn ask(&self, path: &str) -> usize {
        let request = Request::get(path).header(header::COOKIE, &self.cookie).body(Body::empty()).unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        axum::body::to_bytes(response.into_body(), 1024).await.unwrap().len()
    }

    fn asks<'a>(&'a self, runtime: &'a Runtime, name: &'a str, path: &'a str, at_once: usize) -> Subject<'a> {
        rounds(runtime, name, at_once, move |_| self.ask(path))
    }
}
