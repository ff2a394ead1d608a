//! What a validation renews, whom a stale answer that still arrives is for, and when a request counts as made.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use tokio::task::JoinSet;
use tower::Service;
use tower_gatehouse::{Backend, BoxError, HttpCache, TestClock};

use crate::{
    app::{Body, Origin, get, request, respond},
    fleet::{MS, Slow, Store, alone, cached, call, spawn_get, swr, until},
    streaming::drip,
};

const URL: &str = "http://example.com/a";

/// A validator that does not cover all that its content depends on is no reason to bring back what was invalidated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_invalidated_while_somebody_waited_for_his_turn_does_not_come_back_by_a_304() {
    let fields = &[("cache-control", "max-age=1"), ("etag", "\"v1\""), ("surrogate-key", "t")];
    for store in Store::both() {
        let origin = Origin::new(move |request, n| {
            let holds = request.headers().contains_key("if-none-match");
            respond(if holds { 304 } else { 200 }, fields, if n == 1 { "one" } else { "two" })
        });
        let caches = store.fleet(3, |cache| cache.lease(15_000 * MS)).await;
        let apps: Vec<_> = caches.iter().map(|cache| cached(cache, origin.clone())).collect();
        assert_eq!(get(&apps[0], URL).await.body, "one");
        tokio::time::sleep(1200 * MS).await;
        // One holds the turn, the other waits for it with what is stored at hand.
        let hanging = Slow(Origin::with(fields), 60_000 * MS);
        let leader = spawn_get(&cached(&caches[0], hanging.clone()), URL);
        until("the leader asks", || hanging.0.count() == 1).await;
        let waiting = spawn_get(&apps[1], URL);
        tokio::time::sleep(500 * MS).await;
        caches[2].invalidate().tag("t").await.unwrap();
        // Gives the turn back.
        caches[0].shutdown(10 * MS).await;
        leader.abort();
        assert_eq!(waiting.await.unwrap().status, 200);
        let later = get(&apps[2], URL).await;
        assert_eq!(later.body, "two", "{}: {later:?}", store.name());
    }
}

/// The clock stands still but where the test turns it.
#[tokio::test]
async fn an_answer_that_becomes_stale_while_it_arrives_sends_one_more_request_and_not_everybody() {
    for build in [cached::<Origin>, alone::<Origin>] {
        let clock = TestClock::new();
        let cache = HttpCache::new(&Backend::memory_with(&clock));
        let origin = Origin::new(|_, _| {
            let mut response = respond(200, &[("cache-control", "max-age=1")], "");
            *response.body_mut() = drip(1000, 100, 10 * MS);
            response
        });
        let app = build(&cache, origin.clone());
        let first = call(app.clone(), request("GET", URL, &[])).await.unwrap();
        clock.advance(Duration::from_secs(5));
        let mut others = JoinSet::new();
        (0..20).for_each(|_| drop(others.spawn(call(app.clone(), request("GET", URL, &[])))));
        let others = others.join_all().await;
        assert!(others.iter().all(Result::is_ok));
        assert_eq!(origin.count(), 2);
        drop(first);
    }
}

/// Is busy for a while, by the clock, before it is ready for the first time.
#[derive(Clone)]
struct Busy {
    inner: Origin,
    clock: TestClock,
    waited: Arc<Mutex<Duration>>,
}

impl Service<Request<Body>> for Busy {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.clock.advance(std::mem::take(&mut *self.waited.lock().unwrap()));
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.inner.call(request))
    }
}

/// RFC 9111 §4.2.3 counts from when the request is made.
#[tokio::test]
async fn an_answer_is_not_older_for_the_time_that_its_request_waited_for_a_busy_service() {
    for build in [cached::<Busy>, swr::<Busy>] {
        let clock = TestClock::new();
        let cache = HttpCache::new(&Backend::memory_with(&clock));
        let waited = Arc::new(Mutex::new(Duration::from_secs(100)));
        let busy = Busy { inner: Origin::with(&[("cache-control", "max-age=60")]), clock, waited };
        let app = build(&cache, busy);
        get(&app, URL).await;
        let hit = get(&app, URL).await;
        assert_eq!((hit.x_cache(), hit.field("age")), ("HIT", "0"), "{hit:?}");
    }
}
