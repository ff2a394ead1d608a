//! Sessions that the layer begins for whoever comes without one.

use std::{
    collections::HashSet,
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, extract::Path, middleware::map_response, routing::get};
use futures_util::future::join_all;
use http::{StatusCode, header};
use tower_gatehouse::{
    Backend, CacheLayer, CoalesceLayer, HttpCache, Problem, SwrLayer,
    session::{ForwardSessionLayer, KeyRing, SessionLayer, SharedData, SharedMap},
};

use crate::{
    app::{App, Client, namespace, patient, redis, routes},
    support::RedisServer,
};

struct Cart;

impl SharedData for Cart {
    const NAME: &'static str = "cart";
    type Value = u32;
}

fn layer(backend: &Backend) -> SessionLayer {
    SessionLayer::new(backend, KeyRing::new([7; 32]).unwrap()).begin_at_once()
}

/// A page of a shop, and how often it was made and with how many cookies it went through the caches.
#[derive(Clone, Default)]
struct Page {
    made: Arc<AtomicUsize>,
    cookies: Arc<AtomicUsize>,
}

impl Page {
    fn router(&self) -> Router {
        let made = self.made.clone();
        let page = async move |Path(wait): Path<u64>| {
            made.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            ([(header::CACHE_CONTROL, "public, max-age=60")], "for all")
        };
        routes().route("/page/{wait}", get(page))
    }

    fn behind_caches(&self, router: Router, cache: &HttpCache) -> Router {
        let cookies = self.cookies.clone();
        let watch = map_response(move |response: axum::response::Response| {
            cookies.fetch_add(usize::from(response.headers().contains_key(header::SET_COOKIE)), Ordering::SeqCst);
            ready(response)
        });
        router.layer(CoalesceLayer::new(cache)).layer(CacheLayer::new(cache)).layer(SwrLayer::new(cache)).layer(watch)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caches_within_share_their_answers_with_those_who_come_for_the_first_time() {
    for backend in [Backend::memory(), redis().await] {
        let (page, cache) = (Page::default(), HttpCache::new(&backend));
        let app = App(page.behind_caches(page.router(), &cache).layer(layer(&backend)));
        let clients: Vec<_> = (0..100).map(|_| app.client()).collect();
        // One after the other, and at once.
        for (n, client) in clients.iter().enumerate() {
            let answer = client.get("/page/0").await;
            let status = answer.headers()["cache-status"].to_str().unwrap();
            assert_eq!(status.contains("hit"), n > 0, "{n}: {status}");
            assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        }
        let others: Vec<_> = (0..20).map(|_| app.client()).collect();
        join_all(others.iter().map(|client| client.ok("GET", "/page/50"))).await;
        assert_eq!(page.made.load(Ordering::SeqCst), 2, "each page once");
        assert_eq!(page.cookies.load(Ordering::SeqCst), 0, "of nobody's cookie the caches know");
        let tokens: HashSet<_> = clients.iter().chain(&others).map(|client| client.token().unwrap()).collect();
        assert_eq!(tokens.len(), 120, "each has a session of its own");
        let again = clients[0].get("/page/0").await;
        assert_eq!(again.headers()[header::CACHE_CONTROL], "public, max-age=60");
        assert!(!again.headers().contains_key(header::SET_COOKIE));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_around_keep_no_answer_that_brings_a_cookie() {
    let others = HttpCache::new(&Backend::memory());
    for within in ["none", "the same", "another"] {
        let backend = Backend::memory();
        let (page, cache) = (Page::default(), HttpCache::new(&backend));
        let router = match within {
            "none" => page.router(),
            "the same" => page.router().layer(CacheLayer::new(&cache)),
            _ => page.router().layer(CacheLayer::new(&others)),
        };
        let app = App(page.behind_caches(router.layer(layer(&backend)), &cache));
        let clients: Vec<_> = (0..20).map(|_| app.client()).collect();
        let (first, later) = clients.split_at(10);
        join_all(first.iter().map(|client| client.ok("GET", "/page/5"))).await;
        join_all(later.iter().map(|client| client.ok("GET", "/page/5"))).await;
        let got: Vec<_> = clients.iter().filter_map(Client::token).collect();
        assert_eq!(got.iter().collect::<HashSet<_>>().len(), got.len(), "{within}: nobody has another's");
        // What one within has stored is found by those around, too, who then ask no session layer.
        assert!(got.len() == 20 || (within == "the same" && !got.is_empty()), "{within}: {}", got.len());
    }
}

/// What a service is told of may be in its answer.
#[tokio::test]
async fn the_answer_of_a_service_that_knows_the_session_is_for_one_client() {
    let (backend, keys) = (Backend::memory(), KeyRing::ephemeral());
    let service = get(async |request: axum::extract::Request| {
        ([(header::CACHE_CONTROL, "max-age=60")], request.headers()["x-session"].to_str().unwrap().to_owned())
    });
    let router = Router::new().route("/told", service).layer(ForwardSessionLayer::new("orders", &keys));
    let sessions = SessionLayer::new(&backend, keys).begin_at_once();
    let app = App(router.layer(CacheLayer::new(HttpCache::new(&backend))).layer(sessions));
    let (one, two) = (app.client().ok("GET", "/told").await, app.client().ok("GET", "/told").await);
    assert_ne!(one, two);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_cannot_begin_the_answer_passes_unless_something_hangs_on_it() {
    for frozen in [false, true] {
        let mut server = RedisServer::start();
        let builder = if frozen {
            Backend::redis(server.url()).operation_timeout(Duration::from_secs(1))
        } else {
            patient(server.url())
        };
        let backend = builder.namespace(namespace()).connect().await.unwrap();
        let cart = async |cart: SharedMap<Cart>| Ok::<_, Problem>(cart.incr("mug", 1, ..).await?.to_string());
        // It says what it likes.
        let careless = async |cart: SharedMap<Cart>| drop(cart.incr("mug", 1, ..).await);
        let more = Router::new().route("/cart", get(cart)).route("/careless", get(careless));
        let app = App(routes().merge(more).layer(layer(&backend).required_under("/me")));
        if frozen {
            server.pause();
        } else {
            server.kill();
        }
        for (method, path, status) in [
            ("GET", "/", StatusCode::OK),
            ("GET", "/read", StatusCode::OK),
            ("GET", "/me", StatusCode::OK),
            ("POST", "/visit", StatusCode::INTERNAL_SERVER_ERROR),
            ("GET", "/cart", StatusCode::SERVICE_UNAVAILABLE),
            ("GET", "/careless", StatusCode::INTERNAL_SERVER_ERROR),
            ("POST", "/login/ann", StatusCode::SERVICE_UNAVAILABLE),
        ] {
            let answer = app.client().send(method, path).await;
            assert_eq!(answer.status(), status, "{frozen} {path}: {}", answer.body());
            assert!(!answer.headers().contains_key(header::SET_COOKIE), "{frozen} {path}");
        }
        if frozen {
            server.resume();
        } else {
            server.restart();
        }
        let (client, deadline) = (app.client(), Instant::now() + Duration::from_secs(20));
        while client.token().is_none() {
            assert!(Instant::now() < deadline, "it does not recover");
            client.ok("GET", "/").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
