//! The servers and processes of the integration tests.
#![allow(dead_code, unused_imports, unreachable_pub, clippy::pedantic)]

#[path = "../../support/clock.rs"]
pub mod clock;
#[path = "../../support/cluster.rs"]
pub mod cluster;
#[path = "../../support/ports.rs"]
pub mod ports;
#[path = "../../support/process.rs"]
pub mod process;
#[path = "../../support/redis.rs"]
pub mod redis;
#[path = "../../support/resp.rs"]
pub mod resp;
#[path = "../../support/sentinel.rs"]
pub mod sentinel;
#[path = "../../support/wait.rs"]
pub mod wait;

pub use cluster::RedisCluster;
pub use redis::RedisServer;
pub use sentinel::RedisSentinel;
pub use wait::wait_until;
