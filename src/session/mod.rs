//! Sessions at the gateway.
#![allow(dead_code)]

mod answer;
mod config;
mod cookie;
mod core;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod future;
mod handle;
mod keys;
mod layer;
mod open;
mod resolver;
mod service;
mod sessions;
mod source;
mod strip;
mod token;

pub use self::{
    cookie::{CookieError, SameSite, SessionCookie, SessionCookieBuilder},
    error::SessionError,
    future::ResponseFuture,
    handle::{Login, Session, SessionInfo},
    keys::{KeyError, KeyRing},
    layer::SessionLayer,
    resolver::{ResolveError, Resolved, TokenResolver},
    service::SessionService,
    sessions::Sessions,
    source::{BearerToken, Source},
};
pub use crate::backend::{Lifetime, RecordKey};
