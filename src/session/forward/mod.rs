//! Telling the services behind the gateway who is asking.
//!
//! At each upstream stands a [`ForwardSessionLayer`] that inserts `x-session`; a service in Rust has a
//! [`VerifySessionLayer`] in front, and the extractors [`Claims`] and [`Authenticated`]. What the gateway says holds for
//! one service, one method and path, and half a minute.
//!
//! The field is `v1.kid.payload.mac`: a key id, the payload as JSON in base64url, and 16 bytes of keyed BLAKE3 over
//! all before. The payload has `iat`, `exp`, `aud`, `sid` (the session's handle, no credential), `sub` (the user), `v`
//! (the session's version), `rid` (the request's id), `m` and `h` (method, and a hash of the path), and `d`: the fields
//! of the session that [`ForwardSessionLayer::fields`] allows. Beyond 4 KiB the service loads these from the store.
//!
//! Services that know nothing of this crate get a JWT (`ForwardSessionLayer::hs256_jwt`, feature `jwt`), or plain JSON
//! ([`ForwardSessionLayer::plain_json`]).

mod audience;
mod body;
mod claims;
mod codec;
mod format;
mod layer;
mod service;
mod verify;

#[cfg(feature = "jwt")]
pub(super) use self::codec::Payload;
#[cfg(fuzzing)]
pub(super) use self::codec::fuzz;
/// In a request that a [`ForwardSessionLayer`] has passed on: the path that is signed. A service in the same process
/// cannot tell it from what routers leave, who note what they strip of which path.
#[derive(Clone)]
struct ForwardedPath(Box<str>);

pub use self::{
    audience::AudienceKeys,
    body::ForwardedBody,
    claims::{Authenticated, Claims, ClaimsError},
    layer::ForwardSessionLayer,
    service::ForwardSessionService,
    verify::{VerifyFuture, VerifySessionLayer, VerifySessionService},
};
