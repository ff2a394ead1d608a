//! Many requests for one key, one request to the origin.

use std::{pin::Pin, sync::Arc};

use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::{
    CacheFuture, HttpCache,
    answer::shape,
    begin::Seen,
    flight::{Join, Leader, may_follow},
    follow::is_variant,
    judge::{Failure, Stored},
    pass::pass_on,
    receive::{Arriving, Asked, Reception},
    serve::{Content, Origin, with_cookies},
    turn::{Turn, TurnRequest},
    visit::Visit,
};
use crate::{
    backend::{Entry, LeaseKey, LeaseKind, Lookup, PrimaryKey, Release, Variant, VarySpec},
    body::{self, CacheBody, Source},
    policy::{Flags, RequestDirectives},
};

/// What is collapsed: one variant of one key.
pub(crate) type FlightKey = (PrimaryKey, Variant);

/// What a flight comes to, for those who follow it.
#[derive(Clone)]
pub(crate) enum Landing {
    /// The origin answers, and the answer may be shared; it is read as it arrives.
    Arriving(Arc<Shared>),
    /// Somebody else has filled it.
    Found(Lookup),
    /// Somebody else has asked the origin and handed the answer over.
    HandedOver(Arc<Entry>),
    /// The answer is not for sharing: everybody asks.
    Alone,
    /// It was about one request alone: the others go on together.
    Refused,
    /// The origin failed, with this status if it answered at all.
    Failed(Option<StatusCode>),
}

/// The origin's answer as its followers see it.
pub(crate) struct Shared {
    pub(super) status: StatusCode,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    /// Its entry, as far as its head tells.
    pub(super) entry: Arc<Entry>,
    pub(super) variant: Variant,
    pub(super) content: Source,
}

/// A request on its way into a flight.
struct Passenger {
    visit: Arc<Visit>,
    /// What was looked up, with the store's clock.
    lookup: Option<Lookup>,
    /// Which variant it is for, as far as that is known.
    variant: Variant,
    /// Whether the flight that it followed takes too long.
    overdue: bool,
    /// How often it may still join one.
    joins: usize,
}

/// How often a request joins another flight before it asks for itself.
const JOINS: usize = 4;

impl HttpCache {
    /// Collapses a request with others for the same answer.
    pub(crate) fn collapse<S, B, R>(&self, inner: &mut S, request: Request<B>) -> CacheFuture<S::Future, R, S::Error>
    where
        S: Origin<B, R>,
        S::Error: 'static,
        B: Content,
        R: Content,
    {
        match self.seen(&request) {
            Ok(seen) => CacheFuture::new(self.clone().collapse_seen(seen, inner.clone(), request)),
            // None of this layer's business.
            Err(_) => pass_on(inner, request, None),
        }
    }

    async fn collapse_seen<S, B, R>(
        self,
        seen: Seen,
        inner: S,
        mut request: Request<B>,
    ) -> Result<Response<CacheBody<R>>, S::Error>
    where
        S: Origin<B, R>,
        S::Error: 'static,
        B: Content,
        R: Content,
    {
        let visit = match seen {
            Seen::Before(visit) => visit,
            Seen::Now(admitted) => {
                let lookup = self.look_up(&admitted.key, request.headers()).await;
                let visit = Arc::new(self.visit(&request, admitted, lookup));
                // For a cache layer within: it looks up no more.
                visit.leave_in(request.extensions_mut());
                visit
            }
        };
        if visit.is_claimed() || visit.is_nested() || self.state.tasks.is_stopped() || !self.may_collapse(&visit) {
            return self.ask_alone(&visit, inner, request).await;
        }
        let lookup = self.with_clock(&visit).await;
        let passenger = Passenger { variant: visit.variant(), visit, lookup, overdue: false, joins: JOINS };
        self.board(passenger, inner, request).await
    }

    /// Takes a request into a flight for its variant: one that is under way, or a new one.
    async fn board<S, B, R>(
        self,
        passenger: Passenger,
        inner: S,
        request: Request<B>,
    ) -> Result<Response<CacheBody<R>>, S::Error>
    where
        S: Origin<B, R>,
        S::Error: 'static,
        B: Content,
        R: Content,
    {
        let Passenger { visit, lookup: own_lookup, mut variant, mut overdue, joins } = passenger;
        for joins in (0..joins).rev() {
            let lease_key = LeaseKey { key: visit.key, variant, kind: LeaseKind::Fill };
            if self.is_uncacheable(&lease_key) {
                break;
            }
            let follower = match self.state.flights.join(&(visit.key, variant), own_lookup.as_ref()) {
                Join::Follow(follower) => follower,
                Join::Lead(leader) => {
                    let (answer, answered) = oneshot::channel();
                    let leading = Arc::clone(&visit);
                    let passenger = Passenger { visit: leading, lookup: own_lookup, variant, overdue, joins };
                    let cache = self.clone();
                    self.state.tasks.spawn(async move {
                        cache.fly(leader, lease_key, passenger, inner, request, answer).await;
                    });
                    // The handler has panicked, or a shutdown has come to its deadline.
                    return answered.await.unwrap_or_else(|_| Ok(self.failed(&visit, None)));
                }
            };
            let flight = follower.flight();
            let Ok(outcome) = tokio::time::timeout(self.config.coalesce.wait, follower.outcome()).await else {
                // The leader takes too long: one of those who have waited asks the origin itself.
                self.state.flights.supersede(&(visit.key, variant), &flight);
                overdue = true;
                continue;
            };
            match outcome {
                None => {}
                Some(Landing::Alone) => break,
                // The next one asks at once: the lease says for a moment that everybody does.
                Some(Landing::Refused) => overdue = true,
                Some(Landing::Failed(status)) => return Ok(self.share_failure(&visit, status)),
                Some(Landing::Found(lookup)) => {
                    let Some(found) = &lookup.found else { break };
                    // It was asked for before this request came, perhaps before something was invalidated.
                    if !may_follow(lookup.ticket, own_lookup.as_ref()) {
                        continue;
                    }
                    let own = self.variant(found.entry.vary(), &visit.head.headers);
                    if own != lookup.variant && own != variant {
                        variant = own;
                        continue;
                    }
                    match self.found(&visit, &lookup) {
                        Some(answer) => return Ok(answer),
                        None => break,
                    }
                }
                Some(Landing::HandedOver(entry)) => {
                    if !may_follow(Some(entry.ticket()), own_lookup.as_ref()) {
                        continue;
                    }
                    let own = self.variant(entry.vary(), &visit.head.headers);
                    if !is_variant(&entry, own) && own != variant {
                        variant = own;
                        continue;
                    }
                    match self.handed_over(&visit, &entry) {
                        Some(answer) => return Ok(answer),
                        None => break,
                    }
                }
                Some(Landing::Arriving(shared)) => {
                    let own = self.variant(shared.entry.vary(), &visit.head.headers);
                    if own != shared.variant {
                        // Another variant; those who want the same one fly together.
                        variant = own;
                        continue;
                    }
                    let stalls = shared.content.silent_for() >= self.config.coalesce.wait;
                    match if stalls { None } else { self.follow(&visit, &shared) } {
                        Some(answer) => return Ok(answer),
                        // It may never end, or is stale before its end. Who comes now flies with the next, which does
                        // not wait for its lease.
                        None if stalls || shared.entry.fresh_until() <= self.state.backend.now() => {
                            self.state.flights.supersede(&(visit.key, variant), &flight);
                            overdue = true;
                        }
                        None => break,
                    }
                }
            }
        }
        self.ask_alone(&visit, inner, request).await
    }

    /// What was looked up, with the store's clock: who has read none cannot tell what it may follow. There is none only
    /// before the first request of all, and after the store has lost it.
    async fn with_clock(&self, visit: &Visit) -> Option<Lookup> {
        let before = visit.lookup.clone()?;
        if before.ticket.is_some() {
            return Some(before);
        }
        self.state.backend.ticket(&visit.key).await.ok()?;
        let Lookup { ticket, floor, .. } = self.look_up(&visit.key, &visit.head.headers).await?;
        Some(Lookup { ticket, floor, ..before })
    }

    /// Whether a request may lead and follow: it is a GET, for the whole, that anybody could have sent and that takes
    /// what a shared cache would give.
    fn may_collapse(&self, visit: &Visit) -> bool {
        let headers = &visit.head.headers;
        let directives = self.directives(headers);
        let refuses = |directives: RequestDirectives| {
            directives.no_cache || directives.no_store || directives.only_if_cached || directives.max_age.is_some()
        };
        if visit.head.method != Method::GET && !visit.head.content_is_keyed
            || headers.contains_key(header::RANGE)
            || visit.rule().coalesce == Some(false)
            || directives.is_some_and(refuses)
        {
            return false;
        }
        if visit.credentials.any() && visit.rule().shareable != Some(true) {
            let public = self.base(visit).is_some_and(|stored| stored.response().meta.flags.has(Flags::PUBLIC));
            if !public {
                return false;
            }
        }
        // What the store can answer, a cache layer within answers.
        !visit.lookup.as_ref().is_some_and(|lookup| self.is_hit(lookup, headers))
    }

    /// Leads a flight: takes a turn in the fleet, asks the origin, shows the answer to the followers, stores it. Its
    /// client may leave meanwhile.
    async fn fly<S, B, R>(
        self,
        mut leader: Leader<FlightKey, Landing>,
        key: LeaseKey,
        passenger: Passenger,
        inner: S,
        mut request: Request<B>,
        mut answer: oneshot::Sender<Result<Response<CacheBody<R>>, S::Error>>,
    ) where
        S: Origin<B, R>,
        S::Error: 'static,
        B: Content,
        R: Content,
    {
        let Passenger { visit, lookup, variant, overdue, joins } = passenger;
        let mut asked = match &lookup {
            Some(lookup) if overdue => Asked { at: self.state.backend.now(), ticket: lookup.ticket, lease: None },
            None => {
                let _ = tokio::time::timeout(self.config.coalesce.wait, leader.clearance()).await;
                Asked { at: self.state.backend.now(), ticket: None, lease: None }
            }
            Some(lookup) => {
                let vary = |spec: &VarySpec| self.variant(spec, &visit.head.headers);
                let tags = self.expected_tags(&visit);
                let turn = TurnRequest { key, lookup, vary: &vary, tags: &tags };
                match self.turn(turn, |again| self.is_hit(again, &visit.head.headers)).await {
                    Turn::Ask { ticket, lease } => Asked { at: self.state.backend.now(), ticket, lease },
                    Turn::Found(lookup) => {
                        let found = self.found(&visit, &lookup);
                        leader.close(Landing::Found(lookup));
                        let answered = match found {
                            Some(answered) => Ok(answered),
                            // It has just become stale.
                            None => self.ask_alone(&visit, inner, request).await,
                        };
                        let _ = answer.send(answered);
                        return;
                    }
                    Turn::HandedOver(entry) => {
                        leader.close(Landing::HandedOver(Arc::clone(&entry)));
                        let own = self.variant(entry.vary(), &visit.head.headers);
                        let answered = match self.handed_over(&visit, &entry) {
                            Some(answered) => Ok(answered),
                            // Another variant; those who want the same one fly together.
                            None if !is_variant(&entry, own) && own != variant => {
                                let passenger =
                                    Passenger { visit, lookup: Some(lookup.clone()), variant: own, overdue, joins };
                                tokio::select! {
                                    biased;
                                    answered = self.board_again(passenger, inner, request) => answered,
                                    // The next flight knows what to do without its client.
                                    () = answer.closed() => return,
                                }
                            }
                            None => self.ask_alone(&visit, inner, request).await,
                        };
                        let _ = answer.send(answered);
                        return;
                    }
                    Turn::Everybody => {
                        leader.close(Landing::Alone);
                        let _ = answer.send(self.ask_alone(&visit, inner, request).await);
                        return;
                    }
                    Turn::Failed => {
                        leader.close(Landing::Failed(None));
                        let _ = answer.send(Ok(self.share_failure(&visit, None)));
                        return;
                    }
                }
            }
        };
        leader.ask(asked.ticket);
        self.condition(&visit, request.headers_mut());
        visit.claim();
        visit.leave_in(request.extensions_mut());
        let asking = self.ask_inner(&visit, request.headers());
        let response = tokio::select! {
            biased;
            response = self.send(inner, request, &mut asked).instrument(asking.span()) => response,
            // Dropped, the leader is lost, and the lease given back.
            () = self.given_up(&mut answer, || leader.has_followers()) => return,
        };
        asking.ended(&response);
        match response {
            Err(error) => {
                leader.close(Landing::Failed(None));
                self.release_failed(asked.lease).await;
                let failure = Failure::Disconnect;
                let stand_in = self.stand_in(visit.lookup.as_ref(), &visit.head.headers, failure);
                let answered = match stand_in {
                    Some((stored, age, report)) => Ok(self.respond(&visit, &stored, age, &report)),
                    None => Err(error),
                };
                let _ = answer.send(answered);
            }
            Ok(response) if visit.is_marked_in(&response) => {
                // A cache layer within had the answer; it has it for the others too.
                leader.close(Landing::Alone);
                let _ = answer.send(Ok(response.map(CacheBody::inner)));
            }
            Ok(response) => self.land(leader, key, &visit, asked, response, answer).await,
        }
    }

    /// [`board`](Self::board), boxed: a flight may lead to the next.
    #[allow(clippy::type_complexity)]
    fn board_again<S, B, R>(
        self,
        passenger: Passenger,
        inner: S,
        request: Request<B>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<CacheBody<R>>, S::Error>> + Send>>
    where
        S: Origin<B, R>,
        S::Error: 'static,
        B: Content,
        R: Content,
    {
        Box::pin(self.board(passenger, inner, request))
    }

    /// Waits until a request whose client has left is not worth going on with: at once where the limit of background
    /// work is reached and nobody follows, else after the time that a background validation has.
    pub(crate) async fn given_up<T>(&self, answer: &mut oneshot::Sender<T>, has_followers: impl Fn() -> bool) {
        answer.closed().await;
        let permit = self.background_permit();
        if permit.is_some() || has_followers() {
            tokio::time::sleep(self.config.stale.revalidation_timeout).await;
        }
    }

    async fn land<R, E>(
        &self,
        leader: Leader<FlightKey, Landing>,
        key: LeaseKey,
        visit: &Visit,
        asked: Asked,
        response: Response<R>,
        answer: oneshot::Sender<Result<Response<CacheBody<R>>, E>>,
    ) where
        R: Content,
    {
        let status = response.status();
        match self.receive(visit, asked, response).await {
            Reception::Stored { stored, age, report, lease, cookies } => {
                if status != StatusCode::NOT_MODIFIED {
                    // It stands in for an error.
                    leader.close(Landing::Failed(Some(status)));
                    self.release_failed(lease).await;
                } else if report.stored && self.timing(visit, &stored).is_some() {
                    leader.close(Landing::HandedOver(Arc::clone(stored.entry())));
                    if let Some(lease) = lease {
                        lease.release(Release::Free).await;
                    }
                } else {
                    // It still holds, for this request.
                    self.everybody(leader, key, lease, true).await;
                }
                let _ = answer.send(Ok(with_cookies(self.respond(visit, &stored, age, &report), cookies)));
            }
            Reception::Untouched { response, reason, lease } => {
                if status.is_server_error() {
                    leader.close(Landing::Failed(Some(status)));
                    self.release_failed(lease).await;
                } else {
                    // Where it is about this request alone, the next answer may well be shared.
                    self.everybody(leader, key, lease, !reason.of_this_request).await;
                }
                let _ = answer.send(Ok(self.untouched(visit, response, reason)));
            }
            Reception::Arriving(mut arriving) => {
                if !arriving.shareable {
                    self.everybody(leader, key, arriving.fill.lease.take(), true).await;
                    let _ = answer.send(Ok(self.store_and_answer(visit, *arriving).await));
                    return;
                }
                self.state.unshared.forget(&key);
                self.share(leader, visit, *arriving, answer).await;
            }
        }
    }

    /// Lets the leader's client and the followers read the answer as it arrives, and stores it.
    async fn share<R, E>(
        &self,
        leader: Leader<FlightKey, Landing>,
        visit: &Visit,
        arriving: Arriving<R>,
        answer: oneshot::Sender<Result<Response<CacheBody<R>>, E>>,
    ) where
        R: Content,
    {
        let Arriving { mut head, body, mut fill, entry, report, .. } = arriving;
        let cap = self.config.max_body;
        let (writer, reader) = body::shared(cap, cap, fill.length);
        let (mut status, mut headers) = (head.status, head.headers.clone());
        if let Some(stored) = Stored::of(&entry) {
            // As from the store: without what is for one connection or one client; a part that is the whole is the whole.
            status = stored.response().status;
            headers = stored.prepared().fields(!self.config.strip_tags);
            headers.extend(head.headers.get(header::CONTENT_LENGTH).map(|len| (header::CONTENT_LENGTH, len.clone())));
        }
        let shared = Shared {
            status,
            version: head.version,
            headers,
            entry: Arc::clone(&entry),
            variant: fill.variant,
            content: reader.source(),
        };
        let landing = Landing::Arriving(Arc::new(shared));
        self.report(&mut head.headers, Some(&visit.key), &report);
        head.extensions.insert(visit.mark(Some(&entry)));
        let response = shape(visit, Response::from_parts(head, CacheBody::shared(reader)));
        if body.is_end_stream() && fill.length.is_none_or(|length| length == 0) {
            // Stored before the head goes out: there is no last byte to keep back.
            fill.entry = None;
            self.keep(entry, fill).await;
            writer.finish(None);
            leader.close(landing);
            let _ = answer.send(Ok(response));
            return;
        }
        leader.open(landing);
        let _ = answer.send(Ok(response));
        self.fill(body, writer, fill).await;
        drop(leader);
    }
}
