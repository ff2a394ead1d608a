//! The guide: from the first cached answer to a fleet on Redis.
//!
//! 1. [Getting started](getting_started): one layer, then an application.
//! 2. [The order of the layers](order), and why.
//! 3. [What is cached, and for how long](caching): the rules with a worked table.
//! 4. [Tags](tags): invalidating what shows something.
//! 5. [Herds](herd): coalescing, stale answers, warming.
//! 6. [Sessions, and the services behind](sessions).
//! 7. [Rate limits](limits).
//! 8. [Running on Redis](redis): sizing, eviction, Cluster, failover, security.
//! 9. [When something fails](failure).
//! 10. [Security](security): attacks, and what stays to be done.
//! 11. [Coming from another crate](migrating), and [how they compare](comparison).
//! 12. [How fast it is](speed), beside a floor or a peer.
//!
//! All examples are compiled and run. `cargo run --example storefront` shows the same in a browser.

#[doc = include_str!("getting_started.md")]
pub mod getting_started {}

#[doc = include_str!("order.md")]
pub mod order {}

#[doc = include_str!("caching.md")]
pub mod caching {}

#[doc = include_str!("tags.md")]
pub mod tags {}

#[doc = include_str!("herd.md")]
pub mod herd {}

#[doc = include_str!("sessions.md")]
pub mod sessions {}

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("redis.md")]
pub mod redis {}

#[doc = include_str!("failure.md")]
pub mod failure {}

#[doc = include_str!("migrating.md")]
pub mod migrating {}

#[doc = include_str!("comparison.md")]
pub mod comparison {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("speed.md")]
#[doc = concat!("\n", include_str!("../../benches/plots/hits-over-the-wire.svg"))]
#[doc = concat!("\n", include_str!("../../benches/plots/hit-by-entries.svg"))]
#[doc = concat!("\n", include_str!("../../benches/plots/hit-by-tags.svg"))]
#[doc = concat!("\n", include_str!("../../benches/plots/hit-by-variants.svg"))]
#[doc = concat!("\n", include_str!("../../benches/plots/memory-per-entry.svg"))]
#[doc = concat!("\n", include_str!("../../benches/plots/invalidation-by-entries.svg"))]
#[doc = concat!("\n", include_str!("../../benches/plots/one-server-or-three.svg"))]
pub mod speed {}
