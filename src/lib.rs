//! Sessions, HTTP caching, request coalescing, stale-while-revalidate, tag invalidation and rate limits for API
//! gateways built on tower, hyper and axum; in memory or on Redis.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod aggregate;
pub mod backend;
mod clock;
mod exchange;
mod identity;
#[allow(dead_code, unused_imports, reason = "the layers that judge by it come next")]
mod policy;
mod problem;
pub mod rate_limit;
pub mod session;
#[allow(dead_code, unused_imports, reason = "the layers that store it come next")]
mod stored;
mod tag;

pub use backend::Backend;
pub use clock::{TestClock, Timestamp};
pub use exchange::Personal;
pub use identity::Identity;
pub use policy::{
    Profile,
    cache_status::{CacheStatus, Forward},
};
pub use problem::{Problem, ProblemBody};
pub use tag::{Tag, TagDigest, TagError};

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
