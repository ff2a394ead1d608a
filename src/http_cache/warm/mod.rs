//! Filling the cache before clients ask: [`HttpCache::warm`].
//!
//! A list of requests goes to a service at a bounded rate, a few at a time, and their answers into the store; what the
//! store has fresh is skipped. Each request comes back as an [`Outcome`].
//!
//! ```
//! # #[cfg(feature = "memory")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use axum::{Router, body::Body, routing::get};
//! use tower_gatehouse::{Backend, HttpCache, Rule, warm::{self, Warmed}};
//! use futures_util::StreamExt;
//!
//! let rule = Rule::ttl(Duration::from_secs(300));
//! let cache = HttpCache::new(&Backend::memory()).rule("/products/{id}", rule)?;
//! let shop = Router::new().route("/products/{id}", get(async || "slow"));
//!
//! // A file of such lines is read by `List::read`.
//! let list = warm::List::parse("/products/1\n/products/2\n")?.at("http://shop.example")?;
//! let mut warming = cache.warm(shop.clone(), list.requests::<Body>()).concurrency(4).per_second(50);
//! while let Some(outcome) = warming.next().await {
//!     assert!(matches!(outcome.warmed, Warmed::Stored { .. }), "{outcome}");
//! }
//!
//! // The second time there is nothing to do.
//! let summary = cache.warm(shop, list.requests::<Body>()).finish().await;
//! assert_eq!((summary.fresh, summary.stored), (2, 0));
//! # Ok(()) }
//! # #[cfg(not(feature = "memory"))] fn main() {}
//! ```
//!
//! # Which service
//! The one that the cache layers of this [`HttpCache`] stand around, or the same with those layers: both are right, as
//! the layers of one cache do their work once per request. Not what stands outside of them: limits would count the
//! requests, and what sessions add is not shared.
//!
//! # Which requests
//! Those that clients will send, as the server sees them: the same host, the same scheme, the same values of the fields
//! that the answers vary by. A server that is reached by HTTP/1.1 does not see that TLS was ended before it: there,
//! the scheme is `http`. A request with `Cache-Control: min-fresh=60` also fetches anew what is about to become stale.
//! Requests that the cache passes by (POST, a rule that says so, an upgrade) are not sent, nor are those that name no
//! host, neither in the URI nor in `Host`: no client would find their answers, unless [`HttpCache::any_host`] is set.
//!
//! # In a fleet
//! Warming takes turns like clients do: what another process is just fetching is not fetched again, and several
//! processes that warm the same list share the work.

mod list;
mod one;
mod outcome;
mod pace;

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::FuturesUnordered};
use http::{Request, Response, Uri};
use http_body::Body;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower_service::Service;

use super::HttpCache;
use crate::BoxError;

pub use list::{List, ListError};
use one::One;
pub use outcome::{Outcome, Summary, Warmed};
use pace::Pace;

impl HttpCache {
    /// Sends requests to a service and stores their answers, skipping what is fresh; see [`warm`](crate::warm).
    ///
    /// The stream that it returns does the work while it is polled, and takes from the iterator only what it begins.
    /// Unless its setters say more, 8 requests are under way at a time, and 100 a second are sent at most.
    ///
    /// Dropped, it begins nothing more; what is under way ends by itself, in the background.
    #[must_use = "a stream does nothing unless it is polled"]
    pub fn warm<S, B, R, I>(&self, service: S, requests: I) -> Warming
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
        I: IntoIterator<Item = Request<B>>,
        I::IntoIter: Send + 'static,
    {
        let mut requests = requests.into_iter();
        let left = requests.size_hint();
        let cache = self.clone();
        let begin = move |terms: &Terms| {
            let request = requests.next()?;
            let (done, outcome) = oneshot::channel();
            let uri = request.uri().clone();
            let one = One { cache: cache.clone(), terms: terms.clone() };
            let warming = one.warm(service.clone(), request);
            cache.state.tasks.spawn(async move {
                // Nobody may be there to hear it.
                let _ = done.send(warming.await);
            });
            Some(UnderWay { uri, outcome })
        };
        let stop = CancellationToken::new();
        Warming {
            cache: self.clone(),
            begin: Some(Box::new(begin)),
            left,
            under_way: FuturesUnordered::new(),
            concurrency: 8,
            terms: Terms {
                pace: Arc::new(Pace::per_second(100)),
                timeout: self.config.stale.revalidation_timeout,
                stop: stop.clone(),
            },
            _stop_when_dropped: stop.drop_guard(),
        }
    }
}

/// A warming under way: a stream of [`Outcome`]s, in the order in which they end; made by [`HttpCache::warm`].
///
/// [`Stream::size_hint`] says how many are still to come, if the iterator of the requests does: for a progress bar.
#[must_use = "a stream does nothing unless it is polled"]
pub struct Warming {
    cache: HttpCache,
    /// Begins the next request; `None` once there is none.
    begin: Option<Box<Begin>>,
    /// What the iterator has said of its length, less what was taken.
    left: (usize, Option<usize>),
    under_way: FuturesUnordered<UnderWay>,
    concurrency: usize,
    terms: Terms,
    _stop_when_dropped: DropGuard,
}

type Begin = dyn FnMut(&Terms) -> Option<UnderWay> + Send;

/// What holds for each request of a warming.
#[derive(Clone)]
struct Terms {
    pace: Arc<Pace>,
    timeout: Duration,
    stop: CancellationToken,
}

impl Warming {
    /// The most requests under way at a time; 8 unless set, 1 at least.
    pub fn concurrency(mut self, at_most: usize) -> Self {
        self.concurrency = at_most.max(1);
        self
    }

    /// The most requests that are sent to the service in a second, evenly spread; 100 unless set, 1 at least. What is
    /// fresh does not count: it costs the store a look-up, and the service nothing.
    pub fn per_second(mut self, at_most: u32) -> Self {
        self.terms.pace = Arc::new(Pace::per_second(at_most));
        self
    }

    /// The longest time for one request, its content included; that of
    /// [`HttpCache::revalidation_timeout`] unless set.
    pub fn timeout(mut self, at_most: Duration) -> Self {
        self.terms.timeout = super::config::bounded(at_most);
        self
    }

    /// Stops it from elsewhere.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.terms.stop.clone())
    }

    /// Runs to the end, and counts what came out.
    ///
    /// Cancel safe as the stream is: dropped, it begins nothing more.
    pub async fn finish(mut self) -> Summary {
        let mut summary = Summary::default();
        while let Some(outcome) = self.next().await {
            summary.add(&outcome);
        }
        summary
    }

    fn is_stopped(&self) -> bool {
        self.terms.stop.is_cancelled() || self.cache.state.tasks.is_closed()
    }
}

impl Stream for Warming {
    type Item = Outcome;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        let this = &mut *self;
        if this.is_stopped() {
            this.begin = None;
        }
        while this.under_way.len() < this.concurrency
            && let Some(begin) = &mut this.begin
        {
            match begin(&this.terms) {
                Some(one) => {
                    this.left = (this.left.0.saturating_sub(1), this.left.1.map(|most| most.saturating_sub(1)));
                    this.under_way.push(one);
                }
                None => this.begin = None,
            }
        }
        this.under_way.poll_next_unpin(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let under_way = self.under_way.len();
        let (least, most) = if self.begin.is_some() { self.left } else { (0, Some(0)) };
        // It may be stopped at any time.
        let least = if self.is_stopped() { 0 } else { least };
        (least.saturating_add(under_way), most.and_then(|most| most.checked_add(under_way)))
    }
}

impl fmt::Debug for Warming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warming")
            .field("under_way", &self.under_way.len())
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

/// Stops a [`Warming`]: nothing more is sent, what was sent is stored, and the stream ends when its outcomes are read.
/// So does [`HttpCache::shutdown`].
#[derive(Clone, Debug)]
pub struct StopHandle(CancellationToken);

impl StopHandle {
    /// Stops it; for good.
    pub fn stop(&self) {
        self.0.cancel();
    }
}

/// One request, and where its outcome comes from.
struct UnderWay {
    uri: Uri,
    outcome: oneshot::Receiver<(Warmed, Duration)>,
}

impl Future for UnderWay {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.outcome).poll(cx).map(|outcome| {
            let lost = || (Warmed::Failed { reason: "it was given up: a panic or a shutdown".into() }, Duration::ZERO);
            let (warmed, elapsed) = outcome.unwrap_or_else(|_| lost());
            Outcome { uri: std::mem::take(&mut self.uri), warmed, elapsed }
        })
    }
}
