//! What operators see of the cache.

use std::sync::Arc;

use http::{HeaderMap, Request, Response, header};
use tracing::{Instrument as _, Span, field::Empty};

use super::{
    HttpCache,
    config::Config,
    reason::Reason,
    serve::{Origin, oneshot},
    status::{Kind, Report},
    visit::{Bypass, Visit},
};
use crate::{
    backend::{BackendError, Commit, Committed, Entry, Lookup, Mode, PrimaryKey, Scope},
    body::CacheBody,
    metrics::{self, Counters, Histograms, Stopwatch},
    policy::cache_status::Forward,
    span::{debug_span, record},
};

/// What is counted and measured with every request.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    answers: Counters<{ FREQUENT.len() }>,
    bypasses: Counters<{ Bypass::ALL }>,
    asked: Counters<{ Purpose::ALL * Ended::ALL }>,
    seconds: Histograms<{ Purpose::ALL }>,
}

/// A clone, which may have another name, finds its own.
impl Clone for Counts {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// The most frequent results, each with its reason.
const FREQUENT: [(&str, &str); 5] = [
    ("hit", "fresh"),
    ("coalesced", "in-flight"),
    ("coalesced", "filled"),
    ("stale", "revalidating"),
    ("miss", Forward::UriMiss.as_str()),
];

/// The first of them.
const FRESH_HIT: usize = 0;

/// How a request to the inner service has ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended {
    /// With a status of this class; `Other` for those above 599.
    Status1xx,
    Status2xx,
    Status3xx,
    Status4xx,
    Status5xx,
    Other,
    Error,
    GivenUp,
}

impl Ended {
    const ALL: usize = Self::GivenUp as usize + 1;

    pub(super) fn of<R, E>(outcome: &Result<Response<R>, E>) -> Self {
        let Ok(response) = outcome else { return Self::Error };
        match response.status().as_u16() {
            ..200 => Self::Status1xx,
            200..300 => Self::Status2xx,
            300..400 => Self::Status3xx,
            400..500 => Self::Status4xx,
            500..600 => Self::Status5xx,
            600.. => Self::Other,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Status1xx => "1xx",
            Self::Status2xx => "2xx",
            Self::Status3xx => "3xx",
            Self::Status4xx => "4xx",
            Self::Status5xx => "5xx",
            Self::Other => "other",
            Self::Error => "error",
            Self::GivenUp => "given-up",
        }
    }
}

/// What the inner service is asked for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Miss,
    /// In the foreground.
    Validation,
    Background,
    Bypass,
}

impl Purpose {
    const ALL: usize = Self::Bypass as usize + 1;

    /// That of a request with the cache's own conditions, or none.
    fn of(visit: &Visit, headers: &HeaderMap) -> Self {
        if visit.is_answered() {
            return Self::Background;
        }
        let conditional =
            headers.contains_key(header::IF_NONE_MATCH) || headers.contains_key(header::IF_MODIFIED_SINCE);
        if visit.is_conditional() && conditional { Self::Validation } else { Self::Miss }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Validation => "validation",
            Self::Background => "background",
            Self::Bypass => "bypass",
        }
    }
}

impl HttpCache {
    /// An answer is on its way to its client.
    pub(super) fn count_answer(&self, report: &Report) {
        if report.late {
            return;
        }
        let known = (report.kind == Kind::Hit && !report.collapsed && report.forward.is_none()).then_some(FRESH_HIT);
        let (result, reason) = known.map_or_else(|| result_of(report), |index| FREQUENT[index]);
        let words = || [(&self.config.name).into(), result.into(), reason.into()];
        match known.or_else(|| FREQUENT.iter().position(|frequent| *frequent == (result, reason))) {
            Some(index) => self.config.counts.answers.count(index, &metrics::CACHE_REQUESTS, words),
            None => metrics::count(&metrics::CACHE_REQUESTS, words()),
        }
    }

    pub(super) fn lookup_span(&self, key: &PrimaryKey) -> Span {
        debug_span!("cache_lookup", cache = &*self.config.name, %key, outcome = Empty)
    }

    pub(super) fn count_not_stored(&self, reason: Reason) {
        self.not_stored(reason.detail);
    }

    /// Commits, and says how that ended.
    pub(super) async fn commit(&self, commit: Commit<'_>) -> Result<Committed, BackendError> {
        let (cache, key, entry) = (&*self.config.name, commit.key, Arc::clone(&commit.entry));
        let span = debug_span!("commit", cache, %key, bytes = entry.body().len(), outcome = Empty);
        let committed = self.state.backend.commit(commit).instrument(span.clone()).await;
        span.record("outcome", committed.as_ref().map_or_else(|error| error.kind().as_str(), |done| done.as_str()));
        self.count_commit(&entry, &committed);
        committed
    }

    fn count_commit(&self, entry: &Entry, committed: &Result<Committed, BackendError>) {
        let stored = |how: &'static str| {
            metrics::count(&metrics::CACHE_STORED, [(&self.config.name).into(), how.into()]);
        };
        match committed {
            Ok(Committed::Stored) => {
                stored("stored");
                let bytes = entry.body().len() as f64;
                metrics::observe(&metrics::CACHE_STORED_BYTES, [(&self.config.name).into()], bytes);
            }
            Ok(Committed::Refreshed) => stored("refreshed"),
            Ok(committed) => self.not_stored(committed.as_str()),
            Err(error) if error.is_outage() => self.count_not_stored(Reason::BACKEND),
            Err(error) => self.not_stored(error.kind().as_str()),
        }
    }

    fn not_stored(&self, reason: &'static str) {
        metrics::count(&metrics::CACHE_NOT_STORED, [(&self.config.name).into(), reason.into()]);
    }

    pub(super) fn count_revalidation(&self, outcome: &'static str) {
        metrics::count(&metrics::REVALIDATIONS, [(&self.config.name).into(), outcome.into()]);
    }

    /// One that has begun, in its span.
    pub(super) fn end_revalidation(&self, span: &Span, outcome: &'static str) {
        span.record("outcome", outcome);
        self.count_revalidation(outcome);
    }

    pub(super) fn count_value(&self, result: &'static str) {
        metrics::count(&metrics::CACHE_VALUES, [(&self.config.name).into(), result.into()]);
    }

    pub(super) fn count_invalidation(&self, scope: Scope<'_>, mode: Mode, done: bool) {
        let scope = match scope {
            Scope::Tags(_) => "tags",
            Scope::Keys(_) => "urls",
            Scope::All => "all",
        };
        let outcome = if done { "done" } else { "failed" };
        let words = [(&self.config.name).into(), scope.into(), mode.as_str().into(), outcome.into()];
        metrics::count(&metrics::INVALIDATIONS, words);
    }

    /// The inner service is asked. Layers may stand in each other: the innermost of them counts.
    pub(super) fn ask_inner<'a>(&'a self, visit: &'a Visit, headers: &HeaderMap) -> AskedInner<'a> {
        let asked = self.config.ask_for(Some(&visit.key), Purpose::of(visit, headers));
        AskedInner { cache: self, visit, asked, is_open: true }
    }

    /// Asks for one request only, and touches nothing.
    pub(super) async fn ask_alone<S, B, R>(
        &self,
        visit: &Visit,
        inner: S,
        request: Request<B>,
    ) -> Result<Response<CacheBody<R>>, S::Error>
    where
        S: Origin<B, R>,
    {
        let asking = self.ask_inner(visit, request.headers());
        let outcome = oneshot(inner, request).instrument(asking.span()).await;
        asking.ended(&outcome);
        outcome.map(|response| response.map(CacheBody::inner))
    }
}

impl Config {
    /// The inner service is asked without a look-up.
    pub(super) fn count_bypass(&self, bypass: Bypass) -> AskedFor {
        let words = || [(&self.name).into(), "bypass".into(), bypass.as_str().into()];
        self.counts.bypasses.count(bypass as usize, &metrics::CACHE_REQUESTS, words);
        self.ask_for(None, Purpose::Bypass)
    }

    fn ask_for(&self, key: Option<&PrimaryKey>, purpose: Purpose) -> AskedFor {
        let (cache, key) = (&*self.name, key.map(tracing::field::display));
        let span = debug_span!("origin_fetch", cache, key, purpose = purpose.as_str(), status = Empty);
        let words = || [(&self.name).into(), purpose.as_str().into()];
        let since = self.counts.seconds.start(purpose as usize, &metrics::ORIGIN_SECONDS, words);
        AskedFor { purpose, since, span }
    }

    /// A request to the inner service has ended.
    pub(super) fn count_asked(&self, asked: &AskedFor, ended: Ended) {
        record(&asked.span, "status", ended.as_str());
        let (purpose, index) = (asked.purpose.as_str(), asked.purpose as usize);
        let words = || [(&self.name).into(), purpose.into(), ended.as_str().into()];
        self.counts.asked.count(index * Ended::ALL + ended as usize, &metrics::ORIGIN_REQUESTS, words);
        let words = || [(&self.name).into(), purpose.into()];
        self.counts.seconds.observe(index, &metrics::ORIGIN_SECONDS, words, asked.since);
    }
}

/// What the inner service is asked for, and since when.
pub(super) struct AskedFor {
    purpose: Purpose,
    since: Stopwatch,
    span: Span,
}

impl AskedFor {
    /// Around the request.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }
}

/// A request to the inner service; counts as given up when it is dropped before it has ended.
#[must_use]
pub(super) struct AskedInner<'a> {
    cache: &'a HttpCache,
    visit: &'a Visit,
    asked: AskedFor,
    is_open: bool,
}

impl AskedInner<'_> {
    /// Around the request.
    pub(super) fn span(&self) -> Span {
        self.asked.span.clone()
    }

    /// The head of the answer is there, or there will be none.
    pub(super) fn ended<R, E>(mut self, outcome: &Result<Response<R>, E>) {
        if let Ok(response) = outcome
            && self.cache.has_answered(response)
        {
            // A layer of this cache within had the answer.
            self.is_open = false;
            record(&self.asked.span, "status", "not-asked");
        } else {
            self.end(Ended::of(outcome));
        }
    }

    fn end(&mut self, ended: Ended) {
        self.is_open = false;
        if self.visit.set_counted() {
            self.cache.config.count_asked(&self.asked, ended);
        } else {
            record(&self.asked.span, "status", ended.as_str());
        }
    }
}

impl Drop for AskedInner<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.end(Ended::GivenUp);
        }
    }
}

pub(super) fn lookup_ended(span: &Span, lookup: &Lookup) {
    record(span, "outcome", if lookup.found.is_some() { "found" } else { "nothing" });
}

/// What a request came to, and why.
fn result_of(report: &Report) -> (&'static str, &'static str) {
    let forward = report.forward.map_or("fresh", Forward::as_str);
    match report.kind {
        Kind::Hit if report.collapsed => ("coalesced", "filled"),
        Kind::Stale if report.collapsed => ("coalesced", report.detail.unwrap_or("stale")),
        _ if report.collapsed => ("coalesced", "in-flight"),
        Kind::Hit => ("hit", forward),
        Kind::Stale => ("stale", report.detail.unwrap_or("max-stale")),
        Kind::Revalidated => ("revalidated", forward),
        Kind::Miss => match report.detail {
            // Answers of our own.
            Some(detail @ ("only-if-cached" | "failed")) => ("miss", detail),
            _ => ("miss", forward),
        },
    }
}
