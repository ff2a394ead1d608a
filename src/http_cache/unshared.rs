//! The end of a flight whose answer is for nobody who follows.

use std::time::Duration;

use super::{
    HttpCache,
    collapse::{FlightKey, Landing},
    flight::Leader,
    lease::HeldLease,
};
use crate::backend::{LeaseKey, Release};

/// What is remembered of answers that were not for sharing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unshared {
    /// The last one was about its request alone.
    Once,
    /// Everybody asks.
    Lasting,
}

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

    /// Whether everybody asks.
    pub(super) fn is_uncacheable(&self, key: &LeaseKey) -> bool {
        self.state.unshared.recall(key).is_some_and(|(unshared, _)| unshared == Unshared::Lasting)
    }

    /// The answer is not for sharing: here and in the other processes everybody asks, for a while if that `lasts`. Else it
    /// is about this request alone, and those who have waited go on together; two in a row are about everybody.
    pub(super) async fn everybody(
        &self,
        leader: Leader<FlightKey, Landing>,
        key: LeaseKey,
        lease: Option<HeldLease>,
        lasts: bool,
    ) {
        let uncacheable = self.config.coalesce.uncacheable;
        let lasts = lasts || self.state.unshared.recall(&key).is_some();
        let (unshared, landing, duration) = if lasts {
            (Unshared::Lasting, Landing::Alone, uncacheable)
        } else {
            (Unshared::Once, Landing::Refused, MOMENT)
        };
        self.state.unshared.remember(key, unshared, uncacheable);
        leader.close(landing);
        if let Some(lease) = lease {
            lease.release(Release::Uncacheable(duration)).await;
        }
    }
}
