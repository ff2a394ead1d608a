//! What operators see: the names, the page that documents them, the dashboard, spans; and what is counted where the
//! gateway has no flag for it.

mod dashboard;
#[cfg(all(feature = "metrics", feature = "memory", feature = "redis"))]
mod near_cache;
mod page;
#[cfg(all(feature = "metrics", feature = "memory"))]
mod reasons;
#[cfg(all(feature = "metrics", feature = "memory"))]
mod recorder;
#[cfg(all(feature = "metrics", feature = "memory", feature = "axum"))]
mod sessions;
mod tables;

#[cfg(all(feature = "metrics", feature = "memory", feature = "redis"))]
#[path = "../support/mod.rs"]
mod support;
