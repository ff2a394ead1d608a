//! The beginning of a request's way, as far as nothing has to be waited for: a hit in memory ends here.

use std::sync::Arc;

use http::{Request, Response};
use http_body::Body;

use super::{
    HttpCache,
    count::lookup_ended,
    judge::Judged,
    visit::{Admitted, Bypass, Visit},
};
use crate::{
    Timestamp,
    backend::{Lookup, VarySpec},
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
            None => self.admit(request, &Glance::at(request.headers())).map(Seen::Now),
        }
    }

    /// Answers a request, if a stored response that is at hand does; else says what is left to do.
    #[inline]
    pub(crate) fn begin<B: Body, R>(&self, request: &Request<B>) -> Result<Response<CacheBody<R>>, Ahead> {
        if let Some(visit) = self.visit_of(request) {
            return Err(Ahead::Judge(visit));
        }
        let glance = Glance::at(request.headers());
        let admitted = self.admit(request, &glance).map_err(Ahead::Pass)?;
        let (backend, headers) = (&self.state.backend, request.headers());
        let now = backend.now();
        match backend.lookup_now(&admitted.key, &|spec: &VarySpec| self.variant(spec, headers), now) {
            // Unpacking may wait.
            Some(lookup) if Self::is_packed(&lookup) => Err(Ahead::LookUp(admitted)),
            Some(lookup) => {
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

    /// Most requests end here; the visit is made for the others.
    #[inline]
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
        let Judged::Hit { stored, age, report } = self.judge_at(lookup.as_ref(), headers, directives.as_ref(), now)
        else {
            return Err(Arc::new(self.visit(request, admitted, lookup, now)).into());
        };
        // It may be that nobody else has what was found.
        drop(lookup);
        let mut response = if glance.steered {
            self.answer(&admitted.key, method, headers, &stored, age, &report)
        } else {
            self.answer_whole(&admitted.key, method, stored, age, &report)
        };
        // For most answers no layer outside asks who gave them; that it has looked up, it would have said.
        if self.passed(request).is_some() {
            response.extensions_mut().insert(Answered(self.id()));
        }
        Ok(response)
    }
}
