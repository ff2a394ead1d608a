//! The way of a request through a layer that answers from the store: the cache layer, and the one that also answers
//! stale while it revalidates.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use tokio::sync::oneshot;
use tower_service::Service;
use tracing::Instrument as _;

use super::{
    CacheFuture, HttpCache,
    answer::shape,
    begin::Ahead,
    judge::{Failure, Judged, Stored},
    reason::Reason,
    receive::{Arriving, Asked, Reception},
    status::{Kind, Report},
    visit::Visit,
};
use crate::{
    BoxError,
    backend::{LeaseKey, LeaseKind},
    body::{self, CacheBody},
    policy::{
        Why,
        cache_status::Forward,
        validation::{self, Conditions},
    },
};

/// What a layer does beyond looking up and storing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Validates in the foreground.
    Cache,
    /// Answers stale, where it may, and validates in the background.
    Swr,
}

/// A service that can be called again and again, from any task.
pub(crate) trait Origin<B, R>:
    Service<Request<B>, Response = Response<R>, Future: Send, Error: Send> + Clone + Send + 'static
{
}

impl<S, B, R> Origin<B, R> for S where
    S: Service<Request<B>, Response = Response<R>, Future: Send, Error: Send> + Clone + Send + 'static
{
}

/// A body of requests or responses.
pub(crate) trait Content: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static {}

impl<B> Content for B where B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static {}

/// Waits until the service is ready, and calls it.
pub(crate) async fn oneshot<S: Service<Q>, Q>(mut service: S, request: Q) -> Result<S::Response, S::Error> {
    std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}

impl HttpCache {
    /// As [`oneshot`], and notes when the request is made: a service that is busy does not make its answer older
    /// (RFC 9111 §4.2.3).
    pub(crate) async fn send<S: Service<Q>, Q>(
        &self,
        mut service: S,
        request: Q,
        asked: &mut Asked,
    ) -> Result<S::Response, S::Error> {
        std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
        asked.at = self.state.backend.now();
        service.call(request).await
    }

    /// Answers a request from the store or by the inner service.
    pub(crate) fn serve<S, B, R>(
        &self,
        role: Role,
        inner: &mut S,
        request: Request<B>,
    ) -> CacheFuture<S::Future, R, S::Error>
    where
        S: Origin<B, R>,
        S::Error: 'static,
        B: Content,
        R: Content,
    {
        match self.begin(&request) {
            Ok(response) => CacheFuture::ready(response),
            Err(Ahead::Pass(bypass)) => self.pass(inner, request, bypass),
            Err(Ahead::Judge(visit)) => CacheFuture::new(self.clone().go_on(role, inner.clone(), request, visit)),
            Err(Ahead::LookUp(admitted)) => {
                let (cache, inner) = (self.clone(), inner.clone());
                CacheFuture::new(async move {
                    let lookup = cache.look_up(&admitted.key, request.headers()).await;
                    match cache.with_answer_of_store(&request, admitted, lookup) {
                        Ok(response) => Ok(response),
                        // Boxed, so that the future of a hit is small.
                        Err(visit) => Box::pin(cache.go_on(role, inner, request, visit)).await,
                    }
                })
            }
        }
    }

    /// The way of a request that has been looked up.
    async fn go_on<S, B, R>(
        self,
        role: Role,
        inner: S,
        request: Request<B>,
        visit: Arc<Visit>,
    ) -> Result<Response<CacheBody<R>>, S::Error>
    where
        S: Origin<B, R>,
        S::Error: 'static,
        B: Content,
        R: Content,
    {
        visit.set_caching();
        let directives = self.directives(&visit.head.headers);
        match self.judge(visit.lookup.as_ref(), &visit.head.headers, directives.as_ref()) {
            Judged::Hit { stored, age, report } => return Ok(self.respond(&visit, &stored, age, &report)),
            Judged::Stale { stored, stale }
                if role == Role::Swr && stale.while_revalidate && !stale.only_if_cached && !visit.is_claimed() =>
            {
                let report = Report {
                    kind: Kind::Stale,
                    ttl: Some(stale.timing.ttl),
                    detail: Some("revalidating"),
                    ..Report::default()
                };
                let answer = self.respond(&visit, &stored, stale.timing.age, &report);
                self.revalidate(&visit, &stored, inner, request);
                return Ok(answer);
            }
            _ => {}
        }
        if directives.is_some_and(|directives| directives.only_if_cached) {
            return Ok(self.only_if_cached(&visit));
        }
        if role == Role::Swr
            && let Some(soft_timeout) = self.config.stale.soft_timeout
            && !visit.is_claimed()
            && self.stand_in(visit.lookup.as_ref(), &visit.head.headers, Failure::Slow).is_some()
        {
            return Box::pin(self.ask_softly(visit, inner, request, soft_timeout)).await;
        }
        self.ask(visit, inner, request).await
    }

    /// Asks the inner service, and answers stale if it takes too long; then its answer goes into the store all the
    /// same.
    async fn ask_softly<S, B, R>(
        self,
        visit: Arc<Visit>,
        inner: S,
        request: Request<B>,
        soft_timeout: Duration,
    ) -> Result<Response<CacheBody<R>>, S::Error>
    where
        S: Origin<B, R>,
        S::Error: 'static,
        B: Content,
        R: Content,
    {
        let (mut answer, answered) = oneshot::channel();
        let asking = {
            let (cache, visit) = (self.clone(), Arc::clone(&visit));
            async move {
                let asked = tokio::select! {
                    biased;
                    asked = cache.clone().ask(visit, inner, request) => asked,
                    () = cache.given_up(&mut answer, || false) => return,
                };
                let _ = answer.send(asked);
            }
        };
        self.state.tasks.spawn(asking);
        let mut answered = std::pin::pin!(answered);
        if let Ok(Ok(answer)) = tokio::time::timeout(soft_timeout, &mut answered).await {
            return answer;
        }
        let failure = Failure::Slow;
        if let Some((stored, age, report)) = self.stand_in(visit.lookup.as_ref(), &visit.head.headers, failure) {
            let answer = self.respond(&visit, &stored, age, &report);
            visit.set_answered();
            return Ok(answer);
        }
        // Its time for standing in has just ended.
        match answered.await {
            Ok(answer) => answer,
            Err(_) => Ok(self.failed(&visit, None)),
        }
    }

    /// Asks the inner service, and stores what may be stored.
    async fn ask<S, B, R>(
        self,
        visit: Arc<Visit>,
        inner: S,
        mut request: Request<B>,
    ) -> Result<Response<CacheBody<R>>, S::Error>
    where
        S: Origin<B, R>,
        S::Error: 'static,
        B: Content,
        R: Content,
    {
        self.condition(&visit, request.headers_mut());
        let mut asked = self.asked(&visit).await;
        visit.leave_in(request.extensions_mut());
        let asking = self.ask_inner(&visit, request.headers());
        let outcome = self.send(inner, request, &mut asked).instrument(asking.span()).await;
        asking.ended(&outcome);
        let mut response = match outcome {
            Ok(response) => response,
            Err(error) => {
                let failure = Failure::Disconnect;
                let headers = &visit.head.headers;
                return match self.stand_in(visit.lookup.as_ref(), headers, failure).filter(|_| visit.claim()) {
                    Some((stored, age, report)) => Ok(self.respond(&visit, &stored, age, &report)),
                    None => Err(error),
                };
            }
        };
        // Something between two layers may have asked twice, and the second answer be to the cache's own conditions.
        let is_for_nobody =
            response.status() == StatusCode::NOT_MODIFIED && visit.is_conditional() && visit.is_received();
        if visit.is_marked_in(&response) || !(visit.claim() || is_for_nobody) {
            return Ok(response.map(CacheBody::inner));
        }
        // Neither a visit nor its mark is for anybody outside.
        response.extensions_mut().remove::<Arc<Visit>>();
        Ok(match self.receive(&visit, asked, response).await {
            Reception::Stored { stored, age, report, cookies, .. } => {
                with_cookies(self.respond(&visit, &stored, age, &report), cookies)
            }
            Reception::Untouched { response, reason, .. } => self.untouched(&visit, response, reason),
            Reception::Arriving(arriving) => {
                let key = LeaseKey { key: visit.key, variant: visit.variant(), kind: LeaseKind::Fill };
                self.state.unshared.forget(&key);
                self.store_and_answer(&visit, *arriving).await
            }
        })
    }

    /// Whoever has found no clock needs a ticket before it asks.
    pub(crate) async fn asked(&self, visit: &Visit) -> Asked {
        let ticket = match &visit.lookup {
            // Who has claimed it stores the answer, on a ticket of its own.
            _ if visit.is_claimed() => None,
            None => None,
            Some(lookup) => match lookup.ticket {
                Some(ticket) => Some(ticket),
                // Whoever has claimed it has one.
                None if visit.is_claimed() => None,
                None => self.state.backend.ticket(&visit.key).await.ok(),
            },
        };
        Asked { at: self.state.backend.now(), ticket, lease: None }
    }

    /// Replaces the client's conditions by the cache's own, once per request: what is asked for is the whole, or
    /// whether the stored response still holds. A range without a stored response goes on as it is.
    ///
    /// So does another method than GET, HEAD and QUERY: to it a condition that does not hold is answered with 412 (RFC
    /// 9110 §13.1.2). Its new answer replaces what is stored; where nobody waits for it, the client has no conditions.
    pub(crate) fn condition(&self, visit: &Visit, headers: &mut HeaderMap) {
        if !validation::may_validate(&visit.head.method) {
            if visit.is_answered() {
                Conditions::default().replace(headers);
            }
            return;
        }
        let stored = self.base(visit);
        if stored.is_none() && (headers.contains_key(http::header::RANGE) || visit.head.method == Method::HEAD) {
            return;
        }
        if visit.set_conditional() {
            stored
                .map_or_else(Conditions::default, |stored| Conditions::validating(&stored.response().headers))
                .replace(headers);
        }
    }

    /// The stored response that an answer of the origin may validate; not one that was stored on a guess that does
    /// not hold for this request.
    pub(crate) fn base(&self, visit: &Visit) -> Option<Stored> {
        let headers = &visit.head.headers;
        match self.judge(visit.lookup.as_ref(), headers, self.directives(headers).as_ref()) {
            Judged::Hit { stored, .. } | Judged::Stale { stored, .. } => Some(stored),
            Judged::Nothing(_) => None,
        }
    }

    pub(crate) fn respond<R>(
        &self,
        visit: &Visit,
        stored: &Stored,
        age: Duration,
        report: &Report,
    ) -> Response<CacheBody<R>> {
        let late = Report { late: true, ..report.clone() };
        let report = if visit.is_answered() { &late } else { report };
        let head = &visit.head;
        let mut response = self.answer(&visit.key, &head.method, &head.headers, stored, age, report);
        let fresh = (report.kind != Kind::Stale).then_some(stored.entry());
        response.extensions_mut().insert(visit.mark(fresh));
        if let Some(failure) = report.failure {
            response.extensions_mut().insert(failure);
        }
        response
    }

    /// An answer that is not stored goes on as it came.
    pub(crate) fn untouched<R>(
        &self,
        visit: &Visit,
        mut response: Response<R>,
        reason: Reason,
    ) -> Response<CacheBody<R>>
    where
        R: Content,
    {
        let (forward, late) = (Some(self.why(visit)), visit.is_answered());
        let report = Report { forward, detail: Some(reason.detail), late, ..Report::default() };
        self.report(response.headers_mut(), Some(&visit.key), &report);
        response.extensions_mut().insert(visit.mark(None));
        let response = response.map(CacheBody::inner);
        // Only for a validator that it has: its date stands for one only in what is stored (RFC 9111 §4.3.2).
        let has_validator = [http::header::ETAG, http::header::LAST_MODIFIED]
            .iter()
            .any(|validator| response.headers().contains_key(validator));
        if visit.is_conditional() && has_validator { shape(visit, response) } else { response }
    }

    pub(crate) fn why(&self, visit: &Visit) -> Forward {
        match self.judge(visit.lookup.as_ref(), &visit.head.headers, self.directives(&visit.head.headers).as_ref()) {
            Judged::Nothing(why) => why,
            Judged::Stale { stale, .. } if stale.why == Why::Request => Forward::Request,
            _ => Forward::Stale,
        }
    }

    /// Lets an answer stream to its client while it is stored.
    pub(crate) async fn store_and_answer<R: Content>(
        &self,
        visit: &Visit,
        arriving: Arriving<R>,
    ) -> Response<CacheBody<R>> {
        let Arriving { mut head, body, mut fill, entry, mut report, .. } = arriving;
        report.late = visit.is_answered();
        self.report(&mut head.headers, Some(&visit.key), &report);
        head.extensions.insert(visit.mark(Some(&entry)));
        let content = if !fill.store && fill.lease.is_none() || self.state.tasks.is_stopped() {
            CacheBody::inner(body)
        } else if body.is_end_stream() {
            // Stored before the head goes out: there is no last byte to keep back.
            fill.entry = None;
            if fill.length.is_none_or(|length| length == 0) {
                self.keep(entry, fill).await;
            }
            CacheBody::inner(body)
        } else {
            let cap = self.config.max_body;
            let (writer, reader) = body::shared(cap, cap, fill.length);
            let cache = self.clone();
            self.state.tasks.spawn(async move { cache.fill(body, writer, fill).await });
            CacheBody::shared(reader)
        };
        shape(visit, Response::from_parts(head, content))
    }
}

/// With what the origin's 304 sets for this client.
pub(super) fn with_cookies<B>(mut response: Response<B>, cookies: Vec<HeaderValue>) -> Response<B> {
    for cookie in cookies {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}
