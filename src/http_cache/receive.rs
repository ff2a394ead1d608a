//! What becomes of the origin's answer.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header, response};
use http_body::Body;

use super::{
    HttpCache,
    fill::Fill,
    head,
    judge::{Failure, Stored},
    lease::HeldLease,
    personal::ForOne,
    reason::Reason,
    route_rule::RouteRule,
    rule::Rule,
    status::{Kind, Report},
    visit::Visit,
};
use crate::{
    Profile, TagDigest, Timestamp,
    backend::{Commit, Committed, Entry, Mode, Scope, Ticket, Variant},
    policy::{
        Credentials, Exchange, Flags, Lifetimes, Meta, NotStored, Store, date, tags,
        validation::{self, HeadAnswer},
        vary,
    },
    stored::{Content, StoredResponse},
};

/// Asks the origin under these terms.
pub(crate) struct Asked {
    /// When, on the backend's clock.
    pub(crate) at: Timestamp,
    /// The right to store the answer; `None` where the backend is out of reach.
    pub(crate) ticket: Option<Ticket>,
    pub(crate) lease: Option<HeldLease>,
}

/// What has become of the origin's answer.
pub(crate) enum Reception<R> {
    /// A stored response answers the request: it was validated, or it stands in for an error.
    Stored {
        stored: Stored,
        age: Duration,
        report: Report,
        lease: Option<HeldLease>,
        /// What a 304 sets for the client that has asked, and for nobody else.
        cookies: Vec<HeaderValue>,
    },
    /// The answer is neither stored nor shared.
    Untouched { response: Response<R>, reason: Reason, lease: Option<HeldLease> },
    /// The answer arrives, and is stored once it is complete.
    Arriving(Box<Arriving<R>>),
}

/// An answer whose content is still to come.
pub(crate) struct Arriving<R> {
    pub(crate) head: response::Parts,
    pub(crate) body: R,
    pub(crate) fill: Fill,
    /// Its entry, as far as its head tells.
    pub(crate) entry: Arc<Entry>,
    /// Whether those who wait for it may have it.
    pub(crate) shareable: bool,
    pub(crate) report: Report,
}

/// Fields that say how often one client has asked.
const RATE_LIMIT_FIELDS: [HeaderName; 5] = [
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("ratelimit-limit"),
    HeaderName::from_static("ratelimit-remaining"),
    HeaderName::from_static("ratelimit-reset"),
];

impl HttpCache {
    /// Takes the origin's answer to a claimed visit.
    pub(crate) async fn receive<R: Body>(&self, visit: &Visit, asked: Asked, response: Response<R>) -> Reception<R> {
        let received = self.state.backend.now();
        visit.set_received();
        let status = response.status();
        let request = &visit.head.headers;
        let base = self.base(visit);
        if status == StatusCode::NOT_MODIFIED
            && visit.is_conditional()
            && let Some(base) = &base
        {
            return self.validated(visit, asked, base, response, received).await;
        }
        if matches!(status.as_u16(), 500 | 502 | 503 | 504)
            && let Some((stored, age, report)) = self.stand_in(visit.lookup.as_ref(), request, Failure::Status(status))
        {
            return Reception::Stored { stored, age, report, lease: asked.lease, cookies: Vec::new() };
        }
        let head = head::of(&response);
        if visit.head.method == http::Method::HEAD
            && let Some(base) = &base
        {
            self.update_by_head(visit, &asked, base, &head, received).await;
        }
        let as_stored = head::as_stored(head);
        match self.plan(visit, asked.at, &as_stored, received) {
            Ok(plan) => Reception::Arriving(Box::new(self.arriving(visit, plan, asked, as_stored, response))),
            Err(reason) => {
                self.count_not_stored(reason);
                // What somebody with credentials is told may be true for nobody else.
                let outdates = reason.of_the_answer && !status.is_server_error() && !visit.credentials.any();
                if base.is_some() && outdates {
                    self.discard(visit, &asked).await;
                }
                Reception::Untouched { response, reason, lease: asked.lease }
            }
        }
    }

    /// A 304 to the cache's own conditions (RFC 9111 §4.3.4).
    async fn validated<R>(
        &self,
        visit: &Visit,
        asked: Asked,
        base: &Stored,
        response: Response<R>,
        received: Timestamp,
    ) -> Reception<R> {
        let old = base.response();
        // Elsewhere they are stored.
        let cookies = match self.config.policy.profile {
            Profile::Safe => response.headers().get_all(header::SET_COOKIE).into_iter().cloned().collect(),
            Profile::Rfc9111 => Vec::new(),
        };
        if !validation::selects(&old.headers, response.headers()) {
            // It answers a condition that names what is stored, and says that it is about something else. The client
            // gets what was stored, if that may be stale; the next one asks for the whole.
            self.discard(visit, &asked).await;
            self.count_not_stored(Reason::MISMATCH);
            if old.meta.forbids_stale() {
                let mut response = response;
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                *response.headers_mut() = HeaderMap::new();
                return Reception::Untouched { response, reason: Reason::MISMATCH, lease: asked.lease };
            }
            let report = Report {
                kind: Kind::Stale,
                forward: Some(self.why(visit)),
                forward_status: Some(StatusCode::NOT_MODIFIED),
                detail: Some(Reason::MISMATCH.detail),
                ..Report::default()
            };
            let age = old.meta.age(received);
            return Reception::Stored { age, stored: base.clone(), report, lease: asked.lease, cookies };
        }
        let mut merged = old.headers.clone();
        self.merge(&mut merged, response.headers(), received);
        let mut as_stored = Response::new(());
        *as_stored.status_mut() = old.status;
        *as_stored.headers_mut() = merged;
        *as_stored.extensions_mut() = response.extensions().clone();
        let mut report = Report {
            kind: Kind::Revalidated,
            forward: Some(self.why(visit)),
            forward_status: Some(StatusCode::NOT_MODIFIED),
            ..Report::default()
        };
        let ticket = asked.ticket.and(visit.base_ticket());
        // HEAD validates what GET is answered with.
        let as_get = (visit.head.method == http::Method::HEAD).then(|| visit.as_get());
        let plan = self.plan(as_get.as_ref().unwrap_or(visit), asked.at, &as_stored, received);
        let (stored, lease) = match (plan.and_then(|plan| plan.over(base.entry())), ticket) {
            (Ok(plan), Some(ticket)) => {
                let entry = self.entry(&plan, ticket, &as_stored, old.content.clone());
                let (stored, lease) = self.refresh(visit, &plan, entry.clone(), base.entry(), asked.lease).await;
                report.stored = stored;
                (entry, lease)
            }
            (plan, ticket) => {
                let reason = plan.err().unwrap_or(Reason::BACKEND);
                report.detail = Some(reason.detail);
                self.count_not_stored(reason);
                if reason.of_the_answer && !visit.credentials.any() {
                    self.discard(visit, &asked).await;
                }
                // It answers this request, and no other one.
                let meta = Meta { response_time: received, initial_age: Duration::ZERO, ..old.meta };
                let ticket = ticket.unwrap_or(base.entry().ticket());
                let content = old.content.clone();
                (
                    entry(ticket, as_stored.status(), as_stored.version(), as_stored.headers().clone(), meta, content),
                    asked.lease,
                )
            }
        };
        let Some(stored) = Stored::with(&stored, &base.prepared().body) else {
            return Reception::Untouched { response, reason: Reason::MISMATCH, lease };
        };
        let meta = stored.response().meta;
        report.ttl = Some(seconds_left(&meta, received));
        Reception::Stored { age: meta.age(received), stored, report, lease, cookies }
    }

    /// Updates a stored head by a newer one. A newer one without a date was made when it was received (RFC 9110
    /// §6.6.1); the stored date would make it old.
    fn merge(&self, stored: &mut HeaderMap, newer: &HeaderMap, received: Timestamp) {
        stored.insert(header::DATE, date::format(received));
        validation::merge(stored, newer, self.config.policy.profile);
    }

    async fn refresh(
        &self,
        visit: &Visit,
        plan: &Plan,
        entry: Arc<Entry>,
        base: &Entry,
        lease: Option<HeldLease>,
    ) -> (bool, Option<HeldLease>) {
        let variant = self.variant(&plan.store.vary, &visit.head.headers);
        let commit = Commit {
            key: visit.key,
            variant,
            entry,
            // What varies otherwise from now on has another place.
            refresh: (variant == visit.variant()).then_some(base),
            lease: lease.as_ref().and_then(HeldLease::lease),
        };
        match self.commit(commit).await {
            Ok(committed) => {
                tracing::debug!(key = %visit.key, ?committed, "the end of a validation");
                if let Some(lease) = lease {
                    lease.ended();
                }
                (matches!(committed, Committed::Stored | Committed::Refreshed), None)
            }
            Err(error) => {
                tracing::debug!(key = %visit.key, %error, "a validation was not stored");
                (false, lease)
            }
        }
    }

    /// HEAD (RFC 9111 §4.3.5): updates the stored response if it is about the same one, removes it if not.
    async fn update_by_head(
        &self,
        visit: &Visit,
        asked: &Asked,
        base: &Stored,
        response: &Response<()>,
        received: Timestamp,
    ) {
        let (status, headers) = (response.status(), response.headers());
        let (old, body) = (base.response(), &base.prepared().body);
        match validation::head_answer(&old.headers, body.len() as u64, status, headers) {
            HeadAnswer::Nothing => {}
            // What somebody with credentials is told may be true for nobody else.
            HeadAnswer::Invalidate if visit.credentials.any() => {}
            HeadAnswer::Invalidate => {
                let (keys, mode) = ([visit.key], Mode::Hard);
                let done = self.state.backend.invalidate(Scope::Keys(&keys), mode).await;
                self.count_invalidation(Scope::Keys(&keys), mode, done.is_ok());
                if let Err(error) = done {
                    tracing::warn!(%error, "what HEAD has shown to be outdated could not be removed");
                }
            }
            HeadAnswer::Update => {
                let mut updated = Response::new(());
                *updated.status_mut() = old.status;
                *updated.headers_mut() = old.headers.clone();
                // A mark that it is personal, and the rule of its route.
                *updated.extensions_mut() = response.extensions().clone();
                self.merge(updated.headers_mut(), headers, received);
                let plan = self.plan(&visit.as_get(), asked.at, &updated, received);
                let plan = plan.and_then(|plan| plan.over(base.entry()));
                if let (Ok(plan), Some(ticket)) = (plan, asked.ticket.and(visit.base_ticket())) {
                    let entry = self.entry(&plan, ticket, &updated, old.content.clone());
                    self.refresh(visit, &plan, entry, base.entry(), None).await;
                }
            }
        }
    }

    async fn discard(&self, visit: &Visit, asked: &Asked) {
        let Some(ticket) = asked.ticket else { return };
        let lease = asked.lease.as_ref().and_then(HeldLease::lease);
        self.remove(&visit.key, visit.variant(), ticket, lease).await;
    }

    /// Decides whether and how an answer is stored.
    fn plan(
        &self,
        visit: &Visit,
        asked_at: Timestamp,
        response: &Response<()>,
        received: Timestamp,
    ) -> Result<Plan, Reason> {
        let route = response.extensions().get::<RouteRule>();
        let rule = match (route, &visit.rule) {
            (Some(route), Some(path)) => route.rule.clone().over(path.1.clone()),
            (Some(route), None) => route.rule.clone(),
            (None, Some(path)) => path.1.clone(),
            (None, None) => Rule::new(),
        };
        if rule.parts.bypass == Some(true) {
            return Err(Reason::RULE);
        }
        let ttl = rule.parts.ttl;
        let lifetimes = Lifetimes {
            default_ttl: ttl.filter(|ttl| !ttl.overrides).map(|ttl| ttl.lifetime).or(self.config.default_ttl),
            override_ttl: ttl.filter(|ttl| ttl.overrides).map(|ttl| ttl.lifetime),
            stale_while_revalidate: rule.parts.stale_while_revalidate,
            stale_if_error: rule.parts.stale_if_error,
            shareable: rule.parts.shareable == Some(true),
        };
        let exchange = Exchange {
            method: &visit.head.method,
            body_keyed: visit.head.content_is_keyed,
            request: &visit.head.headers,
            status: response.status(),
            response: response.headers(),
            requested: asked_at,
            received,
        };
        let judged = self.config.policy.storable(&exchange, &lifetimes);
        let mut store = judged.map_err(|reason| Reason::of(reason, exchange.status))?;
        if !vary::fits(&store.vary, exchange.request, exchange.response, &self.config.normalise) {
            return Err(NotStored::ContentEncoding.into());
        }
        let for_one = ForOne::of(visit, response.extensions(), store.meta.flags.has(Flags::PUBLIC));
        if for_one.is() {
            return Err(Reason::PERSONAL);
        }
        if self.answered_within(response).is_some_and(|answered| answered.entry.is_none()) {
            return Err(Reason::WITHIN);
        }
        let length = content_length(response.headers());
        if length.is_some_and(|length| length > self.config.max_body as u64) {
            return Err(Reason::TOO_LARGE);
        }
        if self.config.stale.jitter > 0.0 {
            let shorter = self.config.stale.jitter * super::random(1 << 20) as f64 / f64::from(1 << 20);
            store.meta.lifetime = store.meta.lifetime.mul_f64(1.0 - shorter);
        }
        let tags = self.tags_of(visit, response, route)?;
        Ok(Plan { store, tags, length, for_one })
    }

    fn arriving<R: Body>(
        &self,
        visit: &Visit,
        mut plan: Plan,
        asked: Asked,
        as_stored: Response<()>,
        response: Response<R>,
    ) -> Arriving<R> {
        let (head, body) = response.into_parts();
        let variant = self.variant(&plan.store.vary, &visit.head.headers);
        if visit.is_caching() && asked.ticket.is_none() {
            self.count_not_stored(Reason::BACKEND);
        }
        // Without a ticket it is neither stored nor handed over; it can still be followed in this process.
        let store = visit.is_caching() && asked.ticket.is_some();
        if !store {
            plan.tags.push(variant_tag(variant));
        }
        let ticket = asked.ticket.unwrap_or(NO_TICKET);
        let headless = self.entry(&plan, ticket, &as_stored, Content::plain(Bytes::new()));
        let (method, headers) = (&visit.head.method, &visit.head.headers);
        let becomes_304 = validation::not_modified(method, headers, as_stored.status(), as_stored.headers());
        let report = Report {
            forward: Some(self.why(visit)),
            // Else it is taken for that of the answer (RFC 9211 §2.3).
            forward_status: becomes_304.then(|| as_stored.status()),
            ttl: Some(seconds_left(&plan.store.meta, plan.store.meta.response_time)),
            stored: store,
            detail: asked.ticket.is_none().then_some(Reason::BACKEND.detail),
            ..Report::default()
        };
        let shareable = plan.store.for_followers(Credentials::default());
        // A length that only the body knows is kept: its client would get chunks otherwise.
        let (cache, length) = (self.clone(), plan.length.or_else(|| body.size_hint().exact()));
        let for_one = std::mem::take(&mut plan.for_one);
        let make = move |content: Content| cache.entry(&plan, ticket, &as_stored, content);
        let entry = asked.ticket.map(|_| Box::new(make) as super::fill::MakeEntry);
        let pack = store && self.packs(&head.headers);
        let outdates = asked.ticket.filter(|_| store).map(|ticket| (visit.variant(), ticket));
        let (key, lease) = (visit.key, asked.lease);
        let fill = Fill { key, variant, length, for_one, entry, store, outdates, pack, lease, has_place: false };
        Arriving { head, body, fill, entry: headless, shareable, report }
    }

    /// Makes the entry of a response.
    fn entry(&self, plan: &Plan, ticket: Ticket, response: &Response<()>, content: Content) -> Arc<Entry> {
        let mut headers = response.headers().clone();
        plan.store.prepare(&mut headers);
        // The length is that of the content.
        headers.remove(header::CONTENT_LENGTH);
        for name in &RATE_LIMIT_FIELDS {
            headers.remove(name);
        }
        let meta = plan.store.meta;
        let stored = StoredResponse { status: response.status(), version: response.version(), headers, meta, content };
        Entry::builder(ticket)
            .fresh_until(meta.fresh_until())
            .keep_until(meta.keep_until(self.config.policy.keep_stale))
            .vary(plan.store.vary.clone())
            .tags(plan.tags.iter().copied())
            .head(stored.encode_head())
            .body(stored.content.as_stored().clone())
            .build()
    }
}

/// Stands for the ticket that nobody has; no store gives it out.
pub(crate) const NO_TICKET: Ticket = Ticket { tick: 0, born: 0 };

/// What is handed over names the variant that it is, as a tag: those who get it need not have known before how it
/// varies.
pub(crate) fn variant_tag(variant: Variant) -> TagDigest {
    TagDigest::of(b"variant", &[variant.0.as_ref().map_or(&[], |variant| variant)])
}

/// The entry of a response that is not stored.
fn entry(
    ticket: Ticket,
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
    meta: Meta,
    content: Content,
) -> Arc<Entry> {
    let stored = StoredResponse { status, version, headers, meta, content };
    Entry::builder(ticket).head(stored.encode_head()).body(stored.content.as_stored().clone()).build()
}

fn seconds_left(meta: &Meta, now: Timestamp) -> i64 {
    i64::try_from(meta.fresh_until().since(now).as_secs()).unwrap_or(i64::MAX)
}

/// How an answer is stored.
struct Plan {
    store: Store,
    tags: Vec<TagDigest>,
    length: Option<u64>,
    for_one: ForOne,
}

impl Plan {
    /// In the place of a stored response, whose tags it keeps: one that is dropped would miss purges.
    fn over(mut self, base: &Entry) -> Result<Self, Reason> {
        self.tags = tags::union(self.tags, base.tags())?;
        Ok(self)
    }
}

/// The length that a head announces.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH).map(HeaderValue::to_str)?.ok()?.parse().ok()
}
