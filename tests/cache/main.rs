//! The cache layers around a handler, in memory and on Redis.

mod app;
mod auto_traits;
mod basics;
mod bodies;
mod body_key;
#[cfg(feature = "compression")]
mod compression;
mod conditional;
mod deception;
mod encoded;
mod freshness;
mod grpc;
mod hostile;
mod invalidation;
mod keys;
mod not_modified;
mod outage;
mod placement;
mod privacy;
mod range;
mod refreshed;
mod refused;
mod request_directives;
mod review;
mod shifted;
mod stale_on_error;
mod status;
mod storing;
#[path = "../support/mod.rs"]
mod support;
mod tags;
mod targeted;
mod targets;
mod validation;
mod value;
mod vary;
mod warm;
mod world;
