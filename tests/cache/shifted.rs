//! A backend whose clock a test turns forward, so that the same cases run against a real Redis.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tower_gatehouse::{
    Backend, Timestamp,
    backend::{BackendError, InvalidateError, Lookup, Mode, PrimaryKey, Scope, VaryOf},
};

use crate::support::altered::{Alter, Altered};

/// How far a clock has been turned, in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shift(Arc<AtomicU64>);

impl Shift {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }

    fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// The store itself goes by its own clock, so that nothing expires early; what is asked for the time is turned.
#[derive(Debug)]
pub(crate) struct Shifted {
    inner: Backend,
    shift: Shift,
    /// How far the clock was turned at the last soft invalidation.
    soft: Shift,
}

impl Shifted {
    pub(crate) fn backend(inner: Backend, shift: Shift) -> Backend {
        Backend::custom(Altered(Self { inner, shift, soft: Shift::default() }))
    }

    fn shifted(&self, mut lookup: Lookup) -> Lookup {
        if let Some(found) = &mut lookup.found {
            found.stale_since = found.stale_since.map(|since| since.plus(self.soft.get()));
        }
        lookup
    }
}

impl Alter for Shifted {
    fn inner(&self) -> &Backend {
        &self.inner
    }

    fn now(&self) -> Timestamp {
        self.inner.now().plus(self.shift.get())
    }

    async fn lookup(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> Result<Lookup, BackendError> {
        Ok(self.shifted(self.inner.lookup(key, vary).await?))
    }

    fn lookup_now(&self, key: &PrimaryKey, vary: &VaryOf<'_>, _: Timestamp) -> Option<Lookup> {
        self.inner.lookup_now(key, vary, self.inner.now()).map(|lookup| self.shifted(lookup))
    }

    async fn invalidate(&self, scope: Scope<'_>, mode: Mode) -> Result<(), InvalidateError> {
        if mode == Mode::Soft {
            self.soft.0.store(self.shift.0.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        self.inner.invalidate(scope, mode).await
    }
}
