//! One request on its way through the cache layers.

use std::{
    borrow::Cow,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{HeaderMap, Method, Request, Response, Uri, header};
use http_body::Body;
use tracing::Instrument as _;

use super::{
    HttpCache,
    count::lookup_ended,
    personal::Marks,
    rule::{Parts, Rule},
};
use crate::{
    Personal,
    backend::{Entry, Lookup, PrimaryKey, Ticket, Variant, VarySpec},
    exchange::{Answered, CacheId, VisitId},
    key::{BodyKey, Target},
    policy::{self, Credentials, glance::Glance},
    refusal::is_grpc,
};

/// What the first cache layer that sees a request leaves in its extensions for the others: what was looked up, and
/// who stores the answer.
///
/// Extensions only save work: a layer that finds none derives everything again from the same [`HttpCache`].
pub(crate) struct Visit {
    id: VisitId,
    /// Whose it is; a layer of another cache does not use it.
    cache: CacheId,
    pub(crate) key: PrimaryKey,
    /// The request as the client sent it.
    pub(crate) head: Head,
    pub(crate) rule: Option<Arc<(Box<str>, Rule)>>,
    /// Whether the request says who asks.
    pub(crate) credentials: Credentials,
    /// Whether the answer depends on who asks, as the session layer outside knows when the answer has come.
    pub(crate) personal: Marks,
    /// What was found; `None` where the backend was out of reach.
    pub(crate) lookup: Option<Lookup>,
    claimed: AtomicBool,
    received: AtomicBool,
    caching: AtomicBool,
    conditional: AtomicBool,
    /// The request to the inner service was counted.
    counted: AtomicBool,
    /// It is a part of a flight of another cache, which has the same keys.
    nested: bool,
    /// The client has got a stale answer, and what is still to come is for the store alone.
    answered: AtomicBool,
}

/// The head of a request.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// Whether the key is more than the URL.
    pub(crate) keyed_beyond_url: bool,
    pub(crate) content_is_keyed: bool,
}

/// Why a request goes to the inner service without a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bypass {
    /// The method has no cacheable answers, or its content is not keyed.
    Method,
    /// A GET with content, whose answer may depend on it.
    Content,
    /// The connection becomes something else.
    Upgrade,
    /// gRPC.
    Grpc,
    /// Only the origin may evaluate its preconditions (RFC 9111 §4.3.2).
    Precondition,
    /// A rule says so.
    Rule,
    /// It is not clear which host is meant.
    Host,
}

impl Bypass {
    pub(crate) const ALL: usize = Self::Host as usize + 1;

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Content => "content",
            Self::Upgrade => "upgrade",
            Self::Grpc => "grpc",
            Self::Precondition => "precondition",
            Self::Rule => "rule",
            Self::Host => "host",
        }
    }
}

/// What is known of a request before the look-up.
pub(crate) struct Admitted {
    pub(crate) key: PrimaryKey,
    pub(crate) rule: Option<Arc<(Box<str>, Rule)>>,
    pub(crate) keyed_beyond_url: bool,
}

impl HttpCache {
    /// Decides whether a request is looked up, and under which key; and what there is to see of its fields.
    pub(crate) fn admit<'a, B: Body>(&self, request: &'a Request<B>) -> Result<(Admitted, Glance<'a>), Bypass> {
        let uri = &*target_uri(request.uri(), request.extensions());
        let rule = self.config.paths.find(uri.path());
        let said = parts(rule.map(AsRef::as_ref));
        let is_ruled_out = said.bypass == Some(true);
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        if is_read && is_ruled_out {
            // Whatever else it is.
            return Err(Bypass::Rule);
        }
        let (headers, body_key) = (request.headers(), || request.extensions().get::<BodyKey>());
        let glance = Glance::at(headers);
        // Before the method: its calls are POSTs, and go through untouched; what they may have changed is invalidated.
        if glance.steered && headers.get(header::CONTENT_TYPE).is_some_and(is_grpc) {
            return Err(Bypass::Grpc);
        }
        if is_read {
            if glance.steered && headers.contains_key(header::UPGRADE) {
                return Err(Bypass::Upgrade);
            }
            if glance.steered && policy::validation::is_for_origin(headers) {
                return Err(Bypass::Precondition);
            }
            if !request.body().is_end_stream() && request.body().size_hint().exact() != Some(0) {
                return Err(Bypass::Content);
            }
        } else if *request.method() == Method::CONNECT {
            return Err(Bypass::Upgrade);
        } else if body_key().is_none() || !BodyKey::may_key(request.method()) {
            return Err(Bypass::Method);
        } else if is_ruled_out {
            return Err(Bypass::Rule);
        } else if glance.steered && policy::validation::is_for_origin(headers) {
            return Err(Bypass::Precondition);
        }
        let target = Target::at(uri, glance.host).ok_or(Bypass::Host)?;
        let (more, body_key) = (&*said.key_headers, body_key());
        let key = self.config.keys.primary(&target, request.method(), headers, more, body_key);
        let keyed_beyond_url = body_key.is_some() || !more.is_empty() || !self.config.keys.headers.is_empty();
        Ok((Admitted { key, rule: rule.cloned(), keyed_beyond_url }, glance))
    }

    /// Looks up, once per request; `Err` holds the error of the backend, which costs a miss and no more.
    pub(crate) async fn look_up(&self, key: &PrimaryKey, headers: &HeaderMap) -> Option<Lookup> {
        let span = self.lookup_span(key);
        let vary = |spec: &VarySpec| self.variant(spec, headers);
        match self.state.backend.lookup(key, &vary).instrument(span.clone()).await {
            Ok(lookup) => {
                lookup_ended(&span, &lookup);
                Some(self.unpacked(lookup).await)
            }
            Err(error) => {
                span.record("outcome", error.kind().as_str());
                tracing::debug!(%error, "the look-up failed");
                None
            }
        }
    }

    pub(crate) fn variant(&self, spec: &VarySpec, headers: &HeaderMap) -> Variant {
        policy::vary::variant(spec, headers, &self.config.normalise)
    }

    /// The visit that a layer outside of the same cache has left. What is asked with the extensions of another request is
    /// none of its.
    pub(crate) fn visit_of<B>(&self, request: &Request<B>) -> Option<Arc<Visit>> {
        let visit = request.extensions().get::<Arc<Visit>>().filter(|visit| visit.cache == self.id())?;
        let (uri, asked) = (&*target_uri(request.uri(), request.extensions()), &visit.head.uri);
        if (uri, request.method()) != (asked, &visit.head.method) {
            return None;
        }
        if let Some(personal) = Personal::of(request.extensions()) {
            visit.personal.meets(personal);
        }
        Some(visit.clone())
    }

    pub(crate) fn visit<B>(&self, request: &Request<B>, admitted: Admitted, lookup: Option<Lookup>) -> Visit {
        let around = request.extensions().get::<Arc<Visit>>().filter(|around| around.cache != self.id());
        Visit {
            nested: around.is_some_and(|around| around.key == admitted.key && around.is_claimed()),
            id: VisitId::next(),
            cache: self.id(),
            key: admitted.key,
            head: Head {
                method: request.method().clone(),
                uri: target_uri(request.uri(), request.extensions()).into_owned(),
                headers: request.headers().clone(),
                keyed_beyond_url: admitted.keyed_beyond_url,
                content_is_keyed: request.extensions().get::<BodyKey>().is_some(),
            },
            rule: admitted.rule,
            credentials: Credentials::of(request.headers(), &self.config.policy.identity),
            personal: Marks::of(request.extensions()),
            lookup,
            claimed: AtomicBool::new(false),
            received: AtomicBool::new(false),
            caching: AtomicBool::new(false),
            conditional: AtomicBool::new(false),
            counted: AtomicBool::new(false),
            answered: AtomicBool::new(false),
        }
    }

    /// Whether a layer of this cache has made an answer what it is.
    pub(crate) fn has_answered<R>(&self, response: &Response<R>) -> bool {
        self.config.has_answered(response)
    }

    /// What a layer of this cache has left in its answer.
    pub(crate) fn answered_within<'r, R>(&self, response: &'r Response<R>) -> Option<&'r Answered> {
        response.extensions().get().filter(|answered: &&Answered| answered.by == self.id())
    }

    /// Tells this cache from others.
    pub(crate) fn id(&self) -> CacheId {
        self.config.id()
    }
}

impl Visit {
    /// For the layers within, and for a session layer among them.
    pub(crate) fn leave_in(self: &Arc<Self>, extensions: &mut http::Extensions) {
        Personal::ask_for(extensions);
        extensions.insert(Arc::clone(self));
    }

    /// The right and the duty to store the answer; `true` for the first who asks.
    pub(crate) fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }

    /// Whether it would wait for the request that it is a part of; that is told once in a process.
    pub(crate) fn is_nested(&self) -> bool {
        static ONCE: Once = Once::new();
        if self.nested {
            ONCE.call_once(|| {
                tracing::warn!("a cache stands around another one with the same keys: give one of them a scope");
            });
        }
        self.nested
    }

    pub(crate) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Acquire)
    }

    /// Whoever has claimed it has an answer of the origin.
    pub(crate) fn set_received(&self) {
        self.received.store(true, Ordering::Release);
    }

    pub(crate) fn is_received(&self) -> bool {
        self.received.load(Ordering::Acquire)
    }

    /// A layer that stores responses has seen the request.
    pub(crate) fn set_caching(&self) {
        self.caching.store(true, Ordering::Release);
    }

    pub(crate) fn is_caching(&self) -> bool {
        self.caching.load(Ordering::Acquire)
    }

    /// The request carries the cache's own conditions; `true` for the first who says so.
    pub(crate) fn set_conditional(&self) -> bool {
        !self.conditional.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_conditional(&self) -> bool {
        self.conditional.load(Ordering::Acquire)
    }

    /// The inner service was asked, and that was counted; `true` for the first who says so.
    pub(crate) fn set_counted(&self) -> bool {
        !self.counted.swap(true, Ordering::AcqRel)
    }

    /// The client has got an answer before the inner service has given one.
    pub(crate) fn set_answered(&self) {
        self.answered.store(true, Ordering::Release);
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }

    /// Left in the answer to it, with the entry that it is made from or becomes, if it is fresh.
    pub(crate) fn mark(&self, entry: Option<&Arc<Entry>>) -> Answered {
        Answered { by: self.cache, visit: Some(self.id), entry: entry.cloned() }
    }

    /// Whether a layer within has answered it.
    pub(crate) fn is_marked_in<R>(&self, response: &Response<R>) -> bool {
        let answered = response.extensions().get::<Answered>();
        answered.is_some_and(|answered| answered.by == self.cache && answered.visit == Some(self.id))
    }

    /// The same visit as if it had asked for the content.
    pub(crate) fn as_get(&self) -> Self {
        Self {
            id: self.id,
            cache: self.cache,
            nested: self.nested,
            key: self.key,
            head: Head { method: Method::GET, ..self.head.clone() },
            rule: self.rule.clone(),
            credentials: self.credentials,
            personal: self.personal.clone(),
            lookup: self.lookup.clone(),
            claimed: AtomicBool::new(self.is_claimed()),
            received: AtomicBool::new(self.is_received()),
            caching: AtomicBool::new(self.is_caching()),
            conditional: AtomicBool::new(self.is_conditional()),
            counted: AtomicBool::new(self.counted.load(Ordering::Acquire)),
            answered: AtomicBool::new(self.is_answered()),
        }
    }

    pub(crate) fn rule(&self) -> &Parts {
        parts(self.rule.as_deref())
    }

    /// The ticket of a validated response: that of the look-up that has found it, for it may carry what was invalidated
    /// since, whenever the origin was asked about it.
    pub(crate) fn base_ticket(&self) -> Option<Ticket> {
        self.lookup.as_ref()?.ticket
    }

    pub(crate) fn variant(&self) -> Variant {
        self.lookup.as_ref().map_or(Variant(None), |lookup| lookup.variant)
    }
}

fn parts(rule: Option<&(Box<str>, Rule)>) -> &Parts {
    static NOTHING: Parts = Parts::NOTHING;
    rule.map_or(&NOTHING, |(_, rule)| &rule.parts)
}

/// What is asked for: the URI with the prefix that axum's `nest` has stripped. What was rewritten in another way asks for
/// something else than the client did.
pub(crate) fn target_uri<'a>(uri: &'a Uri, extensions: &'a http::Extensions) -> Cow<'a, Uri> {
    #[cfg(feature = "axum")]
    if let (Some(nested), original) = (extensions.get::<axum::extract::NestedPath>(), original_uri(uri, extensions)) {
        if (original.scheme(), original.authority()) != (uri.scheme(), uri.authority()) {
            return Cow::Borrowed(uri);
        }
        let segments = nested.as_str().split('/').filter(|segment| !segment.is_empty()).count();
        let path = original.path();
        let end = path.match_indices('/').nth(segments).map_or(path.len(), |(at, _)| at);
        let (prefix, rest) = path.split_at(end);
        let rest = if rest.is_empty() { "/" } else { rest };
        if (uri.path(), uri.query()) == (rest, original.query()) {
            return Cow::Borrowed(original);
        }
        return rewritten(prefix, uri).map_or(Cow::Borrowed(uri), Cow::Owned);
    }
    let _ = extensions;
    Cow::Borrowed(uri)
}

/// The URI under a prefix, after it was rewritten there.
#[cfg(feature = "axum")]
fn rewritten(prefix: &str, uri: &Uri) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    let rest = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    parts.path_and_query = Some(format!("{prefix}{rest}").parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// The URI as the outermost router saw it.
pub(crate) fn original_uri<'a>(uri: &'a Uri, extensions: &'a http::Extensions) -> &'a Uri {
    #[cfg(feature = "axum")]
    if let Some(original) = extensions.get::<axum::extract::OriginalUri>() {
        return &original.0;
    }
    let _ = extensions;
    uri
}
