//! Sessions, HTTP caching, request coalescing, stale-while-revalidate, tag invalidation and rate limits for API
//! gateways built on tower, hyper and axum; in memory or on Redis.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod aggregate;
pub mod backend;
mod body;
pub mod body_key;
pub mod cache;
mod clock;
pub mod coalesce;
mod exchange;
mod http_cache;
mod identity;
mod key;
#[allow(dead_code, reason = "a few checks are for tests and fuzz targets only")]
mod policy;
mod problem;
pub mod rate_limit;
mod response_ext;
pub mod session;
mod stack;
mod stored;
pub mod swr;
mod tag;
pub mod tag_invalidation;

pub use backend::Backend;
pub use body::CacheBody;
pub use body_key::BodyKeyLayer;
pub use cache::CacheLayer;
pub use clock::{TestClock, Timestamp};
pub use coalesce::CoalesceLayer;
pub use exchange::{CacheTags, InvalidateTags, Personal};
pub use http_cache::{
    CacheFuture, HttpCache, Invalidate, InvalidationError, Rule, RuleError, RuleFuture, RuleService, Value, ValueError,
};
pub use identity::Identity;
pub use key::Query;
pub use policy::{
    Profile,
    cache_status::{CacheStatus, Forward},
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
