//! Limits: counters under the lock of their set of keys.

use super::MemoryBackend;
use crate::backend::{BackendError, Limits, Settle, Take, Taken};

impl Limits for MemoryBackend {
    async fn take(&self, takes: &[Take<'_>]) -> Result<Taken, BackendError> {
        Ok(self.0.meters.take(takes))
    }

    fn take_now(&self, takes: &[Take<'_>]) -> Option<Taken> {
        Some(self.0.meters.take(takes))
    }

    fn takes_plain_keys(&self) -> bool {
        true
    }

    async fn settle(&self, settle: Settle<'_>) -> Result<(), BackendError> {
        self.0.meters.settle(settle);
        Ok(())
    }
}
