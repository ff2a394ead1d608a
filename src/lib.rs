//! What an API gateway needs, as independent tower layers for axum, hyper and tower stacks: HTTP caching, request
//! coalescing, stale-while-revalidate, invalidation by tags, sessions, rate limits, aggregation; in memory in one
//! process, on Redis for a fleet.
//!
//! The paved road: a [`Backend`], an [`HttpCache`] on it that says what is cached and how, and its layers around a
//! router or any other service.
//!
//! ```
//! # #[cfg(feature = "memory")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use axum::{Router, body::Body, routing::get};
//! use http::Request;
//! use http_body_util::BodyExt;
//! use tower::ServiceExt;
//! use tower_gatehouse::{Backend, HttpCache, ResponseExt, Rule};
//!
//! let backend = Backend::memory(); // or, for a fleet: Backend::redis("redis://…").connect().await?
//! let cache = HttpCache::new(&backend)
//!     .rule("/products/{id}", Rule::ttl(Duration::from_secs(300)).tag("product:{id}"))?;
//! let app = Router::new().route("/products/{id}", get(async || "slow")).layer(cache.layers());
//!
//! let ask = || app.clone().oneshot(Request::get("http://shop.example/products/17").body(Body::empty()).unwrap());
//! ask().await?.into_body().collect().await?;
//! assert!(ask().await?.cache_status().unwrap().is_hit());
//! cache.invalidate().tag("product:17").await?;
//! assert!(!ask().await?.cache_status().unwrap().is_hit());
//! # Ok(()) }
//! # #[cfg(not(feature = "memory"))] fn main() {}
//! ```
//!
//! # The stack
//! The documented order, outermost first. Each layer stands alone, works in any order (a [`SwrLayer`] within a
//! [`CoalesceLayer`] serves nothing stale), and needs no other.
//!
//! ```text
//!         request
//!            │
//!    RateLimitLayer        by IP: before anything costs something
//!    SessionLayer          who is asking
//!    RateLimitLayer        by user
//!    TagInvalidationLayer  an answer that changes something invalidates what shows it
//!    SwrLayer              serves stale at once, revalidates in the background
//!    CacheLayer            RFC 9111
//!    CoalesceLayer         one request per key, in the whole fleet
//!            │
//!         service          a handler, a router, a proxy
//! ```
//!
//! [`cache`], [`swr`], [`coalesce`], [`tag_invalidation`] and [`body_key`] are the cache layers; [`session`],
//! [`rate_limit`] and [`aggregate`] share nothing with them but the [`Backend`]; [`backend`] has the contracts for a
//! store of one's own.
//!
//! The layers need a tokio runtime with time (`enable_time` or `enable_all`, as `#[tokio::main]` has it), and on Redis
//! with IO, too.
//!
//! What it defends against, and what it does not promise: [`guide::security`].
//!
//! # Where to read on
//! The [guide]: getting started, what is cached and for how long, herds, sessions, limits, running on Redis.
//! `cargo run --example storefront` shows all of it in a browser.
//!
//! # Features
//! | feature | default | what it brings |
//! |---|---|---|
//! | `memory` | yes | the embedded backend: `Backend::memory()` |
//! | `redis` | | the Redis backend: standalone, Sentinel and Cluster, with TLS |
//! | `axum` | | extractors, and cache keys that know the path before `nest` stripped it |
//! | `compression` | | large text compressed in the store: `HttpCache::compress` |
//! | `jwt` | | foreign tokens as JWTs, and forwarded identity as one |
//! | `metrics` | | counts and measures through the `metrics` facade: [`metrics`] has the names |
//! | `test-util` | | the conformance kit for a backend of one's own |
//!
//! Features only add; none changes what another does. One exception: with `axum`, keys and rules of a cache under
//! axum's `nest` go by the whole path, and without it by what `nest` leaves of it. Two have an effect on the whole
//! process: `jwt` chooses the cryptography of `jsonwebtoken` at the first token, unless the application has; `redis`
//! turns on `ring` in `rustls`, so an application that uses another provider must choose one itself
//! (`CryptoProvider::install_default`).
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod aggregate;
pub mod backend;
mod body;
pub mod body_key;
mod bounds;
pub mod cache;
mod caller;
mod clock;
pub mod coalesce;
mod digits;
mod exchange;
pub mod guide;
mod hashed;
mod http_cache;
mod identity;
mod key;
pub mod metrics;
#[allow(dead_code, reason = "a few checks are for tests and fuzz targets only")]
mod policy;
mod problem;
pub mod rate_limit;
mod ready;
mod refusal;
mod response_ext;
pub mod session;
mod span;
mod stack;
mod stored;
pub mod swr;
mod sync;
mod tag;
pub mod tag_invalidation;
mod unbroken;

pub use backend::Backend;
pub use body::CacheBody;
pub use body_key::BodyKeyLayer;
pub use cache::CacheLayer;
pub use clock::{TestClock, Timestamp};
pub use coalesce::CoalesceLayer;
pub use exchange::{CacheTags, InvalidateTags, Personal};
#[cfg(feature = "compression")]
pub use http_cache::Compression;
pub use http_cache::{
    CacheFuture, HttpCache, Invalidate, InvalidationError, InvalidationProgress, Rule, RuleError, RuleFuture,
    RuleService, Value, ValueError, warm,
};
pub use identity::Identity;
pub use key::Query;
pub use policy::{
    Profile,
    cache_status::{CacheStatus, Forward, ForwardError},
};
pub use problem::{Problem, ProblemBody};
pub use response_ext::ResponseExt;
pub use stack::CacheLayers;
pub use swr::SwrLayer;
pub use tag::{Tag, TagDigest, TagError};
pub use tag_invalidation::{PurgeToken, TagInvalidationLayer};

/// Any error, as bodies of responses have it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The README's code is compiled and run.
#[cfg(all(doctest, feature = "memory"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(fuzzing)]
#[doc(hidden)]
#[path = "fuzz.rs"]
pub mod __fuzz;
