//! Servers and clients for the integration tests. A test binary includes this folder with `mod support;`
//! (from `tests/name.rs`) or with `#[path = "../support/mod.rs"] mod support;` (from `tests/name/main.rs`).
//!
//! Everything here listens on free loopback ports, keeps its files in a temporary directory, and is stopped by its
//! own process id: on drop, when a test panics, and, by a watchdog, when the test binary itself is killed.
//! Everything is bounded in time, and blocks but for `http`; none of it uses the Redis client of the crate, so that it
//! sees what a stranger would see.

// Each test binary uses a part of this folder only.
#![allow(dead_code, unreachable_pub, unused_imports)]

pub mod altered;
pub mod clock;
pub mod cluster;
pub mod example;
pub mod gateway;
pub mod http;
pub mod origin;
pub mod ports;
pub mod process;
pub mod redis;
pub mod resp;
pub mod sentinel;
pub mod tls;
pub mod wait;

pub use cluster::RedisCluster;
pub use gateway::Gateway;
pub use origin::{Answer, Gate, Origin};
pub use redis::RedisServer;
pub use resp::{Connection, Reply};
pub use sentinel::RedisSentinel;
pub use tls::RedisTls;
pub use wait::{until, wait_until};
