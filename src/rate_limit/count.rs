//! What operators see of limits.

use std::sync::Arc;

use crate::metrics::{self, Counters};

/// The decisions of one policy.
pub(super) type Decisions = Counters<{ 3 * By::ALL }>;

/// What is decided about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decided {
    Admitted,
    Denied,
    /// By a policy in shadow mode: the request goes on.
    WouldDeny,
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The counters in the store.
    Store,
    /// Counters of this process.
    Process,
    /// The policy's word for when the store cannot be asked.
    OnError,
}

impl By {
    const ALL: usize = Self::OnError as usize + 1;

    const fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Process => "process",
            Self::OnError => "on-error",
        }
    }
}

impl Decided {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Denied => "denied",
            Self::WouldDeny => "would-deny",
        }
    }
}

/// Counts a decision of the policy with this name.
pub(super) fn decided(decisions: &Decisions, policy: &Arc<str>, decided: Decided, by: By) {
    let index = decided as usize * By::ALL + by as usize;
    let words = || [policy.into(), decided.as_str().into(), by.as_str().into()];
    decisions.count(index, &metrics::RATE_LIMIT_DECISIONS, words);
}
