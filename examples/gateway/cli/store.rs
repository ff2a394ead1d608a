//! Where answers are kept.

use super::value::{Flag, Usage};

/// The flags about the store. URLs may have passwords in them, so this has no `Debug`.
#[derive(Default)]
pub(crate) struct StoreArgs {
    /// None: in memory.
    pub(crate) redis: Option<String>,
    pub(crate) namespace: Option<String>,
}

impl StoreArgs {
    pub(super) const FLAGS: [&str; 2] = ["redis", "namespace"];

    pub(super) fn set(&mut self, flag: &mut Flag<'_>) -> Result<(), Usage> {
        match flag.name.as_str() {
            "redis" if cfg!(feature = "redis") => self.redis = Some(flag.text()?),
            "redis" => {
                return Err(
                    flag.refuse("this build has no Redis: cargo run --features redis --example gateway -- --redis URL")
                );
            }
            _ => self.namespace = Some(flag.text()?),
        }
        Ok(())
    }
}
