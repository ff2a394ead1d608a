//! Sessions, on the embedded backend and on Redis.
#![cfg(all(feature = "memory", feature = "redis", feature = "axum"))]

#[path = "../support/mod.rs"]
mod support;

mod app;
mod begun;
mod caches;
mod commit;
mod cookies;
mod dropped;
mod examples;
mod fixation;
mod forward;
#[cfg(feature = "jwt")]
mod jwt;
mod late;
mod lifetime;
mod limits;
mod maps;
mod outage;
mod privacy;
mod resolver;
mod review;
mod round_trips;
mod secrets;
mod six_layers;
mod strangers;
