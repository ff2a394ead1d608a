//! Sessions at the gateway.

mod answer;
mod config;
mod cookie;
mod core;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod forward;
mod future;
mod handle;
#[cfg(feature = "jwt")]
mod jwt;
mod keys;
mod layer;
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
        AudienceKeys, Authenticated, Claims, ClaimsError, ForwardSessionLayer, ForwardSessionService,
        VerifySessionLayer, VerifySessionService,
    },
    future::ResponseFuture,
    handle::{Login, Session, SessionInfo},
    keys::{KeyError, KeyRing},
    layer::SessionLayer,
    resolver::{ResolveError, Resolved, TokenResolver},
    service::SessionService,
    sessions::Sessions,
    shared_map::{MapContent, MapError, SharedData, SharedMap, merge},
    source::{BearerToken, Source},
};
pub use crate::backend::{Lifetime, RecordKey};
/// How a JWT is signed (RFC 7518, section 3.1).
#[cfg(feature = "jwt")]
pub use jsonwebtoken::Algorithm as JwtAlgorithm;
