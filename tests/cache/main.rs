//! The cache layers around a handler, in memory and on Redis.

mod app;
mod basics;
mod body_key;
mod conditional;
mod freshness;
mod invalidation;
mod keys;
mod privacy;
mod range;
mod request_directives;
mod shifted;
mod stale_on_error;
mod status;
mod storing;
#[path = "../support/mod.rs"]
mod support;
mod tags;
mod targeted;
mod validation;
mod vary;
mod world;
