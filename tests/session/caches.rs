//! A session's answer is for who asked, in whatever order the layers stand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use futures_util::future::join_all;
use http::header::CACHE_CONTROL;
use tower_gatehouse::{
    Backend, CacheLayer, CoalesceLayer, HttpCache, SwrLayer, TagInvalidationLayer,
    session::{KeyRing, Session, SessionError, SessionLayer},
};

use crate::app::{App, redis, routes};

/// Every order of five things.
fn orders() -> Vec<Vec<usize>> {
    let mut orders = vec![vec![]];
    for n in 0..5 {
        orders = orders
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                (0..=order.len()).map(move |at| {
                    let mut longer = order.clone();
                    longer.insert(at, n);
                    longer
                })
            })
            .collect();
    }
    orders
}

struct Fixture {
    app: App,
    plain: Arc<AtomicUsize>,
}

fn fixture(backend: &Backend, order: &[usize]) -> Fixture {
    let cache = HttpCache::new(backend).default_ttl(Duration::from_mins(1));
    let session = SessionLayer::new(backend, KeyRing::new([7; 32]).unwrap());
    let plain = Arc::new(AtomicUsize::new(0));
    let count = plain.clone();
    // What its author forgot to call private, and slow enough that others come meanwhile.
    let mine = async |s: Session| {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok::<_, SessionError>(([(CACHE_CONTROL, "max-age=60")], s.user().await?.unwrap_or_default()))
    };
    let enter = async |s: Session| {
        s.login("eve", |_| {}).await?;
        Ok::<_, SessionError>([(CACHE_CONTROL, "public, max-age=60")])
    };
    let more = Router::new().route("/mine", get(mine)).route("/enter", get(enter)).route(
        "/plain",
        get(async move || {
            count.fetch_add(1, Ordering::SeqCst);
            ([(CACHE_CONTROL, "max-age=60")], "for all")
        }),
    );
    let router = order.iter().fold(routes().merge(more), |router, layer| match layer {
        0 => router.layer(session.clone()),
        1 => router.layer(TagInvalidationLayer::new(&cache)),
        2 => router.layer(SwrLayer::new(&cache)),
        3 => router.layer(CacheLayer::new(&cache)),
        _ => router.layer(CoalesceLayer::new(&cache)),
    });
    Fixture { app: App(router), plain }
}

async fn check(backend: &Backend, order: &[usize]) {
    let Fixture { app, plain } = fixture(backend, order);
    let (ann, bob, nobody) = (app.client(), app.client(), app.client());
    ann.ok("POST", "/login/ann").await;
    bob.ok("POST", "/login/bob").await;
    for _ in 0..2 {
        for (client, name) in [(&nobody, ""), (&ann, "ann"), (&bob, "bob"), (&ann, "ann"), (&nobody, "")] {
            assert_eq!(client.ok("GET", "/mine").await, name, "{order:?}");
        }
    }
    // At once, so that a flight would be shared.
    let clients = [(&ann, "ann"), (&bob, "bob"), (&nobody, ""), (&bob, "bob"), (&ann, "ann")];
    let at_once = join_all(clients.map(|(client, _)| client.ok("GET", "/mine"))).await;
    assert_eq!(at_once, clients.map(|(_, name)| name), "{order:?}");
    // A login's answer is nobody else's.
    let (one, two) = (app.client(), app.client());
    for client in [&one, &two] {
        let response = client.get("/enter").await;
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store", "{order:?}");
    }
    assert!(one.token().is_some() && two.token().is_some() && one.token() != two.token(), "{order:?}");
    // What does not depend on the session is still shared.
    for client in [&nobody, &nobody, &app.client()] {
        assert_eq!(client.ok("GET", "/plain").await, "for all");
    }
    assert_eq!(plain.load(Ordering::SeqCst), 1, "{order:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_all_orders_nobody_gets_another_s_answer() {
    for order in orders() {
        check(&Backend::memory(), &order).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_neither() {
    for order in orders().iter().step_by(12) {
        check(&redis().await, order).await;
    }
}
