//! Whether a response may be stored (RFC 9111 §3), and what is kept with it.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::{Flags, Meta, Policy, Profile, RequestDirectives, ResponseDirectives, age, date, freshness::Ruling};
use super::{freshness, hop_by_hop, vary};
use crate::{Timestamp, backend::VarySpec};

/// A request and the head of the origin's answer to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange<'a> {
    pub(crate) method: &'a Method,
    /// Whether the key covers the request's body, so that it may be answered from the cache whatever its method.
    pub(crate) body_keyed: bool,
    pub(crate) request: &'a HeaderMap,
    pub(crate) status: StatusCode,
    pub(crate) response: &'a HeaderMap,
    /// When the request was sent to the origin.
    pub(crate) requested: Timestamp,
    /// When the head of the answer arrived.
    pub(crate) received: Timestamp,
}

/// What the user says about lifetimes, from the cache's settings and the rules that match the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lifetimes {
    /// For responses that state no lifetime. Never for requests with credentials, nor for event streams.
    pub(crate) default_ttl: Option<Duration>,
    /// In place of all that the response says about its lifetime; `no-store` and `private` still hold.
    pub(crate) override_ttl: Option<Duration>,
    /// Where the response has no such directive.
    pub(crate) stale_while_revalidate: Option<Duration>,
    /// Where the response has no such directive.
    pub(crate) stale_if_error: Option<Duration>,
    /// The user vouches that everybody gets the same answer, whatever credentials the request carries.
    pub(crate) shareable: bool,
}

/// Which credentials a request carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) authorization: bool,
    pub(crate) cookie: bool,
    pub(crate) identity: bool,
}

impl Credentials {
    /// Looks for `Authorization`, `Cookie` and the identity fields.
    pub(crate) fn of(request: &HeaderMap, identity: &[HeaderName]) -> Self {
        Self {
            authorization: request.contains_key(header::AUTHORIZATION),
            cookie: request.contains_key(header::COOKIE),
            identity: identity.iter().any(|name| request.contains_key(name)),
        }
    }

    /// Whether there are any.
    pub(crate) fn any(self) -> bool {
        self.authorization || self.cookie || self.identity
    }
}

/// Why a response is not stored. [`NotStored::as_str`] is what `Cache-Status` shows as `detail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub(crate) enum NotStored {
    /// The method's answers are not stored (RFC 9110 §9.2.3).
    Method,
    /// The client said `no-store`.
    RequestNoStore,
    /// The status is informational, 304, not understood though it must be, or must not be stored (RFC 6585).
    Status,
    /// A part of a representation.
    Partial,
    /// The response says `no-store`.
    NoStore,
    /// The response says `private`.
    Private,
    /// `Set-Cookie`, in the safe profile.
    SetCookie,
    /// The request had `Authorization`, and the response does not say that it is for all (§3.5).
    Authorization,
    /// The request had an identity field, and the response does not say that it is for all.
    Identity,
    /// It states no lifetime, and the request had a cookie, without which one of ours would have been given.
    Cookie,
    /// `Vary: *`
    VaryStar,
    /// `Vary` with too many names, or with what is no name.
    VaryNames,
    /// It is in another content coding than its variant stands for.
    ContentEncoding,
    /// It states no lifetime, and none can be guessed.
    NoFreshness,
    /// It is stale on arrival and nothing could make use of it.
    Expired,
    /// `no-cache`, and it has no validator.
    NoCache,
}

impl NotStored {
    /// A short name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::RequestNoStore => "request-no-store",
            Self::Status => "status",
            Self::Partial => "partial",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::SetCookie => "set-cookie",
            Self::Authorization => "authorization",
            Self::Identity => "identity",
            Self::Cookie => "cookie",
            Self::VaryStar => "vary-star",
            Self::VaryNames => "vary-names",
            Self::ContentEncoding => "content-encoding",
            Self::NoFreshness => "no-freshness",
            Self::Expired => "expired",
            Self::NoCache => "no-cache",
        }
    }
}

/// The decision to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Store {
    /// What is kept with the response.
    pub(crate) meta: Meta,
    /// What selects the variant.
    pub(crate) vary: VarySpec,
    /// Fields that must not be stored (`private="…"`, `no-cache="…"`).
    strip: Vec<HeaderName>,
    set_cookie: bool,
    is_event_stream: bool,
}

impl Store {
    /// Makes the head of the response one that may be stored: without hop-by-hop fields, without `Age` (it is made
    /// anew on each hit) and the fields that the response reserves, with a `Date` (RFC 9110 §6.6.1).
    pub(crate) fn prepare(&self, headers: &mut HeaderMap) {
        hop_by_hop::remove(headers);
        headers.remove(header::AGE);
        for name in &self.strip {
            headers.remove(name);
        }
        if !headers.contains_key(header::DATE) {
            headers.insert(header::DATE, date::format(self.meta.response_time));
        }
    }

    /// Whether a request that waited for this answer may get it, if it has the same key and variant: whether it could
    /// reuse it from a shared cache this very moment. With credentials of its own it may only where everybody may. An
    /// event stream tells each client what happens from now on.
    pub(crate) fn for_followers(&self, follower: Credentials) -> bool {
        let fresh = self.meta.lifetime > self.meta.initial_age && !self.meta.flags.has(Flags::NO_CACHE);
        fresh && !self.set_cookie && !self.is_event_stream && (!follower.any() || self.meta.flags.has(Flags::PUBLIC))
    }
}

impl Policy {
    /// Judges an answer of the origin. A 304 is judged after it was merged into what is stored
    /// ([`validation::merge`](super::validation::merge)), with the stored status.
    pub(crate) fn storable(&self, exchange: &Exchange<'_>, rule: &Lifetimes) -> Result<Store, NotStored> {
        let Exchange { method, request, response, status, .. } = *exchange;
        if *method != Method::GET && !exchange.body_keyed {
            return Err(NotStored::Method);
        }
        if self.obey_requests && RequestDirectives::from_headers(request).is_some_and(|d| d.no_store) {
            return Err(NotStored::RequestNoStore);
        }
        if status == StatusCode::PARTIAL_CONTENT {
            return Err(NotStored::Partial);
        }
        // Answers about one client's conduct (RFC 6585), its conditions, its Range or its Expect are not for others,
        // whatever their Cache-Control says.
        if status.is_informational() || matches!(status.as_u16(), 304 | 412 | 416 | 417 | 428 | 429 | 431 | 511) {
            return Err(NotStored::Status);
        }

        let credentials = Credentials::of(request, &self.identity);
        let is_event_stream = is_event_stream(response);
        let is_usual = !is_event_stream && usual(status);
        let own_ttl = (rule.shareable || !credentials.any()) && is_usual;
        let override_ttl = rule.override_ttl.filter(|_| own_ttl);
        let mut ruling = Ruling::of(response, &self.targeted);
        if override_ttl.is_some() {
            // A rule overrides lifetimes. What must not be shared is still not shared.
            let said = ruling.directives;
            let directives = ResponseDirectives {
                no_store: said.no_store,
                private: said.private,
                private_fields: said.private_fields,
                no_cache_fields: said.no_cache_fields,
                must_understand: said.must_understand,
                ..ResponseDirectives::default()
            };
            ruling = Ruling { directives, targeted: true };
        }
        let said = &ruling.directives;
        // §5.2.2.3: whoever understands the status may ignore no-store; whoever does not must not store.
        let understood = status.canonical_reason().is_some();
        if said.must_understand && !understood {
            return Err(NotStored::Status);
        }
        if said.no_store && !said.must_understand {
            return Err(NotStored::NoStore);
        }
        if said.private {
            return Err(NotStored::Private);
        }
        let mut strip = said.private_fields.clone();
        strip.extend(said.no_cache_fields.iter().cloned());
        let set_cookie = response.contains_key(header::SET_COOKIE) && !strip.contains(&header::SET_COOKIE);
        if set_cookie && self.profile == Profile::Safe {
            return Err(NotStored::SetCookie);
        }
        let public = rule.shareable || said.public || said.s_maxage.is_some();
        let shareable = rule.shareable || said.allows_credentials();
        if credentials.authorization && !shareable {
            return Err(NotStored::Authorization);
        }
        if credentials.identity && !public {
            return Err(NotStored::Identity);
        }
        let vary = vary::spec(response)?;

        let validator = response.contains_key(header::ETAG) || response.contains_key(header::LAST_MODIFIED);
        let mut flags = Flags::default();
        let lifetime = if let Some(ttl) = override_ttl {
            flags.set(Flags::OVERRIDE, true);
            ttl
        } else if let Some(ttl) = ruling.explicit(response, exchange.received) {
            ttl
        } else if let Some(ttl) = rule.default_ttl.filter(|_| own_ttl) {
            flags.set(Flags::DEFAULT_TTL, true);
            ttl
        } else if let Some(ttl) = ruling
            .heuristic(status, response, exchange.received)
            .filter(|_| self.profile == Profile::Rfc9111 || rule.shareable || !credentials.any())
        {
            flags.set(Flags::HEURISTIC, true);
            ttl
        } else if said.no_cache && validator {
            Duration::ZERO
        } else if credentials.cookie && is_usual && rule.override_ttl.or(rule.default_ttl).is_some() {
            return Err(NotStored::Cookie);
        } else {
            return Err(NotStored::NoFreshness);
        };
        flags.set(Flags::MUST_REVALIDATE, said.must_revalidate);
        flags.set(Flags::PROXY_REVALIDATE, said.proxy_revalidate);
        flags.set(Flags::NO_CACHE, said.no_cache);
        flags.set(Flags::S_MAXAGE, said.s_maxage.is_some());
        flags.set(Flags::SHAREABLE, shareable);
        flags.set(Flags::PUBLIC, public);
        flags.set(Flags::VALIDATOR, validator);

        let initial_age = if override_ttl.is_some() {
            // The rule counts from now: what the origin says about ages is part of what it overrides.
            exchange.received.since(exchange.requested)
        } else {
            age::initial(response, exchange.requested, exchange.received)
        };
        let (stale_while_revalidate, stale_if_error, asked_for) = self.windows(said, rule);
        let meta = Meta {
            response_time: exchange.received,
            initial_age,
            lifetime,
            stale_while_revalidate,
            stale_if_error,
            flags,
        };
        if !validator && !asked_for {
            if said.no_cache {
                return Err(NotStored::NoCache);
            }
            if lifetime <= initial_age {
                return Err(NotStored::Expired);
            }
        }
        Ok(Store { meta, vary, strip, set_cookie, is_event_stream })
    }

    /// For how long stale answers may be given while validating and on errors (§4.2.4, RFC 5861), and whether anybody
    /// asked for it.
    ///
    /// `must-revalidate`, `proxy-revalidate` and `no-cache` forbid both. So does `s-maxage` (§5.2.2.10), but an origin
    /// that sends it together with an explicit window means the window, unless the policy is strict.
    fn windows(&self, said: &ResponseDirectives, rule: &Lifetimes) -> (Duration, Duration, bool) {
        if said.must_revalidate || said.proxy_revalidate || said.no_cache || self.strict && said.s_maxage.is_some() {
            return (Duration::ZERO, Duration::ZERO, false);
        }
        let rule = if said.s_maxage.is_some() { &Lifetimes::default() } else { rule };
        let revalidate = said.stale_while_revalidate.or(rule.stale_while_revalidate);
        let error = said.stale_if_error.or(rule.stale_if_error);
        let asked_for = revalidate.max(error).is_some_and(|window| !window.is_zero());
        // Nobody forbade it: stale is better than an error for as long as it is kept.
        let kept = if said.s_maxage.is_some() { Duration::ZERO } else { self.keep_stale };
        (revalidate.unwrap_or_default(), error.unwrap_or(kept), asked_for)
    }
}

/// Whether the user's own lifetimes cover the status: final answers about the resource, no failures.
fn usual(status: StatusCode) -> bool {
    freshness::heuristically_cacheable(status) && !status.is_server_error() && !matches!(status.as_u16(), 405 | 414)
}

fn is_event_stream(response: &HeaderMap) -> bool {
    let value = response.get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let name = b"text/event-stream";
    value.len() >= name.len()
        && value[..name.len()].eq_ignore_ascii_case(name)
        && matches!(value.get(name.len()), None | Some(b';' | b' ' | b'\t'))
}
