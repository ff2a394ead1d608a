//! Rate limits.

mod client_ip;
mod engine;
mod fields;
mod forwarded;
mod future;
mod key;
mod layer;
mod outage;
mod policy;
mod quota;
mod reject;
mod service;

pub use client_ip::{ClientIp, PeerAddr, TrustError};
pub use fields::Headers;
pub use future::ResponseFuture;
pub use key::{Key, RoutePattern};
pub use layer::RateLimitLayer;
pub use policy::{OnError, Policy, ShadowDenied};
pub use quota::Quota;
pub use reject::{Reason, Rejection};
pub use service::RateLimit;
