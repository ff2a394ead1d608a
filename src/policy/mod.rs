//! What HTTP says about caching, decided from heads and times alone (RFC 9110, 9111, 5861, 8246, 9211, 9213, 9875).
//!
//! Nothing in here waits, reads a clock or knows a store: `now` is an argument. The way of a response through it:
//!
//! 1. [`Policy::storable`] judges an answer of the origin (RFC 9111 §3) and yields [`Store`]: the [`Meta`] that is
//!    kept with it, or the [`NotStored`] reason.
//! 2. [`Store::prepare`] drops what must not be stored from the head.
//! 3. [`Policy::reuse`] judges the stored response for a request (§4).
//! 4. [`validation`] makes the conditions for the origin, merges its 304 and answers the client's own conditions;
//!    [`range`] serves parts; [`invalidation`] says what an unsafe method invalidates (§4.4).

pub(crate) mod age;
pub(crate) mod cache_control;
pub(crate) mod cache_status;
pub(crate) mod date;
pub(crate) mod freshness;
pub(crate) mod glance;
pub(crate) mod hop_by_hop;
pub(crate) mod invalidation;
pub(crate) mod lists;
pub(crate) mod range;
pub(crate) mod reuse;
pub(crate) mod storable;
pub(crate) mod tags;
pub(crate) mod targeted;
pub(crate) mod validation;
pub(crate) mod vary;

mod meta;

#[cfg(test)]
mod tests;

use std::time::Duration;

use http::HeaderName;

pub(crate) use cache_control::{MaxStale, RequestDirectives, ResponseDirectives};
pub(crate) use meta::{Flags, Meta};
pub(crate) use reuse::{Reuse, Stale, Timing, Why};
pub(crate) use storable::{Credentials, Exchange, Lifetimes, NotStored, Store};

/// How closely the cache follows RFC 9111 where caution and the RFC differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Profile {
    /// Follows the RFC, but never stores a response with `Set-Cookie`, whatever it says about itself, and guesses no
    /// lifetime from `Last-Modified` for requests with credentials or cookies, unless a rule is
    /// [`shareable`](crate::Rule::shareable).
    #[default]
    Safe,
    /// Follows the RFC to the letter: `Set-Cookie` does not keep a response from being stored (RFC 9111 §7.3), and what
    /// is guessed from `Last-Modified` holds for requests with cookies, too.
    Rfc9111,
}

/// The settings of the policy; the same for all requests of one cache.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// The profile.
    pub(crate) profile: Profile,
    /// Targeted fields (RFC 9213), the most specific first.
    pub(crate) targeted: Vec<HeaderName>,
    /// Request fields that say who is asking. They count like `Authorization`.
    pub(crate) identity: Vec<HeaderName>,
    /// Whether `Cache-Control` and `Pragma` of requests are obeyed.
    pub(crate) obey_requests: bool,
    /// Whether `s-maxage` forbids stale answers even where the response allows them explicitly (RFC 9111 §5.2.2.10).
    pub(crate) strict: bool,
    /// How long a response is kept once it is stale: to validate it, or to stand in for a failing origin.
    pub(crate) keep_stale: Duration,
}

impl Policy {
    /// The default of [`Policy::keep_stale`].
    pub(crate) const KEEP_STALE: Duration = Duration::from_hours(1);
    /// By which a gateway says who asks.
    pub(crate) const SESSION: HeaderName = HeaderName::from_static("x-session");
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            profile: Profile::Safe,
            targeted: vec![HeaderName::from_static("cdn-cache-control")],
            identity: vec![Self::SESSION],
            obey_requests: true,
            strict: false,
            keep_stale: Self::KEEP_STALE,
        }
    }
}
