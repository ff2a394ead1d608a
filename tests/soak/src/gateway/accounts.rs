//! Logins, logouts, and a cart.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tower_gatehouse::{
    Problem,
    session::{Session, SharedData, SharedMap},
};

use crate::broken::Broken;

/// What a session holds.
#[derive(Default, Deserialize, Serialize)]
struct Profile {
    theme: u64,
    slow: u64,
}

struct Cart;

impl SharedData for Cart {
    const NAME: &'static str = "cart";
    type Value = i64;
}

const FIELD: &str = "mugs";

pub(super) fn router(broken: Broken) -> Router {
    Router::new()
        .route("/theme", post(theme))
        .route("/login/{user}", post(login))
        .route("/me", get(me))
        .route("/slow", post(slow))
        .route("/logout", post(logout))
        .route("/everywhere", post(everywhere))
        .route("/cart", get(look))
        .route("/cart/{operation}", post(add))
        .with_state(broken)
}

async fn theme(session: Session<Profile>) -> Result<StatusCode, Problem> {
    session.update(|profile| profile.theme += 1).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn login(session: Session<Profile>, Path(user): Path<String>) -> Result<StatusCode, Problem> {
    session.login(user, |_| {}).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who is asking: the user's name, or `null`.
async fn me(session: Session) -> Result<Json<Option<String>>, Problem> {
    Ok(Json(session.user().await?))
}

/// Reads, takes its time, and writes: a logout may come in between.
async fn slow(session: Session<Profile>) -> Result<StatusCode, Problem> {
    session.load().await?;
    tokio::time::sleep(Duration::from_millis(60)).await;
    session.update(|profile| profile.slow += 1).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn logout(State(broken): State<Broken>, session: Session) -> Result<StatusCode, Problem> {
    if broken != Broken::Logout {
        session.destroy().await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn everywhere(session: Session) -> Result<StatusCode, Problem> {
    session.revoke_all().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// One more; the same operation twice counts once. 409 for those who are not logged in.
async fn add(
    State(broken): State<Broken>,
    session: Session,
    cart: SharedMap<Cart>,
    Path(operation): Path<String>,
) -> Result<Json<i64>, Problem> {
    logged_in(&session).await?;
    if broken == Broken::Cart {
        // What everybody writes first: reads, and writes what it has made of it.
        let now = cart.get(FIELD).await?.unwrap_or(0) + 1;
        cart.set(FIELD, &now).await?;
        return Ok(Json(now));
    }
    Ok(Json(cart.once(operation).incr(FIELD, 1, 0..).await?))
}

async fn look(session: Session, cart: SharedMap<Cart>) -> Result<Json<i64>, Problem> {
    logged_in(&session).await?;
    Ok(Json(cart.get(FIELD).await?.unwrap_or(0)))
}

async fn logged_in(session: &Session) -> Result<(), Problem> {
    match session.user().await? {
        Some(_) => Ok(()),
        None => Err(Problem::new(StatusCode::CONFLICT, "log in first")),
    }
}
