//! Why an answer of the origin is not stored.

use http::StatusCode;

use crate::policy::{NotStored, tags::BadTags};

/// Why an answer is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    /// As `Cache-Status` shows it.
    pub(crate) detail: &'static str,
    /// Whether the answer itself is why, so that what is stored in its place is outdated.
    pub(crate) of_the_answer: bool,
    /// Whether it is about this one request, and says nothing of the answers to others for the same.
    pub(crate) of_this_request: bool,
}

impl Reason {
    pub(crate) const TOO_LARGE: Self = Self { detail: "too-large", of_the_answer: true, of_this_request: false };
    /// By the origin, or because nobody wanted it any more.
    pub(crate) const BROKEN_OFF: Self = Self { detail: "broken-off", of_the_answer: false, of_this_request: false };
    pub(crate) const RULE: Self = Self { detail: "rule", of_the_answer: true, of_this_request: false };
    pub(crate) const PERSONAL: Self = Self { detail: "personal", of_the_answer: false, of_this_request: false };
    pub(crate) const BACKEND: Self =
        Self { detail: "backend-unavailable", of_the_answer: false, of_this_request: false };
    pub(crate) const MISMATCH: Self =
        Self { detail: "validator-mismatch", of_the_answer: true, of_this_request: false };
    /// A layer of the same cache within has given it, and it is not for storing.
    pub(crate) const WITHIN: Self = Self { detail: "within", of_the_answer: false, of_this_request: true };

    /// Why an answer of this status is not stored. What a client is refused says nothing of the others, unless it says
    /// that there is nothing.
    pub(crate) fn of(reason: NotStored, status: StatusCode) -> Self {
        let is_refused = status.is_client_error() && !matches!(status.as_u16(), 404 | 410 | 451);
        let reason = Self::from(reason);
        if is_refused { Self { of_the_answer: false, of_this_request: true, ..reason } } else { reason }
    }
}

impl From<NotStored> for Reason {
    fn from(reason: NotStored) -> Self {
        let of_the_request = matches!(
            reason,
            NotStored::Method
                | NotStored::RequestNoStore
                | NotStored::Authorization
                | NotStored::Identity
                | NotStored::Cookie
                // 429 and its like, which are about one client's conduct.
                | NotStored::Status
                | NotStored::Partial
        );
        let of_this_request = matches!(reason, NotStored::RequestNoStore | NotStored::Status | NotStored::Partial);
        Self { detail: reason.as_str(), of_the_answer: !of_the_request, of_this_request }
    }
}

impl From<BadTags> for Reason {
    fn from(_: BadTags) -> Self {
        Self { detail: BadTags::DETAIL, of_the_answer: true, of_this_request: false }
    }
}
