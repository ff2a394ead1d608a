//! The beginning of a request's way, as far as nothing has to be waited for: a hit in memory ends here.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Request, Response};
use http_body::Body;

use super::{
    HttpCache,
    count::lookup_ended,
    judge::{Stored, Verdict},
    visit::{Admitted, Bypass, Visit},
};
use crate::{
    Timestamp,
    backend::{Found, Lookup, PrimaryKey, VarySpec},
    body::CacheBody,
    exchange::Answered,
    policy::glance::Glance,
};

/// What is left to do for a request that could not be answered at once.
pub(crate) enum Ahead {
    /// It has been looked up, by a layer outside or just now.
    Judge(Arc<Visit>),
    /// The store has to be asked.
    LookUp(Admitted),
    /// It goes to the inner service.
    Pass(Bypass),
}

impl From<Arc<Visit>> for Ahead {
    fn from(visit: Arc<Visit>) -> Self {
        Self::Judge(visit)
    }
}

/// Which layer is the first that looks a request up.
pub(crate) enum Seen {
    /// One outside.
    Before(Arc<Visit>),
    /// The one that asks.
    Now(Admitted),
}

impl HttpCache {
    /// For a layer that does not answer from the store.
    pub(crate) fn seen<B: Body>(&self, request: &Request<B>) -> Result<Seen, Bypass> {
        match self.visit_of(request) {
            Some(visit) => Ok(Seen::Before(visit)),
            None => self.admit(request).map(|(admitted, _)| Seen::Now(admitted)),
        }
    }

    /// Answers a request, if a stored response that is at hand does; else says what is left to do.
    #[expect(clippy::inline_always, reason = "else the answer is moved once more")]
    #[inline(always)]
    pub(crate) fn begin<B: Body, R>(&self, request: &Request<B>) -> Result<Response<CacheBody<R>>, Ahead> {
        if let Some(visit) = self.visit_of(request) {
            return Err(Ahead::Judge(visit));
        }
        let (admitted, glance) = self.admit(request).map_err(Ahead::Pass)?;
        match self.at_hand(&admitted.key, request.headers(), &glance) {
            // Unpacking may wait.
            Some((lookup, _)) if Self::is_packed(&lookup) => Err(Ahead::LookUp(admitted)),
            Some((lookup, now)) => {
                lookup_ended(&self.lookup_span(&admitted.key), &lookup);
                self.with_found(request, &glance, admitted, Some(lookup), now)
            }
            None => Err(Ahead::LookUp(admitted)),
        }
    }

    /// The same when the store has answered.
    pub(crate) fn with_answer_of_store<B, R>(
        &self,
        request: &Request<B>,
        admitted: Admitted,
        lookup: Option<Lookup>,
    ) -> Result<Response<CacheBody<R>>, Arc<Visit>> {
        let (glance, now) = (Glance::at(request.headers()), self.state.backend.now());
        self.with_found(request, &glance, admitted, lookup, now)
    }

    /// What is at hand, and when it was looked up: by the exact time if that makes a difference.
    #[inline]
    fn at_hand(&self, key: &PrimaryKey, headers: &HeaderMap, glance: &Glance<'_>) -> Option<(Lookup, Timestamp)> {
        let backend = &self.state.backend;
        let at = |now| Some((backend.lookup_now(key, &|spec: &VarySpec| self.variant(spec, headers), now)?, now));
        if glance.steered {
            return at(backend.now());
        }
        let (mut lookup, about) = at(backend.about_now())?;
        let Some(found) = lookup.found.as_ref().filter(|found| !is_clearly_fresh(found, about)) else {
            return Some((lookup, about));
        };
        let now = backend.now();
        if found.entry.keep_until() <= now {
            lookup.found = None;
        }
        Some((lookup, now))
    }

    /// Most requests end here; the visit is made for the others.
    #[expect(clippy::inline_always, reason = "else the answer is moved once more")]
    #[inline(always)]
    fn with_found<B, R, E: From<Arc<Visit>>>(
        &self,
        request: &Request<B>,
        glance: &Glance<'_>,
        admitted: Admitted,
        lookup: Option<Lookup>,
        now: Timestamp,
    ) -> Result<Response<CacheBody<R>>, E> {
        let (method, headers) = (request.method(), request.headers());
        let directives = if glance.steered { self.directives(headers) } else { None };
        let (stored, age, report) = match lookup {
            Some(Lookup { found: Some(found), .. })
                if let Verdict::Hit { age, report } = self.verdict(&found, headers, directives.as_ref(), now) =>
            {
                // It may be that nobody else has what was found.
                (Stored::read(found.entry), age, report)
            }
            lookup => return Err(Arc::new(self.visit(request, admitted, lookup)).into()),
        };
        // For most answers no layer outside asks who gave them; that it has looked up, it would have said.
        let is_asked_for = self.passed(request).is_some();
        if !glance.steered && !is_asked_for {
            // Written into where it goes: a move of it costs more than most of what is done for a hit.
            return Ok(self.answer_whole(&admitted.key, method, stored, age, &report));
        }
        let mut response = self.answer(&admitted.key, method, headers, &stored, age, &report);
        if is_asked_for {
            let entry = Some(stored.entry().clone());
            response.extensions_mut().insert(Answered { by: self.id(), visit: None, entry });
        }
        Ok(response)
    }
}

/// Whether it is fresh for so long that it is no matter whether the time is exact.
fn is_clearly_fresh(found: &Found, about: Timestamp) -> bool {
    found.stale_since.is_none() && about.plus(Duration::from_secs(1)) < found.entry.fresh_until()
}
