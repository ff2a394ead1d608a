//! What is cached and how: the one value that all cache layers share.

mod answer;
mod begin;
mod collapse;
mod compression;
mod config;
mod count;
mod fill;
mod finish;
mod flight;
#[cfg(test)]
mod flight_tests;
mod follow;
mod future;
mod head;
mod invalidate;
mod judge;
mod lease;
mod memo;
mod pass;
mod personal;
mod progress;
mod reason;
mod receive;
mod revalidate;
mod route_rule;
mod rule;
mod serve;
mod status;
mod tagged;
mod tasks;
mod turn;
mod unshared;
mod value;
mod visit;
pub mod warm;

use std::{fmt, sync::Arc, time::Duration};

#[cfg(feature = "compression")]
pub use compression::Compression;
pub use future::CacheFuture;
pub use invalidate::{Invalidate, InvalidationError};
pub use progress::InvalidationProgress;
pub use route_rule::{RuleFuture, RuleService};
pub(crate) use rule::{Captures, PathTable};
pub use rule::{Rule, RuleError};
pub(crate) use serve::Role;
pub use value::{Value, ValueError};
pub(crate) use visit::{original_uri, target_uri};

use crate::{
    Backend,
    backend::{LeaseKey, PrimaryKey},
};
use config::Config;
use flight::Flights;
use memo::Memo;
use tasks::Tasks;
use unshared::Unshared;

/// What is cached and how: keys, rules, lifetimes, limits; and the handle for invalidating.
///
/// Made from a [`Backend`], set up by value, then given to the layers, which all take `impl Into<HttpCache>`, so that
/// they never disagree. Clones are cheap and share everything; a setter on a clone changes that clone only, so set it
/// up first.
#[derive(Clone)]
pub struct HttpCache {
    pub(crate) config: Arc<Config>,
    pub(crate) state: Arc<State>,
}

/// What all clones share.
pub(crate) struct State {
    pub(crate) backend: Backend,
    pub(crate) tasks: Tasks,
    /// Keys whose answers were not for sharing.
    pub(crate) unshared: Memo<LeaseKey, Unshared>,
    /// Requests to the origin that others follow.
    flights: Flights<collapse::FlightKey, collapse::Landing>,
    pub(crate) revalidations: revalidate::Revalidations,
    /// What is still to be invalidated.
    owed: invalidate::Owed,
    /// Values that are being computed.
    values: Flights<PrimaryKey, value::Computed>,
}

impl HttpCache {
    /// A cache on a backend. Nothing is stored that does not say itself that it may be (by a lifetime, or by its
    /// `Last-Modified`: a tenth of its age, at most a day), until [`HttpCache::default_ttl`] or a [`Rule`] says more.
    pub fn new(backend: &Backend) -> Self {
        let state = State {
            backend: backend.clone(),
            tasks: Tasks::default(),
            unshared: Memo::default(),
            flights: Flights::default(),
            revalidations: revalidate::Revalidations::default(),
            owed: invalidate::Owed::default(),
            values: Flights::default(),
        };
        Self { config: Arc::default(), state: Arc::new(state) }
    }

    /// The backend.
    pub fn backend(&self) -> &Backend {
        &self.state.backend
    }

    /// Lets no new background work begin, waits until what is under way has finished, at most until the deadline, and
    /// gives back the leases of what has not; `true` if all had finished.
    ///
    /// Call it when the server has stopped accepting. Cancel safe: a dropped future has only closed the door.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        self.state.tasks.shutdown(deadline).await
    }
}

impl From<&Self> for HttpCache {
    fn from(cache: &Self) -> Self {
        cache.clone()
    }
}

impl From<&Backend> for HttpCache {
    fn from(backend: &Backend) -> Self {
        Self::new(backend)
    }
}

impl fmt::Debug for HttpCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCache").field("backend", &self.state.backend).field("config", &self.config).finish()
    }
}

/// A random number below `bound`, for jitter.
fn random(bound: u64) -> u64 {
    let mut bytes = [0; 8];
    // Without random bytes there is no jitter; nothing depends on it.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes) % bound.max(1)
}
