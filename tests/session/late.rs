//! A Redis that answers when nobody waits any more: it was frozen, its replies are late, or its clock was set.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Json, Router, extract::Path, routing::post};
use http::{Response, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
};
use tower_gatehouse::{
    Backend, Problem,
    session::{KeyRing, Session, SessionError, SessionLayer, SharedData, SharedMap},
};

use crate::{
    app::{App, Client, Shop, namespace, patient, routes},
    support::{RedisServer, clock::Clock},
};

/// Longer than by default: on a busy machine Redis may need more than 100 ms while all is well.
const TIMEOUT: Duration = Duration::from_secs(1);

struct Cart;

impl SharedData for Cart {
    const NAME: &'static str = "cart";
    type Value = u32;
}

async fn add(cart: SharedMap<Cart>, Path(sku): Path<String>) -> Result<Json<u32>, Problem> {
    Ok(Json(cart.incr(&sku, 1, 0..=99).await?))
}

/// A Redis that is frozen when a handler has got half-way.
struct Frozen {
    server: RedisServer,
    app: App,
    half_way: Arc<Notify>,
    goes_on: Arc<Notify>,
}

impl Frozen {
    async fn new(max_sessions: u32) -> Self {
        let server = RedisServer::start();
        let backend = Backend::redis(server.url()).namespace(namespace()).operation_timeout(TIMEOUT);
        let backend = backend.connect().await.unwrap();
        let (half_way, goes_on): (Arc<Notify>, Arc<Notify>) = Default::default();
        let (reached, gate) = (half_way.clone(), goes_on.clone());
        let go = async move |s: Session, Path(what): Path<String>| {
            // A password is hashed meanwhile.
            let login = s.begin_login("ann").await?;
            match &*what {
                "load" => {}
                "save" => s.insert("k", 1).await?,
                _ => drop(s.user().await?),
            }
            reached.notify_one();
            gate.notified().await;
            match &*what {
                "load" => s.user().await.map(drop),
                "save" => s.save().await,
                "cycle" => s.cycle().await,
                _ => login.finish(|_| {}).await,
            }
        };
        let layer = SessionLayer::new(&backend, KeyRing::new([7; 32]).unwrap()).max_sessions_per_user(max_sessions);
        let more = Router::new().route("/go/{what}", post(go)).route("/cart/{sku}", post(add));
        Self { server, app: App(routes().merge(more).layer(layer)), half_way, goes_on }
    }

    /// The answer to a request for which Redis is frozen half-way, and how long it was waited for.
    async fn go(&self, client: &Client, what: &str) -> (Response<String>, Duration) {
        let (client, path) = (client.clone(), format!("/go/{what}"));
        let going = tokio::spawn(async move { client.post(&path).await });
        self.half_way.notified().await;
        self.server.pause();
        let begun = Instant::now();
        self.goes_on.notify_one();
        let answer = going.await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{what}: {}", answer.body());
        assert!(!answer.headers().contains_key("set-cookie"), "{what}");
        (answer, begun.elapsed())
    }

    /// Redis goes on, and with what it was asked for meanwhile.
    async fn resume(&self) {
        self.server.resume();
        let (deadline, probe) = (Instant::now() + Duration::from_secs(20), self.app.client());
        while probe.post("/visit").await.status() != StatusCode::OK {
            assert!(Instant::now() < deadline, "it does not recover");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_that_was_refused_does_not_log_out_later() {
    for what in ["cycle", "login"] {
        let frozen = Frozen::new(100).await;
        let client = frozen.app.client();
        client.ok("POST", "/login/ann").await;
        client.ok("POST", "/visit").await;
        client.ok("POST", "/cycle").await;
        frozen.go(&client, what).await;
        frozen.resume().await;
        assert_eq!(client.ok("GET", "/me").await, "ann", "{what}");
        assert_eq!(client.json::<Shop>("/read").await.visits, 1, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_was_refused_takes_nothing_from_the_visitor_later_and_ends_no_other_session() {
    let frozen = Frozen::new(1).await;
    let (phone, visitor) = (frozen.app.client(), frozen.app.client());
    phone.ok("POST", "/login/ann").await;
    visitor.ok("POST", "/visit").await;
    visitor.ok("POST", "/cart/mug").await;
    frozen.go(&visitor, "login").await;
    frozen.resume().await;
    assert_eq!(visitor.json::<Shop>("/read").await.visits, 1);
    assert_eq!(visitor.ok("POST", "/cart/mug").await, "2", "its cart is where it was");
    assert_eq!(phone.ok("GET", "/me").await, "ann");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_for_a_frozen_redis_once() {
    // Where a token is on its way, what came of it is asked for, too.
    for (what, times) in [("load", 1), ("save", 1), ("login", 2)] {
        let frozen = Frozen::new(100).await;
        let client = frozen.app.client();
        client.ok("POST", "/visit").await;
        let (answer, waited) = frozen.go(&client, what).await;
        assert!(waited < TIMEOUT * times + TIMEOUT * 4 / 5, "{what}: {waited:?}");
        assert!(answer.body().contains("the session store is not available"), "{what}: the handler's own answer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_begin_and_move_at_once_after_the_clock_of_redis_was_set() {
    let clock = Clock::ahead(0);
    let server = RedisServer::builder().clock(&clock).start();
    let backend = patient(server.url()).namespace(namespace()).buckets(64).connect().await.unwrap();
    let app = App::new(&backend);
    for ahead in [0, 60, 120, -3600, 180] {
        clock.set_ahead(ahead);
        let client = app.client();
        client.ok("POST", "/visit").await;
        client.ok("POST", "/login/ann").await;
        client.ok("POST", "/cycle").await;
        assert_eq!(client.json::<Shop>("/read").await.visits, 1, "{ahead}");
    }
}

/// Passes bytes on. Once the armed words have gone to the server so often, nothing of what it says passes for a while.
struct Wire {
    port: u16,
    words: Vec<u8>,
    armed: AtomicUsize,
    stalled: AtomicBool,
    stall: Duration,
}

impl Wire {
    async fn start(port: u16, words: String, stall: Duration) -> (String, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let (armed, stalled) = (AtomicUsize::new(0), AtomicBool::new(false));
        let wire = Arc::new(Self { port, words: words.into(), armed, stalled, stall });
        let here = wire.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", here.port)).await.unwrap();
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(here.clone().pass(from_client, to_server, true));
                tokio::spawn(here.clone().pass(from_server, to_client, false));
            }
        });
        (url, wire)
    }

    async fn pass(self: Arc<Self>, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, to_server: bool) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            if to_server {
                let times = buffer[..n].windows(self.words.len()).filter(|words| *words == self.words).count();
                for _ in 0..times {
                    let count = |left: usize| left.checked_sub(1);
                    if self.armed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count) == Ok(1) {
                        self.stalled.store(true, Ordering::SeqCst);
                        let here = self.clone();
                        tokio::spawn(async move {
                            tokio::time::sleep(here.stall).await;
                            here.stalled.store(false, Ordering::SeqCst);
                        });
                    }
                }
            }
            while !to_server && self.stalled.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            if to.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
    }
}

/// As with a slow disk under `appendfsync always`, or a packet that was lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_whose_last_reply_is_late_leaves_one_of_both_sessions() {
    let server = RedisServer::start();
    let text = include_str!("../../src/backend/redis/lua/session_move.lua");
    let sha = server.command(&["SCRIPT", "LOAD", text]).text();
    let (url, wire) = Wire::start(server.port(), sha, TIMEOUT * 3 / 2).await;
    // As in a Cluster, hardly any user is at home where the visitor is.
    let backend = Backend::redis(url).namespace(namespace()).buckets(64).operation_timeout(TIMEOUT);
    let backend = backend.connect().await.unwrap();
    let more = Router::new().route(
        "/enter/{user}",
        post(async |s: Session, Path(user): Path<String>| {
            let entered = s.login(user, |_| {}).await;
            // Somebody who goes on regardless.
            assert!(matches!(entered, Ok(()) | Err(SessionError::Backend(_))), "{entered:?}");
        }),
    );
    let app = App(routes().merge(more).layer(SessionLayer::new(&backend, KeyRing::new([7; 32]).unwrap())));
    let mut stalled = 0;
    for (n, path) in ["/login", "/enter", "/login"].into_iter().enumerate() {
        let client = app.client();
        client.ok("POST", "/visit").await;
        let old = client.twin();
        // The one before the last reads the session.
        wire.armed.store(2, Ordering::SeqCst);
        client.post(&format!("{path}/ann{n}")).await;
        stalled += usize::from(wire.armed.swap(0, Ordering::SeqCst) == 0);
        tokio::time::sleep(TIMEOUT).await;
        let visits = [old, client].map(async |client: Client| client.json::<Shop>("/read").await.visits);
        let [by_old, by_new] = visits;
        let (by_old, by_new) = (by_old.await, by_new.await);
        assert_eq!((by_old, by_new), (0, 1), "{path}: nobody has lost the session");
    }
    assert!(stalled > 0, "the test is wrong");
}
