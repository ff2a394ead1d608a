//! What the answer of a part says about storing it.

use std::{collections::BTreeSet, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header, response};

use super::context::Used;
use crate::{
    CacheStatus, CacheTags, Personal, Tag, Timestamp,
    policy::{
        ResponseDirectives, age,
        freshness::Ruling,
        lists,
        tags::{CACHE_TAG, EDGE_CACHE_TAG, SURROGATE_KEY, named_groups},
        targeted,
    },
};

/// The terms of one part.
#[allow(clippy::struct_excessive_bools, reason = "they are independent of each other, as the directives are")]
#[derive(Clone, Debug)]
pub(super) struct Caching {
    /// For nobody but who asked.
    pub(super) private: bool,
    pub(super) public: bool,
    /// For everybody, even where the request says who asks: `public` or `s-maxage`.
    pub(super) shareable: bool,
    pub(super) must_revalidate: bool,
    pub(super) proxy_revalidate: bool,
    /// `None` if it must not be stored, or says nothing of its freshness.
    pub(super) fresh: Option<Fresh>,
    /// How old it was when its head arrived.
    pub(super) age: Duration,
    pub(super) vary: Vary,
    pub(super) tags: Tags,
    /// The groups of RFC 9875.
    pub(super) groups: Vec<String>,
    /// A cache on the way says that it is stale.
    pub(super) stale: bool,
    /// It carries the mark of a personal answer.
    pub(super) personal: bool,
    /// It brings or ends a credential.
    pub(super) credential: bool,
}

/// Until which age an answer may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fresh {
    /// By shared caches.
    pub(super) shared: Duration,
    /// By the client's own.
    pub(super) own: Duration,
    /// By shared caches while they revalidate it (RFC 5861 §3).
    pub(super) while_revalidating: Duration,
    /// By shared caches if they cannot revalidate it (RFC 5861 §4).
    pub(super) on_error: Duration,
    /// Whether shared caches are given a lifetime of their own.
    pub(super) split: bool,
}

/// The request's fields by which answers differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Vary {
    Fields(BTreeSet<String>),
    /// `*`: an answer is for one request.
    Any,
}

/// The names by which an answer is invalidated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tags {
    These(BTreeSet<Tag>),
    /// One of them is not a [`Tag`]: it cannot be passed on, and to drop it would lose an invalidation.
    Unusable,
}

impl Caching {
    pub(super) fn new(answer: &response::Parts, used: &Used, requested: Timestamp, received: Timestamp) -> Self {
        let headers = &answer.headers;
        let directives = ResponseDirectives::from_headers(headers);
        let targeted = targeted::from_headers(headers, &[CDN_CACHE_CONTROL]);
        // The whole says everything in Cache-Control, so the stricter of both fields rules.
        let any = |says: fn(&ResponseDirectives) -> bool| says(&directives) || targeted.as_ref().is_some_and(says);
        // `private` and `no-cache` with names of fields concern those alone, and fields of parts are not passed on.
        let no_store = any(|directives| directives.no_store);
        let shareable = directives.public || directives.s_maxage.is_some();
        let mark = answer.extensions.get::<Personal>();
        let mut vary = vary(headers);
        if let Vary::Fields(names) = &mut vary {
            names.extend(used.fields.iter().map(|name| name.as_str().to_owned()));
        }
        Self {
            private: no_store
                || any(|directives| directives.private)
                || headers.contains_key(header::SET_COOKIE)
                || (used.identity && !shareable),
            public: directives.public,
            shareable,
            must_revalidate: any(|directives| directives.must_revalidate),
            proxy_revalidate: any(|directives| directives.proxy_revalidate),
            fresh: if no_store || any(|directives| directives.no_cache) {
                None
            } else {
                Fresh::new(headers, &directives, targeted.as_ref(), received)
            },
            age: age::initial(headers, requested, received),
            vary,
            tags: tags(answer),
            groups: named_groups(headers),
            stale: is_stale(headers),
            personal: mark.is_some_and(Personal::is_marked),
            credential: mark.is_some_and(Personal::is_credential),
        }
    }
}

impl Fresh {
    /// Longer than any other.
    pub(super) const FOREVER: Self = Self {
        shared: Duration::MAX,
        own: Duration::MAX,
        while_revalidating: Duration::MAX,
        on_error: Duration::MAX,
        split: false,
    };

    /// The explicit lifetimes of an answer; a heuristic one is not passed on, as the whole has no `Last-Modified`.
    fn new(
        headers: &HeaderMap,
        directives: &ResponseDirectives,
        targeted: Option<&ResponseDirectives>,
        received: Timestamp,
    ) -> Option<Self> {
        let explicit = |directives: &ResponseDirectives, targeted: bool| {
            Ruling { directives: directives.clone(), targeted }.explicit(headers, received)
        };
        let shared = match targeted {
            None => explicit(directives, false)?,
            Some(targeted) => match (explicit(directives, false), explicit(targeted, true)) {
                (Some(all), Some(ours)) => all.min(ours),
                (all, ours) => all.or(ours)?,
            },
        };
        let for_clients = ResponseDirectives { s_maxage: None, ..directives.clone() };
        let window = |says: fn(&ResponseDirectives) -> Option<Duration>| {
            shared.saturating_add(says(directives).unwrap_or(Duration::ZERO))
        };
        Some(Self {
            shared,
            own: explicit(&for_clients, false).unwrap_or(Duration::ZERO),
            while_revalidating: window(|directives| directives.stale_while_revalidate),
            on_error: window(|directives| directives.stale_if_error),
            split: directives.s_maxage.is_some() || targeted.is_some(),
        })
    }

    /// What is left of it when `age` has passed.
    pub(super) fn aged(self, age: Duration) -> Self {
        Self {
            shared: self.shared.saturating_sub(age),
            own: self.own.saturating_sub(age),
            while_revalidating: self.while_revalidating.saturating_sub(age),
            on_error: self.on_error.saturating_sub(age),
            split: self.split,
        }
    }

    /// For what consists of both.
    pub(super) fn min(self, other: Self) -> Self {
        Self {
            shared: self.shared.min(other.shared),
            own: self.own.min(other.own),
            while_revalidating: self.while_revalidating.min(other.while_revalidating),
            on_error: self.on_error.min(other.on_error),
            split: self.split || other.split,
        }
    }
}

/// Directives for caches such as those that are likely to stand outside (RFC 9213 §3.1).
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

fn vary(headers: &HeaderMap) -> Vary {
    let mut names = BTreeSet::new();
    for member in lists::field_members(headers, &header::VARY) {
        match HeaderName::from_bytes(member) {
            Ok(name) if name != "*" => names.insert(name.as_str().to_owned()),
            // Answers that cannot be told apart must not be mistaken for one another.
            _ => return Vary::Any,
        };
    }
    Vary::Fields(names)
}

fn tags(answer: &response::Parts) -> Tags {
    let fields = [(SURROGATE_KEY, &b" \t"[..]), (CACHE_TAG, b","), (EDGE_CACHE_TAG, b",")];
    let left = answer.extensions.get::<CacheTags>();
    let mut tags: BTreeSet<Tag> = left.into_iter().flat_map(|tags| tags.0.iter().cloned()).collect();
    for (field, separators) in fields {
        for line in answer.headers.get_all(&field) {
            let names = line.as_bytes().split(|byte| separators.contains(byte)).map(lists::trim);
            for name in names.filter(|name| !name.is_empty()) {
                match str::from_utf8(name).map(Tag::new) {
                    Ok(Ok(tag)) => tags.insert(tag),
                    _ => return Tags::Unusable,
                };
            }
        }
    }
    Tags::These(tags)
}

/// Whether a cache on the way says that the answer is stale: `Cache-Status` with a hit whose time to live has passed
/// (RFC 9211 §2.5), `X-Cache: STALE`, or `Warning` 110 or 111 (RFC 7234 §5.5).
fn is_stale(headers: &HeaderMap) -> bool {
    let first_words = |name| {
        let members = headers.get_all(name).into_iter().map(HeaderValue::as_bytes).flat_map(lists::members);
        members.filter_map(|member| member.split(|byte| matches!(byte, b' ' | b';')).next())
    };
    first_words("x-cache").any(|word| word.eq_ignore_ascii_case(b"stale"))
        || first_words("warning").any(|code| matches!(code, b"110" | b"111"))
        || CacheStatus::all(headers).iter().any(|cache| cache.is_hit() && cache.ttl().is_some_and(|ttl| ttl < 0))
}
