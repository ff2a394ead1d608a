//! Whether the servers have been found to be what they must be.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::backend::{BackendError, ErrorKind};

/// Closed until the servers are checked: a process that spreads the namespace over other buckets than the rest of the
/// fleet would say that it has invalidated what the others go on to serve.
#[derive(Debug, Default)]
pub(super) struct Gate {
    is_open: AtomicBool,
    /// Why it stays closed.
    refusal: Mutex<Option<BackendError>>,
}

impl Gate {
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    pub(super) fn open(&self) {
        self.is_open.store(true, Ordering::Release);
    }

    /// Stays closed, or is closed again, for this reason.
    pub(super) fn refuse(&self, why: BackendError) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        self.is_open.store(false, Ordering::Release);
    }

    /// What those are told who come while it is closed. Where the server that is to be asked has no connection yet, they
    /// may pass: that fails by itself, and says why.
    pub(super) fn pass(&self, is_connected: impl FnOnce() -> bool) -> Result<(), BackendError> {
        if self.is_open() {
            return Ok(());
        }
        match self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Some(why) => Err(why),
            None if is_connected() => {
                Err(BackendError::new(ErrorKind::Unavailable, "Redis was not asked because it is just being checked"))
            }
            None => Ok(()),
        }
    }
}
