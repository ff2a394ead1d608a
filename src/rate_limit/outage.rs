//! While the backend cannot be asked.

use std::{
    fmt,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    backend::{BackendError, meters::Meters},
    clock::Clock,
};

/// Whether the backend answers, told to the log once per change; and the counters of this process for the meantime.
pub(super) struct Outage {
    down: AtomicBool,
    last_failure: Mutex<Option<Instant>>,
    local: OnceLock<Meters>,
}

/// The most keys that one layer counts by itself.
const LOCAL_KEYS: usize = 1 << 16;
/// For how long there must have been no failure before the backend counts as back; one that comes and goes would
/// write a line for each request otherwise.
const CALM: Duration = Duration::from_secs(1);

impl Outage {
    pub(super) fn new() -> Self {
        Self { down: AtomicBool::new(false), last_failure: Mutex::new(None), local: OnceLock::new() }
    }

    /// The counters of this process; made when they are needed for the first time.
    pub(super) fn local(&self) -> &Meters {
        self.local.get_or_init(|| Meters::new(LOCAL_KEYS, Clock::System))
    }

    pub(super) fn failed(&self, error: &BackendError) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if !self.down.swap(true, Ordering::AcqRel) {
            tracing::warn!(%error, kind = ?error.kind(), "rate limits: the backend cannot be asked");
        }
    }

    pub(super) fn answered(&self) {
        if self.down.load(Ordering::Acquire) {
            let last_failure = *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner);
            let is_calm = last_failure.is_none_or(|at| at.elapsed() >= CALM);
            if is_calm && self.down.swap(false, Ordering::AcqRel) {
                tracing::info!("rate limits: the backend answers again");
            }
        }
    }
}

impl fmt::Debug for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outage").field("down", &self.down).finish_non_exhaustive()
    }
}
