//! What must not be lost: a cart, and sessions. A service behind the gateways keeps them in the same store.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, routing::post};
use http::{Request, StatusCode};
use tower::ServiceExt as _;
use tower_gatehouse::{
    Backend, Problem,
    backend::{MapChange, MapChanged, MapKey, MapOp, MapOwner, OpId, UserKey},
    session::{KeyRing, Session, SessionLayer, Source},
};

use crate::{counts::Counts, fleet::GATEWAYS, load::Shared, support::gateway::SESSION_KEY};

const CART: &str = "cart";

fn cart() -> MapKey {
    MapKey { owner: MapOwner::User(UserKey::of("customer")), name: CART }
}

/// Asks the store until it answers: a machine that is too busy for that is no fault.
async fn answered<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_mins(1), "{what} does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many are in it.
pub(crate) async fn in_the_cart(backend: &Backend) -> u64 {
    let map = answered("the cart", || async { backend.map(&cart()).await.ok() }).await;
    map.fields.get("n").map_or(0, |n| std::str::from_utf8(n).expect("text").parse().expect("a number"))
}

/// A customer who adds to a cart, and repeats each addition under its id until told that it was done.
pub(crate) async fn shop(backend: Backend, shared: Arc<Shared>) {
    let mut n = 0_u128;
    while !shared.is_over() {
        n += 1;
        let op = MapOp::Add { field: "n", by: 1, range: 0..=i64::MAX };
        let once = Some((OpId(n.to_be_bytes()), Duration::from_mins(1)));
        let change = MapChange { key: cart(), op, expected: None, once, ttl: Duration::from_hours(2) };
        let add =
            || async { matches!(backend.change_map(change.clone()).await, Ok(MapChanged::Added { .. })).then_some(()) };
        answered("the cart", add).await;
        Counts::add(&shared.counts.added, 1_u64);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The service that checks passwords: it has the keys of the gateways.
fn accounts(backend: &Backend) -> Router {
    async fn log_in(session: Session) -> Result<StatusCode, Problem> {
        session.login("visitor", |_| {}).await?;
        Ok(StatusCode::NO_CONTENT)
    }
    async fn log_out(session: Session) -> Result<StatusCode, Problem> {
        session.destroy().await?;
        Ok(StatusCode::NO_CONTENT)
    }
    let keys: KeyRing = SESSION_KEY.parse().expect("a key");
    let layer = SessionLayer::new(backend, keys).sources([Source::Bearer]).max_sessions_per_user(1000);
    Router::new().route("/login", post(log_in)).route("/logout", post(log_out)).layer(layer)
}

/// Logs somebody in for good.
pub(crate) async fn log_in(backend: &Backend) -> String {
    let accounts = accounts(backend);
    let log_in = || async {
        let request = Request::post("/login").body(Body::empty()).expect("a request");
        let Ok(answer) = accounts.clone().oneshot(request).await;
        Some(answer.headers().get("x-auth-token")?.to_str().expect("text").to_owned())
    };
    answered("the login", log_in).await
}

/// A visitor who logs in, is seen by every gateway, logs out, and is seen by none; again and again.
pub(crate) async fn visit(backend: Backend, shared: Arc<Shared>) {
    let accounts = accounts(&backend);
    let ask = async |path: &str, token: Option<&str>| {
        let mut request = Request::post(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let Ok(answer) = accounts.clone().oneshot(request.body(Body::empty()).expect("a request")).await;
        answer
    };
    while !shared.is_over() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let begun = shared.era();
        let answer = ask("/login", None).await;
        let Some(token) = answer.headers().get("x-auth-token").and_then(|token| token.to_str().ok()) else { continue };
        if !live_on(&shared, token, begun).await {
            continue;
        }
        // Gone is gone, whoever has ended it.
        while !shared.is_over() {
            let ending = shared.era();
            let status = ask("/logout", Some(token)).await.status();
            if status.is_success() || status == StatusCode::UNAUTHORIZED {
                stay_ended(&shared, token, ending).await;
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Shows the token of a live session around; false where it is gone.
async fn live_on(shared: &Shared, token: &str, begun: u64) -> bool {
    for gateway in 0..2 * GATEWAYS {
        match shared.show(gateway % GATEWAYS, token).await {
            Some(true) => Counts::add(&shared.counts.shown, 1_u64),
            Some(false) => {
                let counter = if shared.may_forget(begun) { &shared.counts.forgotten } else { &shared.counts.lost };
                Counts::add(counter, 1_u64);
                return false;
            }
            None => {}
        }
    }
    true
}

async fn stay_ended(shared: &Shared, token: &str, ended: u64) {
    for gateway in 0..GATEWAYS {
        if shared.show(gateway, token).await == Some(true) {
            let counter = if shared.may_undo(ended) { &shared.counts.forgotten } else { &shared.counts.revived };
            Counts::add(counter, 1_u64);
        }
    }
}
