//! What the load counts.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Pages that were asked for.
    pub(crate) requests: AtomicU64,
    pub(crate) hits: AtomicU64,
    /// Answers that the origin would not have given, or none.
    pub(crate) errors: AtomicU64,
    /// Answers older than what was promised.
    pub(crate) stale: AtomicU64,
    /// The slowest answer, in milliseconds.
    pub(crate) slowest: AtomicU64,
    pub(crate) invalidated: AtomicU64,
    /// Invalidations that said that they were not done.
    pub(crate) refused: AtomicU64,
    /// Additions to the cart that were acknowledged.
    pub(crate) added: AtomicU64,
    /// Tokens of live sessions that were answered as such.
    pub(crate) shown: AtomicU64,
    /// Tokens that were answered with "the store is away".
    pub(crate) away: AtomicU64,
    /// Sessions that were gone and should not have been.
    pub(crate) lost: AtomicU64,
    /// Sessions that were gone, as the row says they may.
    pub(crate) forgotten: AtomicU64,
    /// Sessions that lived on after their logout was acknowledged.
    pub(crate) revived: AtomicU64,
}

impl Counts {
    pub(crate) fn of(counter: &AtomicU64) -> u64 {
        counter.load(SeqCst)
    }

    pub(crate) fn add(counter: &AtomicU64, so_many: impl Into<u64>) {
        counter.fetch_add(so_many.into(), SeqCst);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (&self.requests, "requests"),
            (&self.hits, "hits"),
            (&self.errors, "errors"),
            (&self.stale, "stale"),
            (&self.slowest, "ms slowest"),
            (&self.invalidated, "invalidated"),
            (&self.refused, "refused"),
            (&self.shown, "tokens shown"),
            (&self.away, "told that the store is away"),
            (&self.lost, "sessions lost"),
            (&self.forgotten, "sessions forgotten as the row says"),
            (&self.revived, "sessions revived"),
            (&self.added, "added to the cart"),
        ];
        let all = all.map(|(counter, what)| format!("{} {what}", Self::of(counter)));
        f.write_str(&all.join(", "))
    }
}
