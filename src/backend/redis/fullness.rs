//! Whether a server is full, told once when it begins and once when it is over.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{error::Fault, reply::Reply};
use crate::backend::ErrorKind;

/// What a full server says to those who write. Some writes succeed all the same, as invalidations must; so it is full until
/// nobody has been refused for [`CALM`].
#[derive(Debug, Default)]
pub(super) struct Fullness {
    is_full: AtomicBool,
    refused: Mutex<Option<Instant>>,
}

const CALM: Duration = Duration::from_secs(10);

impl Fullness {
    pub(super) fn observe(&self, node: &impl fmt::Display, name: &str, answer: &Result<Reply, Fault>) {
        match answer {
            Err(Fault::Failed(error)) if error.kind() == ErrorKind::Full => {
                *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                if !self.is_full.swap(true, Ordering::SeqCst) {
                    tracing::warn!(%node, "Redis is full and evicts nothing: what is written is refused");
                }
            }
            // A plain load first, and reads say nothing.
            Ok(_) if self.is_full.load(Ordering::Relaxed) && matches!(name, "EVALSHA" | "EVAL") => {
                let refused = *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                if refused.is_some_and(|at| at.elapsed() >= CALM) && self.is_full.swap(false, Ordering::SeqCst) {
                    tracing::info!(%node, "Redis takes what is written again");
                }
            }
            _ => {}
        }
    }
}
