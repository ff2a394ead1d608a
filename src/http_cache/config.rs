//! The settings of a cache, and the setters for them.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, Response};

use super::{
    HttpCache,
    count::Counts,
    rule::{PathTable, Rule, RuleError},
    status::BypassValues,
};
use crate::{
    bounds::within,
    exchange::{Answered, CacheId},
    key::{KeyScheme, Query},
    policy::{Policy, Profile, cache_status::is_token, vary::Normalisers},
};

#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Config {
    pub(crate) name: Arc<str>,
    pub(crate) keys: KeyScheme,
    pub(crate) paths: PathTable,
    pub(crate) policy: Policy,
    pub(crate) default_ttl: Option<Duration>,
    pub(crate) normalise: Normalisers,
    pub(crate) max_body: usize,
    pub(crate) strip_tags: bool,
    pub(crate) tag_path_prefixes: bool,
    pub(crate) cache_status: bool,
    pub(crate) key_in_status: bool,
    pub(crate) x_cache: bool,
    pub(crate) coalesce: CoalesceSettings,
    pub(crate) stale: StaleSettings,
    pub(crate) counts: Counts,
    pub(super) bypasses: BypassValues,
    #[cfg(feature = "compression")]
    pub(super) compression: Option<super::Compression>,
}

/// How misses are collapsed.
#[derive(Clone, Debug)]
pub(crate) struct CoalesceSettings {
    pub(crate) lease: Duration,
    pub(crate) wait: Duration,
    pub(crate) uncacheable: Duration,
    pub(crate) hold_errors: Duration,
}

/// How stale responses are used.
#[derive(Clone, Debug)]
pub(crate) struct StaleSettings {
    pub(crate) soft_timeout: Option<Duration>,
    pub(crate) revalidation_timeout: Duration,
    pub(crate) revalidations: usize,
    pub(crate) revalidations_per_origin: usize,
    pub(crate) backoff: (Duration, Duration),
    pub(crate) jitter: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "gatehouse".into(),
            keys: KeyScheme::default(),
            paths: PathTable::default(),
            policy: Policy::default(),
            default_ttl: None,
            normalise: Normalisers::default(),
            max_body: 1024 * 1024,
            strip_tags: true,
            tag_path_prefixes: false,
            cache_status: true,
            key_in_status: false,
            x_cache: true,
            coalesce: CoalesceSettings {
                lease: Duration::from_secs(3),
                wait: Duration::from_secs(5),
                uncacheable: Duration::from_secs(10),
                hold_errors: Duration::ZERO,
            },
            stale: StaleSettings {
                soft_timeout: None,
                revalidation_timeout: Duration::from_secs(30),
                revalidations: 256,
                revalidations_per_origin: 64,
                backoff: (Duration::from_secs(1), Duration::from_secs(30)),
                jitter: 0.0,
            },
            counts: Counts::default(),
            bypasses: BypassValues::default(),
            #[cfg(feature = "compression")]
            compression: None,
        }
    }
}

impl Config {
    /// Tells a cache from others.
    pub(super) fn id(self: &Arc<Self>) -> CacheId {
        CacheId(Arc::as_ptr(self) as usize)
    }

    /// Whether a layer of the cache has made an answer what it is.
    pub(super) fn has_answered<R>(self: &Arc<Self>, response: &Response<R>) -> bool {
        response.extensions().get().is_some_and(|answered: &Answered| answered.by == self.id())
    }
}

impl HttpCache {
    pub(super) fn set(mut self, set: impl FnOnce(&mut Config)) -> Self {
        set(Arc::make_mut(&mut self.config));
        self
    }

    /// The name in `Cache-Status`; `gatehouse` unless set.
    ///
    /// # Panics
    /// If it is not a token (RFC 9651 §3.3.4), which begins with a letter.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        assert!(is_token(name), "the name of a cache is a token that begins with a letter");
        self.set(|config| config.name = name.into())
    }

    /// Usual answers without explicit freshness are fresh for this long: those of the status 200, 203, 204, 300, 301,
    /// 308, 404 or 410, but for event streams (`text/event-stream`). Unless it is set, only answers with
    /// `Last-Modified` are fresh, for a tenth of the time since then, at most a day (RFC 9111 §4.2.2).
    ///
    /// Never for requests with `Authorization`, `Cookie` or a field of [`HttpCache::identity_fields`], in both
    /// directions: their responses are not stored by it, and they are not served what was stored by it; unless a rule
    /// says that they are [`shareable`](crate::Rule::shareable).
    #[must_use]
    pub fn default_ttl(self, lifetime: Duration) -> Self {
        self.set(|config| config.default_ttl = Some(bounded(lifetime)))
    }

    /// How strictly HTTP's rules are followed where they are lax; [`Profile::Safe`](crate::Profile) unless set.
    #[must_use]
    pub fn profile(self, profile: Profile) -> Self {
        self.set(|config| config.policy.profile = profile)
    }

    /// Which part of the query selects the response; all of it, as it was sent, unless set.
    #[must_use]
    pub fn query(self, query: Query) -> Self {
        self.set(|config| config.keys.query = query)
    }

    /// Request fields whose values are part of every key, as if all responses had them in `Vary`.
    #[must_use]
    pub fn key_headers(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.set(|config| config.keys.headers = names.into_iter().collect())
    }

    /// A word before every key and tag: caches with different scopes on one backend share nothing. Needed where the
    /// path is not all of what is asked for: two routers with one path each under different prefixes that the outer
    /// router strips (with the feature `axum`, its `nest` needs none).
    #[must_use]
    pub fn scope(self, scope: &str) -> Self {
        self.set(|config| config.keys.scope = scope.into())
    }

    /// All hosts and schemes share their responses: for one site under several names. Only where the application
    /// answers all of them alike, or one host's answer is served for another.
    #[must_use]
    pub fn any_host(self) -> Self {
        self.set(|config| config.keys.any_host = true)
    }

    /// Says how the responses of a path are cached. Patterns are those of axum's routes: `/products/{id}`,
    /// `/admin/{*rest}`; the most special one is taken.
    pub fn rule(mut self, pattern: &str, rule: Rule) -> Result<Self, RuleError> {
        Arc::make_mut(&mut self.config).paths.insert(pattern, rule)?;
        Ok(self)
    }

    /// The content codings that the inner service makes, best first: where responses vary by `Accept-Encoding`, it
    /// then counts as the first of them that it accepts. Fewer variants, for services that choose in this order; what is in
    /// another coding is not stored.
    #[must_use]
    pub fn encodings<'a>(self, codings: impl IntoIterator<Item = &'a str>) -> Self {
        let codings = codings.into_iter().map(str::to_ascii_lowercase).collect();
        self.set(|config| config.normalise.encodings = codings)
    }

    /// The languages that the inner service has, its default first: where responses vary by `Accept-Language`, it then
    /// counts as the one of them that it prefers (RFC 4647 §3.4). Fewer variants, for services that choose like this.
    #[must_use]
    pub fn languages<'a>(self, languages: impl IntoIterator<Item = &'a str>) -> Self {
        let languages = languages.into_iter().map(str::to_ascii_lowercase).collect();
        self.set(|config| config.normalise.languages = languages)
    }

    /// For how long responses are kept once they are stale, where nothing says more: to be validated, or to stand in
    /// for a failing origin; 1 h unless set.
    #[must_use]
    pub fn keep_stale(self, duration: Duration) -> Self {
        self.set(|config| config.policy.keep_stale = bounded(duration))
    }

    /// The largest content that is stored, in bytes; 1 MiB unless set. Larger responses stream through.
    #[must_use]
    pub fn max_body(self, bytes: usize) -> Self {
        self.set(|config| config.max_body = bytes)
    }

    /// The targeted fields (RFC 9213) that this cache obeys, the first one first; `CDN-Cache-Control` unless set.
    #[must_use]
    pub fn targeted(self, fields: impl IntoIterator<Item = HeaderName>) -> Self {
        self.set(|config| config.policy.targeted = fields.into_iter().collect())
    }

    /// Request fields that say who asks, besides `Authorization`, `Cookie` and `x-session`; none unless set.
    #[must_use]
    pub fn identity_fields(self, fields: impl IntoIterator<Item = HeaderName>) -> Self {
        self.set(|config| config.policy.identity = fields.into_iter().chain([Policy::SESSION]).collect())
    }

    /// Clients cannot force a request to the origin by `Cache-Control` or `Pragma`: useful where they are not
    /// trusted with the origin's load. RFC 9111 wants them obeyed, so they are unless set.
    #[must_use]
    pub fn ignore_request_directives(self) -> Self {
        self.set(|config| config.policy.obey_requests = false)
    }

    /// `s-maxage` forbids stale answers (RFC 9111 §4.2.4 through §5.2.2.10) even where the response explicitly allows
    /// them by `stale-while-revalidate` or `stale-if-error`; unless set, the explicit permission wins.
    #[must_use]
    pub fn strict_stale(self) -> Self {
        self.set(|config| config.policy.strict = true)
    }

    /// Fields that carry tags go on to clients; they are stripped unless set.
    #[must_use]
    pub fn expose_tags(self) -> Self {
        self.set(|config| config.strip_tags = false)
    }

    /// Every response carries a tag for each prefix of its path, so that
    /// [`Invalidate::prefix`](crate::Invalidate::prefix) works. Costs one tag for each segment of the path and one for
    /// the empty prefix, at most 33.
    #[must_use]
    pub fn tag_path_prefixes(self) -> Self {
        self.set(|config| config.tag_path_prefixes = true)
    }

    /// Leaves out `Cache-Status` (RFC 9211) and `X-Cache`.
    #[must_use]
    pub fn without_status_fields(self) -> Self {
        self.set(|config| {
            config.cache_status = false;
            config.x_cache = false;
        })
    }

    /// `Cache-Status` names the key, for debugging.
    #[must_use]
    pub fn key_in_status(self) -> Self {
        self.set(|config| config.key_in_status = true)
    }

    /// How long a process that asks the origin for the fleet keeps the others waiting if it dies; 3 s unless set. It
    /// renews itself every third of this.
    #[must_use]
    pub fn lease(self, ttl: Duration) -> Self {
        self.set(|config| config.coalesce.lease = bounded(ttl).max(Duration::from_millis(30)))
    }

    /// How long a process waits for another one's answer before it asks the origin itself; 5 s unless set.
    #[must_use]
    pub fn wait(self, at_most: Duration) -> Self {
        self.set(|config| config.coalesce.wait = bounded(at_most))
    }

    /// How long a key is remembered as uncacheable, so that its requests do not wait for each other; 10 s unless set,
    /// at most 30 s.
    #[must_use]
    pub fn remember_uncacheable(self, duration: Duration) -> Self {
        let duration = within("remember_uncacheable", duration, Duration::ZERO..=Duration::from_secs(30));
        self.set(|config| config.coalesce.uncacheable = duration)
    }

    /// How long an error of the origin also answers those who come after it; 0 unless set: it answers those who
    /// wait.
    #[must_use]
    pub fn hold_errors(self, duration: Duration) -> Self {
        self.set(|config| config.coalesce.hold_errors = bounded(duration))
    }

    /// After how long a client gets a stale answer, where one is allowed, while the origin's goes on; not unless set.
    #[must_use]
    pub fn soft_timeout(self, after: Duration) -> Self {
        self.set(|config| config.stale.soft_timeout = Some(bounded(after)))
    }

    /// The longest background revalidation, and how long a request that may change something goes on when its client
    /// has left; 30 s unless set.
    #[must_use]
    pub fn revalidation_timeout(self, timeout: Duration) -> Self {
        self.set(|config| config.stale.revalidation_timeout = bounded(timeout))
    }

    /// The most requests to the origin at a time in this process that go on without a client (background
    /// revalidations, fills whose client has left, and requests that may change something whose client has left), in all
    /// and, of the revalidations, for one origin; 256 and 64 unless set. What is beyond is broken off, fills after a
    /// second. Of a request that may have changed something, what it names becomes stale then: its URL by a cache layer,
    /// the tags of its route by a [`TagInvalidationLayer`](crate::TagInvalidationLayer).
    #[must_use]
    pub fn revalidations(self, in_all: usize, per_origin: usize) -> Self {
        self.set(|config| {
            config.stale.revalidations = in_all.min(tokio::sync::Semaphore::MAX_PERMITS);
            config.stale.revalidations_per_origin = per_origin;
        })
    }

    /// Shortens each lifetime by a random part of at most this fraction (0 to 0.5; 0 unless set), so that what was
    /// stored together does not become stale together.
    #[must_use]
    pub fn jitter(self, fraction: f64) -> Self {
        self.set(|config| config.stale.jitter = within("jitter", fraction, 0.0..=0.5))
    }
}

/// At most a year, so that no sum of times overflows.
pub(super) fn bounded(duration: Duration) -> Duration {
    duration.min(Duration::from_hours(365 * 24))
}
