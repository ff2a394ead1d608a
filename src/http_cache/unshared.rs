//! The end of a flight whose answer is for nobody who follows.

use std::time::Duration;

use super::{
    HttpCache,
    collapse::{FlightKey, Landing},
    flight::Leader,
    lease::HeldLease,
};
use crate::backend::{LeaseKey, Release};

/// So that those who wait in other processes go on together, and not one after the other.
const MOMENT: Duration = Duration::from_millis(20);

impl HttpCache {
    /// The origin has failed.
    pub(super) async fn release_failed(&self, lease: Option<HeldLease>) {
        if let Some(lease) = lease {
            // Those who wait in other processes need a moment to hear of it.
            let hold = self.config.coalesce.hold_errors.max(Duration::from_millis(200));
            lease.release(Release::Failed(hold)).await;
        }
    }

    /// The answer is not for sharing: here and in the other processes everybody asks, for a while if that `lasts`.
    pub(super) async fn everybody(
        &self,
        leader: Leader<FlightKey, Landing>,
        key: LeaseKey,
        lease: Option<HeldLease>,
        lasts: bool,
    ) {
        let duration = if lasts { self.config.coalesce.uncacheable } else { MOMENT };
        if lasts {
            self.state.uncacheable.remember(key, (), duration);
        }
        leader.close(Landing::Alone);
        if let Some(lease) = lease {
            lease.release(Release::Uncacheable(duration)).await;
        }
    }
}
