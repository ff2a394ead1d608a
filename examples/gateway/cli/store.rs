//! Where answers are kept.

use std::time::Duration;

use super::value::{Flag, Usage};

/// The flags about the store. URLs may have passwords in them, so this has no `Debug`.
#[derive(Default)]
pub(crate) struct StoreArgs {
    /// None: in memory.
    pub(crate) redis: Option<String>,
    pub(crate) namespace: Option<String>,
    /// For one operation.
    pub(crate) timeout: Option<Duration>,
    /// How many replicas an invalidation waits for.
    pub(crate) replicas: Option<u32>,
}

impl StoreArgs {
    pub(super) const FLAGS: [&str; 4] = ["redis", "namespace", "redis-timeout", "wait-for-replicas"];

    pub(super) fn set(&mut self, flag: &mut Flag<'_>) -> Result<(), Usage> {
        match flag.name.as_str() {
            "redis" if cfg!(feature = "redis") => self.redis = Some(flag.text()?),
            "redis" => {
                return Err(
                    flag.refuse("this build has no Redis: cargo run --features redis --example gateway -- --redis URL")
                );
            }
            "redis-timeout" => self.timeout = Some(flag.timeout()?),
            "wait-for-replicas" => self.replicas = Some(flag.value("a number of replicas")?),
            _ => self.namespace = Some(flag.text()?),
        }
        Ok(())
    }
}
