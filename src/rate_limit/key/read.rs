//! What of a request keys are made of.

use std::net::IpAddr;

use http::header;

use super::RoutePattern;
use crate::{
    Identity,
    rate_limit::{ClientIp, head::Head},
};

/// The address of a client, or of its network.
pub(super) fn address(client: &ClientIp, head: Head<'_>) -> Result<IpAddr, Unwired> {
    Ok(client.mask(client.of(head).ok_or(Unwired::NO_PEER)?))
}

pub(super) fn identity(head: Head<'_>) -> Result<Identity, Unwired> {
    Identity::of(head.extensions).map(Identity::unmarked).ok_or(Unwired::NO_IDENTITY)
}

/// The scheme is not case-sensitive (RFC 9110 §11.1); blanks around the token do not belong to it.
pub(super) fn bearer(head: Head<'_>) -> Option<&[u8]> {
    let (scheme, token) = head.headers.get(header::AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii()).filter(|token| !token.is_empty())
}

/// The pattern of the route; `None` where a router has found none.
pub(super) fn route(head: Head<'_>) -> Result<Option<&str>, Unwired> {
    if let Some(RoutePattern(pattern)) = head.extensions.get() {
        return Ok(Some(pattern));
    }
    #[cfg(feature = "axum")]
    {
        use axum::extract::{MatchedPath, OriginalUri};
        if let Some(path) = head.extensions.get::<MatchedPath>() {
            return Ok(Some(path.as_str()));
        }
        // What every router of axum leaves; a layer around all of them sees a request that has been to none.
        if head.extensions.get::<OriginalUri>().is_some() {
            return Ok(None);
        }
    }
    Err(Unwired::NO_ROUTE)
}

/// Something that a key needs is not wired up; the message names what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rate_limit) struct Unwired(pub(in crate::rate_limit) &'static str);

impl Unwired {
    const NO_PEER: Self = Self(
        "The rate limit by IP address finds no peer address: serve with \
         `into_make_service_with_connect_info::<SocketAddr>()` (axum), or leave a `rate_limit::PeerAddr` in the \
         extensions of each request.",
    );
    const NO_IDENTITY: Self = Self(
        "The rate limit by user or session finds no session layer: put a `SessionLayer`, in a service behind a gateway a \
         `VerifySessionLayer`, or a layer that leaves an `Identity` in the extensions of each request, outside of the \
         `RateLimitLayer`.",
    );
    const NO_ROUTE: Self = Self(
        "The rate limit by route finds no route: put it within the router (axum's `Router::layer`, with the feature \
         `axum`), or leave a `rate_limit::RoutePattern` in the extensions of each request.",
    );
}
