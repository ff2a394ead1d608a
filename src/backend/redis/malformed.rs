//! Values that are there but none of ours.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::metrics;

/// Counts them; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Malformed(Arc<AtomicU64>);

impl Malformed {
    /// What could be made of a value that is there, counted if it is nothing.
    pub(super) fn counted<T>(&self, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.0.fetch_add(1, Ordering::Relaxed);
            metrics::count(&metrics::BACKEND_MALFORMED, ["value".into()]);
            tracing::debug!("a value in Redis is damaged or of another version; it counts as absent");
        }
        value
    }
}

impl fmt::Debug for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
