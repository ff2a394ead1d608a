//! Sessions: at the gateway, told to the services behind, with data that they share.
//!
//! ```
//! # #[cfg(all(feature = "axum", feature = "memory"))]
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use axum::{Json, Router, routing::{get, post}};
//! use serde::{Deserialize, Serialize};
//! use tower_gatehouse::{Backend, Problem, session::{KeyRing, Session, SessionLayer}};
//!
//! #[derive(Default, Serialize, Deserialize)]
//! struct Shop { theme: String }
//!
//! async fn dark(s: Session<Shop>) -> Result<(), Problem> {
//!     s.update(|shop| shop.theme = "dark".into()).await?;
//!     Ok(())
//! }
//!
//! async fn login(s: Session<Shop>) -> Result<(), Problem> {
//!     Ok(s.login("ann", |_| {}).await?)
//! }
//!
//! async fn theme(s: Session<Shop>) -> Result<Json<String>, Problem> {
//!     Ok(Json(s.load().await?.theme))
//! }
//!
//! let app = Router::new()
//!     .route("/dark", post(dark)).route("/login", post(login)).route("/theme", get(theme))
//!     .layer(SessionLayer::new(&Backend::memory(), KeyRing::ephemeral()));
//! # use tower::ServiceExt as _;
//! # let send = |request: http::Request<axum::body::Body>| app.clone().oneshot(request);
//! let response = send(http::Request::post("/dark").body("".into())?).await?;
//! let cookie = response.headers()["set-cookie"].to_str()?;
//! assert!(cookie.starts_with("__Host-sid=") && cookie.contains("HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age="));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # What it costs
//! A visitor without a token costs nothing, and so does a forged token: its MAC is checked before the store is asked.
//! A session that is read costs one round trip, one that is changed two, however much of it. Once a tenth of its idle
//! time is over, a session that is read is touched, off the response's path.
//!
//! # What it keeps
//! The token, `0x01 | kid | random[22] | mac[8]` in base64url, is known to the client alone. The store sees a keyed hash
//! of its id: the handle, which is no credential and the only id in logs and listings. A record is one JSON value for
//! each top-level field, so that requests that change different fields do not undo each other, and has an end that no
//! use can move beyond its deadline. Nothing is stored before a handler changes something.
//!
//! # Which mistakes cannot be made
//! - *Fixation*: an id that the client chose is never adopted, and a login gives a new one; the old is dead at once.
//! - *Resurrection*: a slow request that was under way during a logout cannot bring the session back, unless it is one that
//!   gives the session another token (below).
//! - *Lost changes*: only what changed is written; [`Session::update_strict`] compares, too.
//! - *Sharing*: what depends on a session is [marked](crate::Personal) and `private` (with `Vary` where a browser may
//!   keep it), so that no cache of this crate hands it to somebody else; what brings a credential is `no-store`. Content
//!   that is written while it streams is not stored either where it asks for the session; other caches know the head only.
//! - *Spoofing*: whatever looks like `x-session` is removed from every request, and what services get is signed for one
//!   service, one request and half a minute.
//!
//! # What stays to be done
//! - Sessions need a store that does not evict (`maxmemory-policy noeviction`); give the layer a [`Backend`] of its own
//!   if the cache's may.
//! - Unsafe requests of other sites: `SameSite=Lax` keeps the cookie from most; put `tower_http::csrf::CsrfLayer`
//!   around the session layer for the rest (the example `sessions` does).
//! - After the backend is lost with a valid token, the answer is 503, never 401 and never that of an anonymous visitor:
//!   handlers that ignore a [`SessionError`] decide otherwise.
//! - Two requests that a browser sends at once around a login: the one with the old token may come back last, and then
//!   expires the new cookie. Let pages wait for the login.
//! - A logout with a token that another request has just replaced ([`Session::cycle`], a login) and whose response the
//!   client does not have yet ends nothing: the session has the new token by then.
//!   [`Sessions::revoke_all`] ends every session of a user, whatever its token.
//!
//! [`Backend`]: crate::Backend

#[cfg(fuzzing)]
pub(crate) mod fuzz;

mod answer;
mod base64url;
mod config;
mod cookie;
mod core;
mod count;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod fields;
mod forward;
mod future;
mod handle;
mod json;
#[cfg(feature = "jwt")]
mod jwt;
mod keys;
mod layer;
mod moving;
mod open;
mod resolver;
mod service;
mod sessions;
mod shared_map;
mod source;
mod strip;
mod token;

#[cfg(feature = "jwt")]
pub use self::jwt::{JwksSource, JwtResolver};
pub use self::{
    cookie::{CookieError, SameSite, SessionCookie, SessionCookieBuilder},
    error::SessionError,
    forward::{
        AudienceKeys, Authenticated, Claims, ClaimsError, ForwardSessionLayer, ForwardSessionService, ForwardedBody,
        VerifyFuture, VerifySessionLayer, VerifySessionService,
    },
    future::ResponseFuture,
    handle::{Login, SessionInfo},
    keys::{KeyError, KeyRing},
    layer::SessionLayer,
    resolver::{ResolveError, Resolved, TokenResolver},
    service::SessionService,
    sessions::Sessions,
    shared_map::{MapContent, MapError, SharedData, SharedMap, merge},
    source::{BearerToken, Source},
};
pub use crate::{
    backend::{Lifetime, RecordKey},
    caller::Session,
};
/// How a JWT is signed (RFC 7518, section 3.1).
#[cfg(feature = "jwt")]
pub use jsonwebtoken::Algorithm as JwtAlgorithm;
