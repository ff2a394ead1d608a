//! One request to the origin, stale while it refreshes, gone when it is purged: the cache layers as a herd meets them.
//! Several caches on one backend stand for several processes; what needs real ones starts the gateway.

#[path = "../cache/app.rs"]
#[allow(dead_code)]
mod app;
mod coalescing;
mod endings;
mod examples;
mod fleet;
mod handing_over;
mod orders;
mod private;
mod processes;
mod revalidation;
mod streaming;
#[path = "../support/mod.rs"]
mod support;
mod tags;
mod validated;
