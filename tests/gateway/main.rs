//! The gateway example as a process of its own, between raw clients and raw origins: what passes unchanged, what is
//! set or removed, and what a client gets when an origin fails.

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod cli;
mod ends;
mod faults;
mod fields;
mod forwarded;
mod gateway;
#[allow(clippy::duplicate_mod)]
mod layered;
mod layers;
#[cfg(all(feature = "memory", feature = "redis"))]
mod limits;
#[cfg(feature = "metrics")]
mod metrics;
mod origin;
#[cfg(feature = "metrics")]
mod scrape;
#[cfg(all(feature = "memory", feature = "redis"))]
mod sessions;
mod smuggling;
mod switching;
mod unchanged;
mod wire;

/// Of the tests in `switching` and `unchanged` where they stand here.
const LAYERS: &str = "none";
