//! Carts that lose nothing.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Query},
    routing::{get, post},
};
use futures_util::future::join_all;
use http::StatusCode;
use serde::Deserialize;
use tower_gatehouse::{
    Backend, Problem, TestClock,
    backend::{Lifetime, MapKey, MapOwner},
    session::{KeyRing, MapError, Session, SessionLayer, SharedData, SharedMap, merge},
};

use crate::app::{App, backends, routes};

struct Cart;

impl SharedData for Cart {
    const NAME: &'static str = "cart";
    type Value = u32;
}

struct Wishes;

impl SharedData for Wishes {
    const NAME: &'static str = "wishes";
    type Value = String;
}

#[derive(Deserialize)]
struct Checkout {
    version: u64,
    id: String,
}

fn app(backend: &Backend) -> App {
    let routes = routes()
        .route(
            "/cart/{sku}/{n}",
            post(async |cart: SharedMap<Cart>, Path((sku, n)): Path<(String, i64)>| {
                Ok::<_, Problem>(Json(cart.incr(&sku, n, 0..=99).await?))
            }),
        )
        .route("/cart", get(async |cart: SharedMap<Cart>| Ok::<_, Problem>(Json(cart.get_all().await?.fields))))
        .route(
            "/checkout",
            post(async |cart: SharedMap<Cart>, Query(q): Query<Checkout>| {
                Ok::<_, Problem>(Json(cart.once(q.id).take(q.version).await?.fields))
            }),
        )
        .route(
            "/enter/{user}",
            post(async |s: Session, cart: SharedMap<Cart>, Path(user): Path<String>| {
                s.login(user.clone(), |_| {}).await?;
                cart.merge_into(&user, |_, users, visitors| (users + visitors).min(99)).await?;
                Ok::<_, Problem>(())
            }),
        );
    App(Router::new().merge(routes).layer(SessionLayer::new(backend, KeyRing::ephemeral())))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_services_put_into_a_cart_at_once_is_all_there() {
    for backend in backends().await {
        let (orders, shop) = (SharedMap::<Cart>::open(&backend, "ann"), SharedMap::<Cart>::open(&backend, "ann"));
        let adds = (0..50).map(|n| {
            let cart = if n % 2 == 0 { orders.clone() } else { shop.clone() };
            tokio::spawn(async move { cart.incr(if n % 3 == 0 { "mug" } else { "cap" }, 1, 0..=99).await.unwrap() })
        });
        join_all(adds).await;
        let all = orders.get_all().await.unwrap().fields;
        assert_eq!((all["mug"], all["cap"]), (17, 33), "{}", backend.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_four_checkouts_at_once_one_wins_also_when_it_asks_again() {
    for backend in backends().await {
        let cart = SharedMap::<Cart>::open(&backend, "ann");
        for round in 0..100 {
            cart.incr("mug", 1, 0..=99).await.unwrap();
            let version = cart.get_all().await.unwrap().version;
            let takers = (0..4).map(|n| {
                let taker = cart.once(format!("checkout {round} {n}"));
                tokio::spawn(async move {
                    let first = taker.take(version).await;
                    // The reply was lost: once more.
                    (first, taker.take(version).await)
                })
            });
            let taken: Vec<_> = join_all(takers).await.into_iter().map(Result::unwrap).collect();
            let winners: Vec<_> = taken.iter().filter(|(first, _)| first.is_ok()).collect();
            assert_eq!(winners.len(), 1, "{}: {taken:?}", backend.name());
            let (first, again) = winners[0];
            assert_eq!(first.as_ref().unwrap(), again.as_ref().unwrap());
            assert_eq!(first.as_ref().unwrap().fields["mug"], 1);
            let losers = taken.iter().filter(|(first, again)| {
                matches!((first, again), (Err(MapError::Conflict { .. }), Err(MapError::Conflict { .. })))
            });
            assert_eq!(losers.count(), 3);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_version_is_a_conflict_always() {
    for backend in backends().await {
        let client = app(&backend).client();
        client.ok("POST", "/login/ann").await;
        let cart = SharedMap::<Cart>::open(&backend, "ann");
        let mut seen = vec![cart.get_all().await.unwrap().version];
        for n in 0..20 {
            client.ok("POST", "/cart/mug/1").await;
            seen.push(cart.get_all().await.unwrap().version);
            if n % 5 == 4 {
                cart.take(None).await.unwrap();
            }
        }
        client.ok("POST", "/cart/cap/1").await;
        for (n, version) in seen.iter().enumerate() {
            let response = client.post(&format!("/checkout?version={version}&id={n}")).await;
            assert_eq!(response.status(), StatusCode::CONFLICT, "{} {n}", backend.name());
        }
        let version = cart.get_all().await.unwrap().version;
        let order = client.ok("POST", &format!("/checkout?version={version}&id=now")).await;
        assert_eq!(order, r#"{"cap":1}"#);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_s_cart_becomes_the_user_s_once() {
    for backend in backends().await {
        let app = app(&backend);
        SharedMap::<Cart>::open(&backend, "ann").incr("mug", 90, 0..=99).await.unwrap();
        let client = app.client();
        assert_eq!(client.ok("GET", "/cart").await, "{}");
        assert_eq!(client.token(), None, "looking at a cart makes no session");
        client.ok("POST", "/cart/mug/20").await;
        client.ok("POST", "/cart/cap/2").await;
        assert_eq!(client.ok("GET", "/cart").await, r#"{"cap":2,"mug":20}"#);
        // A new token does not lose it.
        client.ok("POST", "/cycle").await;
        assert_eq!(client.ok("GET", "/cart").await, r#"{"cap":2,"mug":20}"#);
        for _ in 0..3 {
            client.ok("POST", "/enter/ann").await;
            assert_eq!(client.ok("GET", "/cart").await, r#"{"cap":2,"mug":99}"#, "{}", backend.name());
        }
        assert_eq!(app.client().ok("GET", "/cart").await, "{}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_was_interrupted_anywhere_is_completed_by_the_next_and_counts_once() {
    for backend in backends().await {
        let app = app(&backend);
        let mut merged = 0;
        for stop_after in 0..40 {
            let user = format!("user{stop_after}");
            let client = app.client();
            client.ok("POST", "/cart/mug/3").await;
            client.ok("POST", "/cart/cap/1").await;
            client.ok("POST", &format!("/login/{user}")).await;
            // The process dies somewhere in between.
            let entering = client.clone();
            let path = format!("/enter/{user}");
            let once = path.clone();
            let died = tokio::spawn(async move { entering.post(&once).await.status() });
            tokio::time::sleep(std::time::Duration::from_micros(50 * stop_after)).await;
            died.abort();
            let _ = died.await;
            // Two at once, and one more.
            let twin = client.twin();
            let (a, b) = tokio::join!(client.post(&path), twin.post(&path));
            if ![a.status(), b.status()].iter().all(StatusCode::is_success) {
                // The token may have been cycled by whom we stopped; the user logs in again.
                assert!([a.status(), b.status()].iter().all(|s| s.is_success() || *s == StatusCode::UNAUTHORIZED));
            }
            let cart = SharedMap::<Cart>::open(&backend, &user).get_all().await.unwrap();
            if cart.fields.is_empty() {
                // Logged in under a new session before the visitor's cart was merged: the old handle is gone with it.
                continue;
            }
            assert_eq!((cart.fields["mug"], cart.fields["cap"]), (3, 1), "{} {stop_after}", backend.name());
            merged += 1;
        }
        assert!(merged > 0, "{}: none was merged", backend.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_data_do_not_know_of_each_other_and_hold_what_their_type_says() {
    for backend in backends().await {
        let (cart, wishes) = (SharedMap::<Cart>::open(&backend, "ann"), SharedMap::<Wishes>::open(&backend, "ann"));
        cart.incr("mug", 1, ..).await.unwrap();
        wishes.set("mug", &"a blue one".into()).await.unwrap();
        wishes.set("gone", &"x".into()).await.unwrap();
        wishes.remove("gone").await.unwrap();
        wishes.update("mug", |wish| wish.map(|wish| wish + "!")).await.unwrap();
        wishes.update("cap", |wish| Some(wish.unwrap_or_else(|| "any".into()))).await.unwrap();
        assert_eq!(cart.get("mug").await.unwrap(), Some(1));
        let all = wishes.get_all().await.unwrap().fields;
        assert_eq!(
            all.into_iter().collect::<Vec<_>>(),
            [("cap".into(), "any".into()), ("mug".into(), "a blue one!".into())]
        );
        assert!(matches!(cart.incr("mug", 99, 0..=99).await, Err(MapError::OutOfRange { value: 1 })));
        assert_eq!(cart.incr("mug", -1, 0..=99).await.unwrap(), 0);
        assert_eq!(cart.get("mug").await.unwrap(), None);
        let adding = (0..30).map(|_| wishes.update("n", |n| Some(n.unwrap_or_default() + "x")));
        for done in join_all(adding).await {
            done.unwrap();
        }
        assert_eq!(wishes.get("n").await.unwrap().unwrap().len(), 30);
        assert_eq!([merge::keep("", 1, 2), merge::replace("", 1, 2), merge::sum("", 1, 2)], [1, 2, 3]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_type_does_not_hold_is_neither_stored_nor_taken() {
    struct Notes;

    impl SharedData for Notes {
        const NAME: &'static str = Cart::NAME;
        type Value = String;
    }

    for backend in backends().await {
        let (cart, notes) = (SharedMap::<Cart>::open(&backend, "bob"), SharedMap::<Notes>::open(&backend, "bob"));
        assert!(matches!(cart.incr("mug", -1, ..=99).await, Err(MapError::OutOfRange { value: 0 })));
        assert_eq!(cart.get_all().await.unwrap().version, 0, "{}: nothing is stored", backend.name());
        assert!(cart.take(None).await.unwrap().fields.is_empty());
        notes.set("mug", &"blue".into()).await.unwrap();
        let version = notes.get_all().await.unwrap().version;
        for expected in [None, Some(version)] {
            assert!(matches!(cart.take(expected).await, Err(MapError::Data)));
        }
        assert_eq!(notes.take(None).await.unwrap().fields["mug"], "blue", "{}: it is still there", backend.name());
    }
}

#[tokio::test]
async fn the_map_of_a_visitor_ends_with_the_longest_session_that_may_lead_to_it() {
    let clock = TestClock::new();
    let backend = Backend::memory_with(&clock);
    let owner = Arc::new(Mutex::new(None));
    let keep = owner.clone();
    let begin = post(async move |s: Session, cart: SharedMap<Cart>| {
        cart.incr("mug", 1, 0..=99).await?;
        s.save().await.map_err(MapError::from)?;
        *keep.lock().unwrap() = s.info().await.map_err(MapError::from)?.map(|info| info.handle);
        Ok::<_, Problem>(())
    });
    let keys = KeyRing::ephemeral;
    let hours = Duration::from_hours;
    let lifetime = |absolute| Lifetime { idle: hours(1), absolute: hours(absolute) };
    let short = SessionLayer::new(&backend, keys());
    let long = SessionLayer::new(&backend, keys()).anonymous(lifetime(24 * 20));
    let longer = SessionLayer::new(&backend, keys()).anonymous(lifetime(24 * 90));
    for (layer, days) in [(short, 0.5), (long, 20.0), (longer, 30.0)] {
        let app = App(routes().route("/begin", begin.clone()).layer(layer));
        app.client().ok("POST", "/begin").await;
        let owner = owner.lock().unwrap().take().unwrap();
        let key = MapKey { owner: MapOwner::Session(owner), name: Cart::NAME };
        let day = hours(24);
        clock.advance(day.mul_f64(days).saturating_sub(Duration::from_mins(1)));
        assert_eq!(backend.map(&key).await.unwrap().fields.len(), 1, "{days}");
        clock.advance(Duration::from_mins(2));
        assert_eq!(backend.map(&key).await.unwrap().fields.len(), 0, "{days}");
    }
    // A user comes back.
    let cart = SharedMap::<Cart>::open(&backend, "ann");
    cart.incr("mug", 1, 0..=99).await.unwrap();
    clock.advance(hours(24 * 29));
    assert_eq!(cart.get("mug").await.unwrap(), Some(1));
}
