//! Rate limits that are exact for all processes that share a backend.
//!
//! [`RateLimitLayer`] takes a name, who is limited ([`Key`]), and to what ([`Quota`]):
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_gatehouse::{
//!     Backend,
//!     rate_limit::{Key, Quota, RateLimitLayer},
//! };
//!
//! # #[cfg(feature = "memory")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let backend = Backend::memory();
//! let mut service = ServiceBuilder::new()
//!     .layer(RateLimitLayer::new(&backend, "all", Key::global(), Quota::per_minute(2)))
//!     .service(service_fn(async |_: Request<()>| Ok::<_, std::io::Error>(Response::new(String::new()))));
//!
//! let mut ask = async || service.ready().await?.call(Request::new(())).await;
//! assert_eq!(ask().await?.headers()["ratelimit"], r#""all";r=1;t=30"#);
//! assert_eq!(ask().await?.status(), StatusCode::OK);
//! let refused = ask().await?;
//! assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
//! assert_eq!(refused.headers()["retry-after"], "30");
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "memory"))]
//! # fn main() {}
//! ```
//!
//! # What is promised
//! - **Exact.** However many processes ask at the same moment, no more is admitted than the quota says; [`Quota`]
//!   has the bound for each kind. A call to the backend is sent once. A backend that forgets (a restart, an eviction)
//!   admits anew what it had counted.
//! - **All or nothing.** Of several policies ([`RateLimitLayer::with_policies`]), none counts a request that one of them
//!   denies.
//! - **Cheap under attack.** What was denied costs no round trip until it may pass (for 5 s at most, for 65,536 keys);
//!   only a layer by several keys, or with tiers, that lie on different nodes asks each time: the key that has denied, and
//!   the others if it does not deny again, so that a client with nothing left does not use up what is everybody's.
//! - **Honest.** Who waits for as long as `Retry-After` says is not denied again, unless others use the same key. Of
//!   several keys, it is that of those that are known to deny: another one may then deny for longer.
//! - **Never in the way.** While the backend is out of reach, each policy does what its [`OnError`] says.
//!
//! # Bounds
//! On the embedded backend, 262,144 keys are counted; what has refilled gives way first, then what was used least, so
//! that a flood of new keys does not push out a heavy one. On Redis every counter expires when it has refilled. With
//! `maxmemory`, `volatile-lru` or `volatile-lfu` is the policy for caches and limits together, and what was used least
//! goes first; on a Redis for limits alone, `volatile-ttl` lets go first what has nearly refilled. A key whose counter
//! was evicted begins anew. [Running on Redis](crate::guide::redis#eviction) has the rest.
//!
//! # Where no layer can tell
//! [`Limiter`] is asked by code: logins by the account that a form names, or what is known only within a handler.
//!
//! # Many requests at once
//! [`ConcurrencyLimitLayer`] limits how many are in progress in this process.

mod client_ip;
mod concurrency;
mod config;
mod count;
mod engine;
mod fields;
mod forwarded;
mod future;
mod head;
mod hooks;
mod key;
mod layer;
mod limiter;
mod outage;
mod policy;
mod quota;
mod reject;
mod service;
mod settle;

pub use client_ip::{ClientIp, PeerAddr, TrustError};
pub use concurrency::{ConcurrencyFuture, ConcurrencyLimit, ConcurrencyLimitLayer, PermitBody};
pub use fields::Headers;
pub use future::ResponseFuture;
pub use key::{Key, RoutePattern};
pub use layer::RateLimitLayer;
pub use limiter::{Grant, Limiter};
pub use policy::{OnError, Policy, ShadowDenied};
pub use quota::Quota;
pub use reject::{Reason, Rejection};
pub use service::RateLimit;
