//! The answers of those who follow: from what somebody else has asked for.

use std::sync::Arc;

use http::{Response, StatusCode, header};

use super::{
    HttpCache,
    answer::shape,
    collapse::Shared,
    judge::{Failure, Judged, Stored},
    receive::variant_tag,
    status::Report,
    visit::Visit,
};
use crate::{
    backend::{Entry, Lookup, Variant},
    body::CacheBody,
    policy::{Flags, Reuse, Timing, age, cache_status::Forward},
};

impl HttpCache {
    /// Whether an answer to somebody else is one to this request; its age and what is left of its freshness.
    pub(super) fn timing(&self, visit: &Visit, stored: &Stored) -> Option<Timing> {
        let headers = &visit.head.headers;
        let (meta, now) = (&stored.response().meta, self.state.backend.now());
        let public = meta.flags.has(Flags::PUBLIC) || visit.rule().shareable == Some(true);
        if visit.credentials.any() && !public {
            return None;
        }
        match self.config.policy.reuse(meta, headers, self.directives(headers).as_ref(), now, None) {
            Reuse::Fresh(timing) => Some(timing),
            _ => None,
        }
    }

    /// Answers a follower as the content arrives; `None` where the answer is not for this request.
    pub(super) fn follow<R>(&self, visit: &Visit, shared: &Shared) -> Option<Response<CacheBody<R>>> {
        let timing = self.timing(visit, &Stored::of(&shared.entry)?)?;
        let reader = shared.content.join()?;
        visit.claim();
        let mut response = Response::new(CacheBody::shared(reader));
        *response.status_mut() = shared.status;
        *response.version_mut() = shared.version;
        *response.headers_mut() = shared.headers.clone();
        response.headers_mut().insert(header::AGE, age::field_value(timing.age));
        self.report(response.headers_mut(), Some(&visit.key), &collapsed(&timing));
        response.extensions_mut().insert(visit.mark(Some(&shared.entry)));
        Some(shape(visit, response))
    }

    /// Answers from what somebody else has filled meanwhile.
    pub(super) fn found<R>(&self, visit: &Visit, lookup: &Lookup) -> Option<Response<CacheBody<R>>> {
        let headers = &visit.head.headers;
        let entry = &lookup.found.as_ref()?.entry;
        if self.variant(entry.vary(), headers) != lookup.variant {
            return None;
        }
        match self.judge(Some(lookup), headers, self.directives(headers).as_ref()) {
            Judged::Hit { stored, age, report } => {
                visit.claim();
                let report = Report { forward: Some(Forward::UriMiss), collapsed: true, ..report };
                Some(self.respond(visit, &stored, age, &report))
            }
            _ => None,
        }
    }

    /// Answers from what somebody else hands over, if this request selects it.
    pub(super) fn handed_over<R>(&self, visit: &Visit, entry: &Arc<Entry>) -> Option<Response<CacheBody<R>>> {
        let stored = Stored::of(entry)?;
        // One that was stored, too, is of the variant that was looked up.
        let own = self.variant(entry.vary(), &visit.head.headers);
        if !is_variant(entry, own) && own != visit.variant() {
            return None;
        }
        let timing = self.timing(visit, &stored)?;
        visit.claim();
        Some(self.respond(visit, &stored, timing.age, &collapsed(&timing)))
    }

    /// Those who wait get stale, or the leader's error.
    pub(super) fn share_failure<R>(&self, visit: &Visit, status: Option<StatusCode>) -> Response<CacheBody<R>> {
        let failure = status.map_or(Failure::Disconnect, Failure::Status);
        visit.claim();
        match self.stand_in(visit.lookup.as_ref(), &visit.head.headers, failure) {
            Some((stored, age, report)) => self.respond(visit, &stored, age, &Report { collapsed: true, ..report }),
            None => self.failed(visit, status),
        }
    }
}

/// Whether an entry that was handed over is of this variant.
pub(super) fn is_variant(entry: &Entry, variant: Variant) -> bool {
    entry.vary().is_none() || entry.tags().contains(&variant_tag(variant))
}

fn collapsed(timing: &Timing) -> Report {
    Report { forward: Some(Forward::UriMiss), ttl: Some(timing.ttl), collapsed: true, ..Report::default() }
}
