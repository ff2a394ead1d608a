//! What operators see of sessions.

use super::{SessionError, core::Loaded, source::Presented};
use crate::{
    backend::Saved,
    metrics::{self, Counters},
};

/// What comes of the sessions that requests name.
pub(super) type Loads = Counters<{ Found::ALL }>;

/// What came of looking for a session.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    Unknown,
    Live,
    Foreign,
    Error,
}

impl Found {
    const ALL: usize = Self::Error as usize + 1;

    fn of(loaded: &Loaded) -> Self {
        match loaded {
            Loaded::NotYet | Loaded::Nothing { .. } => Self::Unknown,
            Loaded::Live(_) => Self::Live,
            Loaded::Foreign(_) => Self::Foreign,
            Loaded::Failed(_) => Self::Error,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Live => "live",
            Self::Foreign => "foreign",
            Self::Error => "error",
        }
    }
}

/// A token that no store was asked for.
pub(super) fn presented(presented: &Presented, has_resolver: bool) {
    let refused = match presented {
        Presented::Bad(_) => true,
        Presented::Foreign(_) => !has_resolver,
        Presented::Token(..) | Presented::Nothing => false,
    };
    if refused {
        metrics::count(&metrics::SESSION_LOADS, ["refused".into()]);
    }
}

/// A session was looked for.
pub(super) fn loaded(loads: &Loads, loaded: &Loaded) -> Found {
    let found = Found::of(loaded);
    loads.count(found as usize, &metrics::SESSION_LOADS, || [found.as_str().into()]);
    found
}

/// A change of a session in the store; hands on how it ended.
pub(super) fn wrote<T: Outcome, E: Into<SessionError>>(
    write: &'static str,
    outcome: Result<T, E>,
) -> Result<T, SessionError> {
    let ended = outcome.as_ref().map_or("error", Outcome::as_str);
    metrics::count(&metrics::SESSION_WRITES, [write.into(), ended.into()]);
    outcome.map_err(Into::into)
}

/// How a change ended.
pub(super) trait Outcome {
    fn as_str(&self) -> &'static str;
}

impl Outcome for Saved {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Gone => "gone",
            Self::Exists => "exists",
            Self::Conflict => "conflict",
            Self::Revoked => "revoked",
        }
    }
}

/// Whether there was a session.
impl Outcome for bool {
    fn as_str(&self) -> &'static str {
        if *self { "done" } else { "gone" }
    }
}

/// Of how many sessions.
impl Outcome for u64 {
    fn as_str(&self) -> &'static str {
        "done"
    }
}
