//! The layer.

use std::sync::Arc;

use tower_layer::Layer;

use super::{ConcurrencyLimit, permits::Permits};
use crate::rate_limit::{Key, count::Decisions};

/// Refuses requests while too many of their key are in progress in this process; see
/// [`ConcurrencyLimit`].
///
/// Services that are made from one layer share the count.
#[derive(Clone, Debug)]
#[must_use]
pub struct ConcurrencyLimitLayer {
    pub(super) name: Arc<str>,
    pub(super) key: Key,
    pub(super) most: u32,
    pub(super) permits: Permits,
    pub(super) decisions: Decisions,
}

impl ConcurrencyLimitLayer {
    /// At most so many requests at once for each key; with [`Key::global`], of all together. The name is what a refused
    /// client is told. With 0, everything is refused.
    pub fn new(name: impl AsRef<str>, key: impl Into<Key>, most: u32) -> Self {
        Self {
            name: name.as_ref().into(),
            key: key.into(),
            most,
            permits: Permits::default(),
            decisions: Decisions::default(),
        }
    }
}

impl<S> Layer<S> for ConcurrencyLimitLayer {
    type Service = ConcurrencyLimit<S>;

    fn layer(&self, inner: S) -> ConcurrencyLimit<S> {
        ConcurrencyLimit { inner, config: self.clone() }
    }
}
