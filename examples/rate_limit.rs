//! An API whose limits are exact, however many processes serve it.
//!
//! ```text
//! cargo run --example rate_limit --features axum                      # in memory
//! cargo run --example rate_limit --features axum,redis -- redis://127.0.0.1:6379
//! ```
//!
//! It serves on 127.0.0.1:8080 and prints what to try. With a Redis, start it twice (`PORT=8081`) and see both count
//! together.

use std::{error::Error, net::SocketAddr};

use axum::{
    Form, Router,
    extract::State,
    http::{StatusCode, request::Parts},
    routing::{get, post},
};
use serde::Deserialize;
use tower_gatehouse::{
    Backend, Problem,
    rate_limit::{ConcurrencyLimitLayer, Key, Limiter, OnError, Policy, Quota, RateLimitLayer},
};

const TO_TRY: &str = "  curl -i http://ADDR/                          RateLimit: \"burst\";r=4;t=1, \"ip\";r=599;t=6
  for i in 1 2 3 4 5 6; do curl -s -o /dev/null -w '%{http_code} ' http://ADDR/; done
                                                after five at once: 429, one more every second
  curl -i -H 'x-api-key: gold' http://ADDR/api  the quota of a paying customer: 1000 a minute
  curl -i http://ADDR/api                       everybody else's, by address: 3 a minute
  for i in 1 2 3 4; do curl -s -o /dev/null -w '%{http_code} ' -d 'user=me&password=wrong' http://ADDR/login; done
                                                only failures count, by account: 401 401 401 429; with another
                                                user too, but no more than ten a minute from one address
";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let backend = match std::env::args().nth(1) {
        None => Backend::memory(),
        #[cfg(feature = "redis")]
        Some(url) => Backend::redis(url).namespace("rate-limit-example").connect().await?,
        #[cfg(not(feature = "redis"))]
        Some(_) => return Err("for a Redis, build with --features axum,redis".into()),
    };
    let port = std::env::var("PORT").map_or(Ok(8080), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}; try:\n{}", TO_TRY.replace("ADDR", &address.to_string()));
    // `Key::peer_ip` needs to know who is connected.
    axum::serve(listener, app(&backend).into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

fn app(backend: &Backend) -> Router {
    // Two policies at once; if one denies, neither counts.
    let by_address = RateLimitLayer::with_policies(
        backend,
        [
            Policy::new("burst", Key::peer_ip(), Quota::per_second(1).burst(5)),
            Policy::new("ip", Key::peer_ip(), Quota::per_hour(600)),
        ],
    );
    // The quota depends on who asks: a customer counts by key, everybody else by address, whatever key he invents.
    let is_gold = |request: &Parts| request.headers.get("x-api-key").is_some_and(|key| key == "gold");
    let key = Key::from_fn(move |request| is_gold(request).then_some("gold")).or(Key::peer_ip());
    let by_key = Policy::new("api", key, Quota::per_minute(3))
        .quota_by(move |request| is_gold(request).then(|| Quota::per_minute(1000)));
    // Failed logins only; and while the backend is out of reach, none at all.
    let logins = Policy::new("login", Key::peer_ip(), Quota::per_minute(10))
        .only(|response| response.status == StatusCode::UNAUTHORIZED)
        .on_error(OnError::Deny);
    // Whoever guesses has many addresses; which account it is about stands in the form.
    let by_account = Limiter::new(backend, "account", Quota::per_hour(3)).on_error(OnError::Deny);
    let login = post(login).with_state(by_account).layer(RateLimitLayer::with_policies(backend, [logins]));
    Router::new()
        .route("/", get(async || "hello\n").layer(by_address))
        .route("/api", get(async || "an answer\n").layer(RateLimitLayer::with_policies(backend, [by_key])))
        .route("/login", login)
        .layer(ConcurrencyLimitLayer::new("in progress", Key::global(), 1000))
}

#[derive(Deserialize)]
struct Login {
    user: String,
    password: String,
}

async fn login(State(by_account): State<Limiter>, Form(login): Form<Login>) -> Result<StatusCode, Problem> {
    let attempt = by_account.take(login.user.to_lowercase(), 1).await?;
    if login.password != "right" {
        return Ok(StatusCode::UNAUTHORIZED);
    }
    attempt.give_back().await;
    Ok(StatusCode::NO_CONTENT)
}
