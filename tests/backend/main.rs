//! Every backend keeps the same promises: each runs the conformance kit through the handle that the layers use.
#![cfg(feature = "test-util")]

#[cfg(feature = "memory")]
mod broken;
mod cas;
#[cfg(feature = "redis")]
mod cas_redis;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "memory")]
mod memory_bounds;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod redis_cluster;
#[cfg(feature = "redis")]
mod redis_cluster_faults;
#[cfg(feature = "redis")]
mod redis_connect;
#[cfg(feature = "redis")]
mod redis_faults;
#[cfg(feature = "redis")]
mod redis_from_replicas;
#[cfg(feature = "redis")]
mod redis_hits;
#[cfg(feature = "redis")]
mod redis_loads;
#[cfg(feature = "redis")]
mod redis_near;
#[cfg(feature = "redis")]
mod redis_permissions;
#[cfg(feature = "redis")]
mod redis_replicas;
#[cfg(feature = "redis")]
mod redis_sentinel;
#[cfg(feature = "redis")]
mod redis_sentinel_faults;
#[cfg(feature = "redis")]
mod redis_together;
#[cfg(feature = "redis")]
#[path = "../support/mod.rs"]
mod support;
