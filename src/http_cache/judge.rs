//! What a look-up comes to for one request.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{
    HttpCache,
    status::{Kind, Report},
};
use crate::{
    Timestamp,
    backend::{Entry, Found, Lookup},
    policy::{RequestDirectives, Reuse, Stale, cache_status::Forward},
    stored::{Prepared, StoredResponse},
};

/// The verdict on what was found.
#[derive(Debug)]
pub(crate) enum Judged {
    /// It answers the request.
    Hit { stored: Stored, age: Duration, report: Report },
    /// It must be validated first.
    Stale { stored: Stored, stale: Stale },
    /// There is nothing for this request; why the inner service is asked.
    Nothing(Forward),
}

/// The same, apart from what was found.
#[derive(Debug)]
pub(crate) enum Verdict {
    Hit { age: Duration, report: Report },
    Stale(Stale),
    Nothing(Forward),
}

/// An entry that is known to hold a response of this version.
#[derive(Clone, Debug)]
pub(crate) struct Stored(Arc<Entry>);

impl Stored {
    /// Reads an entry; once only, as long as the store hands out the same one. `None` where it cannot be read, which
    /// is a miss.
    pub(crate) fn of(entry: &Arc<Entry>) -> Option<Self> {
        readable(entry).map(|_| Self(Arc::clone(entry)))
    }

    /// An entry that was [judged](HttpCache::verdict), and is worth something.
    pub(crate) fn read(entry: Arc<Entry>) -> Self {
        Self(entry)
    }

    /// Reads an entry of which only the head is new: its content was read before.
    pub(crate) fn with(entry: &Arc<Entry>, body: &Bytes) -> Option<Self> {
        // One that the store keeps in memory keeps nothing unpacked.
        let entry = if entry.body() == body { Arc::clone(entry) } else { Arc::new(entry.undecoded()) };
        Prepared::with(&entry, body).ok()?;
        Some(Self(entry))
    }

    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.0
    }

    pub(crate) fn prepared(&self) -> &Prepared {
        Prepared::of(&self.0).expect("it was read when this was made")
    }

    /// See [`Prepared::take_fields`]. The response has none any more.
    pub(crate) fn take_fields(&mut self, with_tags: bool) -> Option<HeaderMap> {
        Prepared::take_fields(&mut self.0, with_tags)
    }

    pub(crate) fn response(&self) -> &StoredResponse {
        &self.prepared().stored
    }
}

fn readable(entry: &Entry) -> Option<&Prepared> {
    match Prepared::of(entry) {
        Ok(prepared) => Some(prepared),
        Err(error) => {
            tracing::debug!(%error, "what is stored cannot be read; it counts as absent");
            None
        }
    }
}

/// How the origin has failed; in the extensions of the stale response that stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It answered with a status that says so.
    Status(StatusCode),
    /// It did not answer.
    Disconnect,
    /// It has not answered yet.
    Slow,
}

impl Failure {
    /// What to say of a stale response that stands in; nothing of one that the origin may still replace.
    pub(crate) fn standing_in(self) -> Option<String> {
        match self {
            Self::Status(status) => Some(format!("{}, and a stale answer stands in", status.as_u16())),
            Self::Disconnect => Some("no answer, and a stale answer stands in".into()),
            Self::Slow => None,
        }
    }
}

impl HttpCache {
    pub(crate) fn directives(&self, request: &HeaderMap) -> Option<RequestDirectives> {
        self.config.policy.request_directives(request)
    }

    /// Judges what was found for a request (RFC 9111 §4).
    pub(crate) fn judge(
        &self,
        lookup: Option<&Lookup>,
        request: &HeaderMap,
        directives: Option<&RequestDirectives>,
    ) -> Judged {
        self.judge_at(lookup, request, directives, self.state.backend.now())
    }

    /// The same at this time on the backend's clock.
    fn judge_at(
        &self,
        lookup: Option<&Lookup>,
        request: &HeaderMap,
        directives: Option<&RequestDirectives>,
        now: Timestamp,
    ) -> Judged {
        let Some(lookup) = lookup else { return Judged::Nothing(Forward::Miss) };
        let Some(found) = &lookup.found else {
            // Something is known of the key, but not for these request fields.
            let why = if lookup.variant.0.is_some() { Forward::VaryMiss } else { Forward::UriMiss };
            return Judged::Nothing(why);
        };
        let stored = || Stored(Arc::clone(&found.entry));
        match self.verdict(found, request, directives, now) {
            Verdict::Hit { age, report } => Judged::Hit { stored: stored(), age, report },
            Verdict::Stale(stale) => Judged::Stale { stored: stored(), stale },
            Verdict::Nothing(why) => Judged::Nothing(why),
        }
    }

    /// The verdict on an entry; unless it is worth nothing, the entry can be [read](Stored::read).
    pub(crate) fn verdict(
        &self,
        found: &Found,
        request: &HeaderMap,
        directives: Option<&RequestDirectives>,
        now: Timestamp,
    ) -> Verdict {
        let Some(prepared) = readable(&found.entry) else { return Verdict::Nothing(Forward::Miss) };
        match self.config.policy.reuse(&prepared.stored.meta, request, directives, now, found.stale_since) {
            Reuse::Fresh(timing) => {
                let report = Report { kind: Kind::Hit, ttl: Some(timing.ttl), ..Report::default() };
                Verdict::Hit { age: timing.age, report }
            }
            Reuse::MaxStale(timing) => {
                let report = Report { kind: Kind::Stale, ttl: Some(timing.ttl), ..Report::default() };
                Verdict::Hit { age: timing.age, report }
            }
            Reuse::Stale(stale) => Verdict::Stale(stale),
            Reuse::Foreign => Verdict::Nothing(Forward::Request),
        }
    }

    /// Whether what was found answers the request.
    pub(crate) fn is_hit(&self, lookup: &Lookup, request: &HeaderMap) -> bool {
        matches!(self.judge(Some(lookup), request, self.directives(request).as_ref()), Judged::Hit { .. })
    }

    /// The stale response that stands in for an origin that has failed; `None` where HTTP does not allow it.
    pub(crate) fn stand_in(
        &self,
        lookup: Option<&Lookup>,
        request: &HeaderMap,
        failure: Failure,
    ) -> Option<(Stored, Duration, Report)> {
        let Judged::Stale { stored, stale } = self.judge(lookup, request, self.directives(request).as_ref()) else {
            return None;
        };
        let allowed = match failure {
            Failure::Status(_) | Failure::Disconnect => stale.on_error,
            Failure::Slow => stale.on_error || stale.while_revalidate,
        };
        allowed.then(|| {
            let (forward_status, detail) = match failure {
                Failure::Status(status) => (Some(status), "origin-error"),
                Failure::Disconnect => (None, "origin-unreachable"),
                Failure::Slow => (None, "origin-slow"),
            };
            let report = Report {
                kind: Kind::Stale,
                forward: Some(Forward::Stale),
                forward_status,
                ttl: Some(stale.timing.ttl),
                detail: Some(detail),
                failure: Some(failure),
                ..Report::default()
            };
            (stored, stale.timing.age, report)
        })
    }
}
