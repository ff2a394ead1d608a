//! How far a long invalidation has come.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// How far an invalidation of many names has come; see [`Invalidate::on_progress`](crate::Invalidate::on_progress).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidationProgress {
    /// How many names have been tried, in all buckets of the store. What failed among them is in the error at the end.
    pub done: usize,
    /// How many there are: tags, prefixes and URLs. A URL has several.
    pub of: usize,
}

/// Whom to tell.
#[derive(Clone, Default)]
pub(super) struct Listener(Option<Arc<dyn Fn(InvalidationProgress) + Send + Sync>>);

impl Listener {
    pub(super) fn new(tell: impl Fn(InvalidationProgress) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }
}

/// Counts one invalidation.
pub(super) struct Counted<'a> {
    listener: &'a Listener,
    done: AtomicUsize,
    of: usize,
}

impl<'a> Counted<'a> {
    pub(super) fn new(listener: &'a Listener, of: usize) -> Self {
        Self { listener, done: AtomicUsize::new(0), of }
    }

    /// So many names more have been tried.
    pub(super) fn more(&self, names: usize) {
        let done = self.done.fetch_add(names, Ordering::Relaxed) + names;
        tracing::debug!(done, of = self.of, "invalidating");
        if let Some(tell) = &self.listener.0 {
            tell(InvalidationProgress { done, of: self.of });
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.0.is_some()).finish()
    }
}
