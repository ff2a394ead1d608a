//! What has become of a request.

use std::{fmt, time::Duration};

use http::{StatusCode, Uri};

/// What has become of one request of a [`Warming`](super::Warming).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// What was asked for.
    pub uri: Uri,
    /// What has become of it.
    pub warmed: Warmed,
    /// How long it took, the wait for the rate not counted.
    pub elapsed: Duration,
}

/// What a request has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warmed {
    /// The store has a fresh answer, and the service was not asked.
    Fresh,
    /// The service was asked, and the store has a fresh answer now.
    #[non_exhaustive]
    Stored {
        /// The answer's status.
        status: StatusCode,
        /// The length of its content.
        bytes: u64,
    },
    /// The service was asked, and the store has nothing fresh all the same.
    #[non_exhaustive]
    NotStored {
        /// The answer's status.
        status: StatusCode,
        /// The `detail` of its `Cache-Status`: `no-freshness`, `set-cookie`…
        reason: Option<String>,
    },
    /// It was not sent, because the cache would pass it by, or because it names no host.
    #[non_exhaustive]
    Bypassed {
        /// Why: `method`, `rule`, `content`, `host`…
        reason: &'static str,
    },
    /// The service has failed, and perhaps a stale answer stands in, or it has taken too long; or the store is out of
    /// reach, and then the service was not asked.
    #[non_exhaustive]
    Failed {
        /// What happened.
        reason: String,
    },
    /// It was not sent, because the warming was stopped.
    Stopped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.uri)?;
        match &self.warmed {
            Warmed::Fresh => f.write_str("fresh"),
            Warmed::Stored { status, bytes } => write!(f, "stored ({}, {bytes} bytes)", status.as_u16()),
            Warmed::NotStored { status, reason } => {
                write!(f, "not stored ({}", status.as_u16())?;
                reason.iter().try_for_each(|reason| write!(f, ", {reason}"))?;
                f.write_str(")")
            }
            Warmed::Bypassed { reason } => write!(f, "bypassed ({reason})"),
            Warmed::Failed { reason } => write!(f, "failed ({reason})"),
            Warmed::Stopped => f.write_str("stopped"),
        }
    }
}

/// How many requests have come to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// [`Warmed::Fresh`]
    pub fresh: u64,
    /// [`Warmed::Stored`]
    pub stored: u64,
    /// [`Warmed::NotStored`]
    pub not_stored: u64,
    /// [`Warmed::Bypassed`]
    pub bypassed: u64,
    /// [`Warmed::Failed`]
    pub failed: u64,
    /// [`Warmed::Stopped`]
    pub stopped: u64,
}

impl Summary {
    /// Counts one more.
    pub fn add(&mut self, outcome: &Outcome) {
        *match outcome.warmed {
            Warmed::Fresh => &mut self.fresh,
            Warmed::Stored { .. } => &mut self.stored,
            Warmed::NotStored { .. } => &mut self.not_stored,
            Warmed::Bypassed { .. } => &mut self.bypassed,
            Warmed::Failed { .. } => &mut self.failed,
            Warmed::Stopped => &mut self.stopped,
        } += 1;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.fresh + self.stored + self.not_stored + self.bypassed + self.failed + self.stopped
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.stored, "stored"),
            (self.fresh, "fresh"),
            (self.not_stored, "not stored"),
            (self.bypassed, "bypassed"),
            (self.failed, "failed"),
            (self.stopped, "stopped"),
        ];
        let mut separator = "";
        for (count, name) in all.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{separator}{count} {name}")?;
            separator = ", ";
        }
        if separator.is_empty() { f.write_str("nothing to do") } else { Ok(()) }
    }
}
