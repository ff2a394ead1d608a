//! Whether a stored response may answer a request (RFC 9111 §4).

use std::time::Duration;

use http::HeaderMap;

use super::{Credentials, Flags, MaxStale, Meta, Policy, Profile, RequestDirectives};
use crate::Timestamp;

/// What a stored response is worth for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// It answers the request.
    Fresh(Timing),
    /// It is stale and answers the request, because the client takes stale answers (`max-stale`).
    MaxStale(Timing),
    /// It answers the request once the origin has validated it.
    Stale(Stale),
    /// It is somebody else's, or was stored on a guess about anonymous requests: forward, as if nothing were stored.
    Foreign,
}

/// Age and remaining lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// The current age.
    pub(crate) age: Duration,
    /// Whole seconds of freshness left; negative once stale (RFC 9211 §2.4).
    pub(crate) ttl: i64,
}

/// What may be done with a response that has to be validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stale {
    /// Age and remaining lifetime.
    pub(crate) timing: Timing,
    /// Whether it may be given at once while it is validated in the background (RFC 5861 §3).
    pub(crate) while_revalidate: bool,
    /// Whether it may stand in when the origin fails (RFC 9111 §4.2.4, RFC 5861 §4).
    pub(crate) on_error: bool,
    /// Why it does not answer the request by itself.
    pub(crate) why: Why,
    /// The client wants 504 rather than a request to the origin (§5.2.1.7).
    pub(crate) only_if_cached: bool,
}

/// Why a stored response has to be validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub(crate) enum Why {
    /// Its lifetime has ended.
    Expired,
    /// It was softly invalidated.
    Invalidated,
    /// It says `no-cache`.
    NoCache,
    /// The request says `no-cache`, or `max-age` or `min-fresh` that it does not meet.
    Request,
}

impl Policy {
    /// The directives of a request, unless they are ignored. Costs two look-ups where there are none.
    pub(crate) fn request_directives(&self, request: &HeaderMap) -> Option<RequestDirectives> {
        if self.obey_requests { RequestDirectives::from_headers(request) } else { None }
    }

    /// Judges a stored response for a request.
    ///
    /// `stale_since` is when it was softly invalidated. The request's fields are only looked at where the stored
    /// response was stored on a guess.
    pub(crate) fn reuse(
        &self,
        meta: &Meta,
        request: &HeaderMap,
        directives: Option<&RequestDirectives>,
        now: Timestamp,
        stale_since: Option<Timestamp>,
    ) -> Reuse {
        if self.is_foreign(meta.flags, request) {
            return Reuse::Foreign;
        }
        let fresh_until = meta.fresh_until();
        // What was invalidated is stale at once, also where the store's clock has not moved on since.
        let end = stale_since.map_or(fresh_until, |soft| soft.min(fresh_until).min(now));
        let timing = Timing { age: meta.age(now), ttl: signed_seconds(now, end) };
        let fresh = now < end;
        let Some(directives) = directives else {
            return if fresh { Reuse::Fresh(timing) } else { Reuse::Stale(stale(meta, timing, now, end, stale_since)) };
        };

        let refused = directives.no_cache
            || directives.max_age.is_some_and(|most| timing.age > most)
            || directives.min_fresh.is_some_and(|least| fresh && end.since(now) < least);
        if fresh && !refused {
            return Reuse::Fresh(timing);
        }
        let late = now.since(end);
        let tolerated = match directives.max_stale {
            None => false,
            Some(MaxStale::Any) => true,
            Some(MaxStale::For(most)) => late <= most,
        };
        // min-fresh asks for more than fresh; max-stale does not take it back.
        if tolerated && !refused && directives.min_fresh.is_none() && !meta.forbids_stale() {
            return Reuse::MaxStale(timing);
        }
        let mut stale = stale(meta, timing, now, end, stale_since);
        let on_request = directives.stale_if_error.is_some_and(|most| late <= most) && !meta.forbids_stale();
        stale.on_error |= on_request;
        if refused {
            stale.why = Why::Request;
            stale.while_revalidate = false;
            stale.on_error &= !directives.no_cache;
        }
        stale.only_if_cached = directives.only_if_cached;
        Reuse::Stale(stale)
    }

    /// Whether the response was stored because of a guess that does not hold for requests with credentials.
    fn is_foreign(&self, flags: Flags, request: &HeaderMap) -> bool {
        let guessed = flags.any(Flags::DEFAULT_TTL | Flags::OVERRIDE | Flags::HEURISTIC);
        if !guessed || flags.has(Flags::PUBLIC) {
            return false;
        }
        let credentials = Credentials::of(request, &self.identity);
        // HTTP lets a heuristic lifetime stand for requests with cookies; the safe profile does not.
        let lax = self.profile == Profile::Rfc9111 && flags.has(Flags::HEURISTIC);
        credentials.authorization || credentials.identity || credentials.cookie && !lax
    }
}

fn stale(meta: &Meta, timing: Timing, now: Timestamp, end: Timestamp, stale_since: Option<Timestamp>) -> Stale {
    let late = now.since(end);
    let within = |window: Duration| !window.is_zero() && late <= window;
    let why = if meta.flags.has(Flags::NO_CACHE) {
        Why::NoCache
    } else if stale_since.is_some() && end < meta.fresh_until() {
        Why::Invalidated
    } else {
        Why::Expired
    };
    Stale {
        timing,
        while_revalidate: within(meta.stale_while_revalidate),
        on_error: within(meta.stale_if_error),
        why,
        only_if_cached: false,
    }
}

/// Whole seconds from `now` to `end`, towards zero; negative where `end` is past.
fn signed_seconds(now: Timestamp, end: Timestamp) -> i64 {
    let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    if now < end { seconds(end.since(now)) } else { -seconds(now.since(end)) }
}
