//! Sessions: a profile that is changed, a login, a logout, and a logout everywhere.
//!
//! ```text
//! cargo run --features axum --example sessions                            in memory
//! cargo run --features axum,redis --example sessions -- --redis redis://127.0.0.1:6379
//! ```

use std::error::Error;

use axum::{
    Json, Router,
    http::StatusCode,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tower_gatehouse::{
    Backend, Problem,
    session::{KeyRing, Session, SessionCookie, SessionLayer, Source},
};
use tower_http::csrf::CsrfLayer;

/// What the application keeps in a session. Every field is stored on its own.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Profile {
    theme: String,
    visits: u32,
}

#[derive(Deserialize)]
struct Credentials {
    user: String,
    password: String,
}

#[derive(Deserialize)]
struct Theme {
    theme: String,
}

async fn login(session: Session<Profile>, Json(sent): Json<Credentials>) -> Result<StatusCode, Problem> {
    // Begun before the password is checked: if the user revokes everything meanwhile, this fails.
    let login = session.begin_login(sent.user).await?;
    if sent.password != "secret" {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "the password is wrong (it is: secret)"));
    }
    login.finish(|_| {}).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn profile(session: Session<Profile>) -> Result<Json<serde_json::Value>, Problem> {
    session.update(|profile| profile.visits += 1).await?;
    let Profile { theme, visits } = session.load().await?;
    let user = session.user().await?;
    Ok(Json(serde_json::json!({ "user": user, "theme": theme, "visits": visits })))
}

async fn theme(session: Session<Profile>, Json(sent): Json<Theme>) -> Result<StatusCode, Problem> {
    session.update(|profile| profile.theme = sent.theme).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn logout(session: Session) -> Result<StatusCode, Problem> {
    session.destroy().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn everywhere(session: Session) -> Result<String, Problem> {
    Ok(format!("{} sessions ended\n", session.revoke_all().await?))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (backend, address) = arguments().await?;
    let keys = match std::env::var("SESSION_KEY") {
        Ok(keys) => keys.parse()?,
        // Sessions end with the process. `openssl rand -hex 32` makes a key that lasts.
        Err(_) => KeyRing::ephemeral(),
    };
    // Browsers keep `Secure` cookies of plain HTTP to themselves; on a real host leave this line out.
    let cookie = SessionCookie::builder().insecure_for_localhost().build()?;
    let app = Router::new()
        .route("/login", post(login))
        .route("/profile", get(profile))
        .route("/theme", post(theme))
        .route("/logout", post(logout))
        .route("/everywhere", post(everywhere))
        .layer(SessionLayer::new(&backend, keys).cookie(cookie).sources([Source::Bearer, Source::Cookie]))
        // Browsers say where a request comes from; what another site sends unasked is refused.
        .layer(CsrfLayer::new());
    let listener = tokio::net::TcpListener::bind(address).await?;
    let base = format!("http://{}", listener.local_addr()?);
    println!(
        r#"sessions in {} on {base}; in another terminal:

  curl {base}/profile -c jar -b jar                                  an anonymous session begins: visits 1, then 2, …
  curl {base}/theme -c jar -b jar --json '{{"theme":"dark"}}'
  curl {base}/login -c jar -b jar --json '{{"user":"ann","password":"secret"}}' -i    a new token; what was done is kept
  curl {base}/profile -c jar -b jar                                  user ann
  curl {base}/logout -c jar -b jar -X POST
  curl {base}/everywhere -c jar -b jar -X POST                       ends the user's sessions on all devices
"#,
        backend.name()
    );
    axum::serve(listener, app).await?;
    Ok(())
}

/// `--redis URL` and `--listen ADDR`.
async fn arguments() -> Result<(Backend, String), Box<dyn Error>> {
    let (mut backend, mut address) = (Backend::memory(), "127.0.0.1:8080".to_owned());
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        match (flag.as_str(), arguments.next()) {
            ("--redis", Some(url)) => backend = redis(url).await?,
            ("--listen", Some(listen)) => address = listen,
            _ => return Err("flags: --redis URL, --listen ADDR".into()),
        }
    }
    Ok((backend, address))
}

#[cfg(feature = "redis")]
async fn redis(url: String) -> Result<Backend, Box<dyn Error>> {
    Ok(Backend::redis(url).namespace("sessions-example").connect().await?)
}

#[cfg(not(feature = "redis"))]
async fn redis(_: String) -> Result<Backend, Box<dyn Error>> {
    Err("--redis needs --features redis".into())
}
