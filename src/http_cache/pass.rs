//! A request that is not looked up: it goes to the inner service, and its answer to the client.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use http::{HeaderMap, Method, Request, Response, StatusCode};
use tracing::{Instrument as _, Span};

use super::{
    CacheFuture, HttpCache,
    config::Config,
    count::{AskedFor, Ended},
    invalidate::Invalidate,
    serve::{Content, Origin, oneshot},
    visit::{Bypass, target_uri},
};
use crate::{
    body::CacheBody,
    exchange::{Answered, CacheId, InvalidateTags, Invalidated, InvalidatesTags},
    key::Target,
    policy::invalidation,
    ready::take_ready,
    refusal::is_grpc,
};

/// In the extensions of a request: a layer of this cache has passed it on without a look-up, and why.
#[derive(Clone, Copy)]
struct Passed(CacheId, Bypass);

impl HttpCache {
    /// Passes a request on.
    pub(super) fn pass<S, B, R>(
        &self,
        inner: &mut S,
        mut request: Request<B>,
        bypass: Bypass,
    ) -> CacheFuture<S::Future, R, S::Error>
    where
        S: Origin<B, R>,
        S::Error: 'static,
        B: Content,
        R: Content,
    {
        let is_safe = !may_change(request.method(), bypass);
        let outer = self.passed(&request);
        if is_safe && outer == Some(bypass) {
            // The layer outside does all that there is to do.
            return pass_on(inner, request, None);
        }
        if outer.is_none() {
            request.extensions_mut().insert(Passed(self.id(), bypass));
        }
        let asked = outer.is_none().then(|| self.config.count_bypass(bypass));
        let config = Arc::clone(&self.config);
        let passing = Passing { config, bypass, is_first: outer.is_none(), asked };
        if is_safe {
            return pass_on(inner, request, Some(Box::new(passing)));
        }
        // The client may leave: what it changed is invalidated all the same.
        let changed = Changed {
            method: request.method().clone(),
            uri: target_uri(request.uri(), request.extensions()).into_owned(),
            host: request.headers().get(http::header::HOST).cloned(),
            is_call: bypass == Bypass::Grpc && *request.method() == Method::POST,
        };
        let names = self.order_of(&changed, &HeaderMap::new());
        // A layer outside sees to it that it goes on. A client that leaves ends its gRPC call.
        let goes_on = outer.is_none() && !changed.is_call && request.extensions().get::<InvalidatesTags>().is_none();
        let passed = self.clone().pass_change(inner.clone(), request, changed, passing);
        let cache = self.clone();
        // In a future of its own: what was never polled has not begun.
        CacheFuture::new(async move { cache.finish(passed, names, goes_on).await })
    }

    /// Passes on a request that may change something, and invalidates what it has changed.
    async fn pass_change<S, B, R>(
        self,
        inner: S,
        request: Request<B>,
        changed: Changed,
        mut passing: Passing,
    ) -> Result<Response<CacheBody<R>>, S::Error>
    where
        S: Origin<B, R>,
        R: Content,
    {
        let has_invalidator = request.extensions().get::<InvalidatesTags>().is_some();
        let outcome = oneshot(inner, request).instrument(passing.span().clone()).await;
        passing.count(&outcome);
        let mut response = match outcome {
            Ok(response) => response,
            Err(error) => {
                // It may have changed something by then, or not, like one that is broken off.
                if let Some(order) = self.order_of(&changed, &HeaderMap::new()) {
                    order.soft().insist().await;
                }
                return Err(error);
            }
        };
        if invalidation::applies(&changed.method, response.status())
            && !(changed.is_call && response.headers().get(http::header::CONTENT_TYPE).is_some_and(is_grpc))
            && let invalidated = self.invalidated(&changed)
            && response.extensions().get() != Some(&invalidated)
        {
            if let Some(order) = self.order_of(&changed, response.headers()) {
                order.insist().await;
            }
            if !has_invalidator && response.extensions().get::<InvalidateTags>().is_some() {
                tracing::warn!("a handler asks to invalidate tags, but no TagInvalidationLayer stands outside");
            }
            response.extensions_mut().insert(invalidated);
        }
        passing.report(&mut response, has_invalidator);
        Ok(response.map(CacheBody::inner))
    }

    /// Why a layer of this cache outside has passed the request on. It looks for what the one within says.
    pub(super) fn passed<B>(&self, request: &Request<B>) -> Option<Bypass> {
        let Passed(by, why) = request.extensions().get()?;
        (*by == self.id()).then_some(*why)
    }

    /// The mark that what a request has changed is invalidated.
    fn invalidated(&self, changed: &Changed) -> Invalidated {
        let headers = changed.headers();
        let key = Target::of(&changed.uri, &headers)
            .map(|target| self.config.keys.primary(&target, &Method::GET, &HeaderMap::new(), &[], None));
        Invalidated(self.id(), key)
    }

    /// What a successful unsafe request has made untrue (RFC 9111 §4.4).
    fn order_of(&self, changed: &Changed, response: &HeaderMap) -> Option<Invalidate> {
        let headers = changed.headers();
        let target = Target::of(&changed.uri, &headers)?;
        let mut order = self.invalidate();
        order.target(&target);
        // A server behind TLS sees no scheme, where an origin names one.
        let schemes: &[_] = match (changed.uri.scheme(), target.https) {
            (None, _) => &["http", "https"],
            (_, true) => &["https"],
            (_, false) => &["http"],
        };
        for scheme in schemes {
            let Ok(absolute) = format!("{scheme}://{}{}", target.authority, target.path).parse() else { continue };
            for uri in invalidation::also(&absolute, response) {
                // On the same host: that was looked at.
                if let Some(target) = Target::of(&uri, &HeaderMap::new()) {
                    order.target(&target);
                }
            }
        }
        Some(order)
    }
}

/// Sends a request to the inner service. If that is ready, as most are, nothing is boxed.
pub(super) fn pass_on<S, B, R>(
    inner: &mut S,
    request: Request<B>,
    passing: Option<Box<Passing>>,
) -> CacheFuture<S::Future, R, S::Error>
where
    S: Origin<B, R>,
    S::Error: 'static,
    B: Content,
    R: Content,
{
    // What was polled goes with the request: it may have a place in a queue, though it says that it is ready, as one that
    // sheds load has, and what waits there and is not polled any more keeps it from others.
    let mut inner = take_ready(inner);
    // Whoever is not ready is asked again by the task that waits, whose waker takes the place of this one.
    let failed = match inner.poll_ready(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(())) => {
            let entered = passing.as_ref().map(|passing| passing.span().enter());
            let future = inner.call(request);
            drop(entered);
            return CacheFuture::passed(future, passing);
        }
        Poll::Ready(Err(error)) => Some(error),
        Poll::Pending => None,
    };
    CacheFuture::new(async move {
        let asking = async move {
            match failed {
                Some(error) => Err(error),
                None => oneshot(inner, request).await,
            }
        };
        let Some(mut passing) = passing else { return Ok(asking.await?.map(CacheBody::inner)) };
        let mut outcome = asking.instrument(passing.span().clone()).await;
        passing.ended(&mut outcome);
        Ok(outcome?.map(CacheBody::inner))
    })
}

/// A request that was passed on, and what is left to do when its answer comes; counts as given up when it is dropped
/// before that.
pub(super) struct Passing {
    config: Arc<Config>,
    bypass: Bypass,
    /// Whether no layer of this cache outside has passed it on.
    is_first: bool,
    /// `None` once it is counted; layers within do not count.
    asked: Option<AskedFor>,
}

impl Passing {
    /// Around the request.
    pub(super) fn span(&self) -> &Span {
        static NONE: Span = Span::none();
        self.asked.as_ref().map_or(&NONE, AskedFor::span)
    }

    /// The answer is there, or there will be none.
    pub(super) fn ended<R, E>(&mut self, outcome: &mut Result<Response<R>, E>) {
        self.count(outcome);
        if let Ok(response) = outcome {
            self.report(response, false);
        }
    }

    fn count<R, E>(&mut self, outcome: &Result<Response<R>, E>) {
        if let Some(asked) = self.asked.take() {
            self.config.count_asked(&asked, Ended::of(outcome));
        }
    }

    /// Tells the client.
    fn report<R>(&self, response: &mut Response<R>, leave_groups: bool) {
        // What becomes another protocol is not ours to write into.
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            || matches!(self.bypass, Bypass::Grpc | Bypass::Upgrade)
            || self.config.has_answered(response)
        {
            return;
        }
        self.config.report_bypass(response.headers_mut(), self.bypass, leave_groups);
        if !self.is_first {
            response.extensions_mut().insert(Answered { by: self.config.id(), visit: None, entry: None });
        }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.config.count_asked(&asked, Ended::GivenUp);
        }
    }
}

/// Whether the request may change what is stored.
fn may_change(method: &Method, bypass: Bypass) -> bool {
    !invalidation::is_safe(method) && bypass != Bypass::Upgrade
}

/// A request that may have changed something.
struct Changed {
    method: Method,
    uri: http::Uri,
    host: Option<http::HeaderValue>,
    /// A gRPC call, as its client says; it is one if it is answered as one. What it changes has no URLs that GET asks for.
    /// They are POSTs: another method is none.
    is_call: bool,
}

impl Changed {
    /// Those that say what its URL is.
    fn headers(&self) -> HeaderMap {
        self.host.iter().map(|host| (http::header::HOST, host.clone())).collect()
    }
}
