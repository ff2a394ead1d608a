//! The layer.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, request};
use tower_layer::Layer;

use super::{ConcurrencyLimit, permits::Permits};
use crate::rate_limit::{Key, Rejection, count::Decisions, hooks::Hooks};

/// Refuses requests while too many of their key are in progress in this process; see
/// [`ConcurrencyLimit`].
///
/// Services that are made from one layer share the count; other layers and other processes count for themselves.
#[derive(Clone, Debug)]
#[must_use]
pub struct ConcurrencyLimitLayer {
    pub(super) name: Arc<str>,
    pub(super) key: Key,
    pub(super) most: u32,
    pub(super) permits: Permits,
    pub(super) decisions: Decisions,
    pub(super) hooks: Hooks,
}

impl ConcurrencyLimitLayer {
    /// At most so many requests at once for each key; with [`Key::global`], of all together. The name is what a refused
    /// client is told. With 0, every request that has a key is refused.
    pub fn new(name: impl AsRef<str>, key: impl Into<Key>, most: u32) -> Self {
        Self {
            name: name.as_ref().into(),
            key: key.into(),
            most,
            permits: Permits::default(),
            decisions: Decisions::default(),
            hooks: Hooks::default(),
        }
    }

    /// Requests that are not limited and do not count, such as health checks. CORS preflights never are limited.
    pub fn exempt(mut self, exempt: impl Fn(&request::Parts) -> bool + Send + Sync + 'static) -> Self {
        self.hooks.exempt = Some(Arc::new(exempt));
        self
    }

    /// Shapes the answer to requests that are refused. The function gets the answer as it would be: 429 or 503 with
    /// problem details, or a gRPC status; see [`Reason`](crate::rate_limit::Reason).
    pub fn on_reject(
        mut self,
        shape: impl Fn(&Rejection, Response<Bytes>) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.hooks.on_reject = Some(Arc::new(shape));
        self
    }
}

impl<S> Layer<S> for ConcurrencyLimitLayer {
    type Service = ConcurrencyLimit<S>;

    fn layer(&self, inner: S) -> ConcurrencyLimit<S> {
        ConcurrencyLimit { inner, config: self.clone() }
    }
}
