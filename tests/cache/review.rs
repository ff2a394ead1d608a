//! What a review has found: each test tells the request sequence that did harm.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_gatehouse::{
    Backend, BoxError, CacheLayer, CoalesceLayer, HttpCache, Rule, TagInvalidationLayer,
    backend::{BackendError, ErrorKind, InvalidateError, Mode, Scope},
};

use crate::{
    app::{Body, Origin, boxed, full, get, get_with, request, respond, send},
    support::altered::{Alter, Altered},
};

#[tokio::test]
async fn must_revalidate_does_not_make_an_identified_answer_everybodys() {
    let origin = Origin::new(|request, _| {
        let who = request.headers().get("x-session").map_or("nobody", |who| who.to_str().unwrap()).to_owned();
        respond(200, &[("cache-control", "max-age=60, must-revalidate")], who)
    });
    let app = boxed(CacheLayer::new(&Backend::memory()).layer(origin));
    assert_eq!(get_with(&app, "http://h/", &[("x-session", "alice")]).await.body, "alice");
    assert_eq!(get_with(&app, "http://h/", &[("x-session", "bob")]).await.body, "bob");
}

#[tokio::test]
async fn a_page_for_a_cookie_is_not_guessed_to_be_everybodys() {
    let origin = Origin::new(|request, _| {
        let who = request.headers().get("cookie").map_or("nobody", |who| who.to_str().unwrap()).to_owned();
        respond(200, &[("last-modified", "Mon, 01 Jan 1990 00:00:00 GMT")], who)
    });
    let app = boxed(CacheLayer::new(&Backend::memory()).layer(origin));
    assert_eq!(get_with(&app, "http://h/", &[("cookie", "sid=alice")]).await.body, "sid=alice");
    assert_eq!(get_with(&app, "http://h/", &[("cookie", "sid=bob")]).await.body, "sid=bob");
    assert_eq!(get(&app, "http://h/").await.body, "nobody");
    assert_eq!(get(&app, "http://h/").await.x_cache(), "HIT", "the guess holds among those whom nobody knows");
    assert_eq!(get_with(&app, "http://h/", &[("cookie", "sid=bob")]).await.body, "sid=bob");
}

#[tokio::test]
async fn purging_the_public_url_reaches_what_came_without_tls() {
    let origin = Origin::with(&[("cache-control", "max-age=60")]);
    let cache = HttpCache::new(&Backend::memory());
    let app = boxed(CacheLayer::new(&cache).layer(origin));
    get_with(&app, "/p", &[("host", "shop.example")]).await;
    cache.invalidate().url("https://shop.example/p").await.unwrap();
    assert_eq!(get_with(&app, "/p", &[("host", "shop.example")]).await.x_cache(), "MISS");
    send(&app, request("PUT", "https://shop.example/p", &[])).await;
    assert_eq!(get_with(&app, "/p", &[("host", "shop.example")]).await.x_cache(), "MISS");
}

#[tokio::test]
async fn a_304_with_a_stronger_tag_does_not_reach_a_client_that_asked_for_the_page() {
    let origin = Origin::new(|request, _| {
        if request.headers().contains_key("if-none-match") {
            respond(304, &[("etag", "\"v1\""), ("cache-control", "max-age=60")], "")
        } else {
            respond(200, &[("etag", "W/\"v1\""), ("cache-control", "max-age=0")], "page")
        }
    });
    let app = boxed(CacheLayer::new(&Backend::memory()).layer(origin));
    get(&app, "http://h/").await;
    let validated = get(&app, "http://h/").await;
    assert_eq!((validated.status, validated.body.as_str()), (200, "page"));
    assert_eq!(get(&app, "http://h/").await.x_cache(), "HIT");
}

#[tokio::test]
async fn a_rule_for_lifetimes_leaves_private_fields_private() {
    let origin = Origin::with(&[("cache-control", "private=\"x-user\""), ("x-user", "alice")]);
    let cache = HttpCache::new(&Backend::memory()).rule("/", Rule::override_ttl(Duration::from_mins(1))).unwrap();
    let app = boxed(CacheLayer::new(&cache).layer(origin));
    get(&app, "http://h/").await;
    let hit = get(&app, "http://h/").await;
    assert_eq!((hit.x_cache(), hit.field("x-user")), ("HIT", ""));
}

#[tokio::test]
async fn a_page_that_is_never_stored_has_no_304_of_ours() {
    let origin = Origin::with(&[("cache-control", "no-store"), ("date", "Mon, 01 Jan 2024 00:00:00 GMT")]);
    let app = boxed(CacheLayer::new(&Backend::memory()).layer(origin));
    let answer = get_with(&app, "http://h/", &[("if-modified-since", "Tue, 02 Jan 2024 00:00:00 GMT")]).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn settings_beyond_all_measure_do_no_harm() {
    let origin = Origin::with(&[]);
    let cache = HttpCache::new(&Backend::memory())
        .default_ttl(Duration::MAX)
        .jitter(0.5)
        .wait(Duration::MAX)
        .revalidation_timeout(Duration::MAX);
    let app = boxed(CacheLayer::new(&cache).layer(CoalesceLayer::new(&cache).layer(origin)));
    assert_eq!(get(&app, "http://h/").await.status, 200);
    assert_eq!(get(&app, "http://h/").await.x_cache(), "HIT");
}

/// An origin whose first request hangs for ever, and how many came.
fn hangs_once() -> (
    impl tower::Service<Request<Body>, Response = Response<Body>, Error = tower_gatehouse::BoxError, Future: Send>
    + Clone
    + Send
    + 'static,
    Arc<AtomicUsize>,
) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let service = service_fn(move |_: Request<Body>| {
        let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            Ok(Response::builder().header("cache-control", "max-age=60").body(full(Bytes::from("late"))).unwrap())
        }
    });
    (service, asked)
}

#[tokio::test(start_paused = true)]
async fn a_request_that_hangs_does_not_hold_its_key_for_ever() {
    let (origin, asked) = hangs_once();
    let cache = HttpCache::new(&Backend::memory()).wait(Duration::from_secs(1));
    let app = boxed(CoalesceLayer::new(&cache).layer(origin));
    let leader = tokio::spawn(app.clone().oneshot(request("GET", "http://h/", &[])));
    tokio::task::yield_now().await;
    let followers: Vec<_> =
        (0..10).map(|_| tokio::spawn(app.clone().oneshot(request("GET", "http://h/", &[])))).collect();
    for follower in followers {
        let answer = tokio::time::timeout(Duration::from_secs(10), follower).await.expect("in time");
        assert_eq!(answer.unwrap().unwrap().status(), 200);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2, "one of those who waited asked, for all of them");
    leader.abort();
}

/// Counts how many of it are there.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(counter))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An origin that never answers.
fn hangs(
    running: &Arc<AtomicUsize>,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send> + Clone + Send + Sync + 'static
{
    let running = Arc::clone(running);
    service_fn(move |_: Request<Body>| {
        let running = Running::new(&running);
        async move {
            let _running = running;
            std::future::pending::<()>().await;
            Ok::<_, BoxError>(Response::new(full("")))
        }
    })
}

async fn few_go_on_and_not_for_ever(running: &AtomicUsize) {
    // A fill without a place goes on for a second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let running_now = running.load(Ordering::SeqCst);
    assert!((1..=16).contains(&running_now), "{running_now} go on");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(running.load(Ordering::SeqCst), 0, "and those not for ever");
}

#[tokio::test(start_paused = true)]
async fn clients_that_leave_at_once_leave_no_more_than_the_limit_behind() {
    for (method, layer) in [("GET", "coalesce"), ("PUT", "cache"), ("PUT", "tags"), ("PUT", "both")] {
        let running = Arc::default();
        let cache = HttpCache::new(&Backend::memory()).revalidations(16, 16);
        let origin = hangs(&running);
        let app = match layer {
            "coalesce" => boxed(CoalesceLayer::new(&cache).layer(origin)),
            "cache" => boxed(CacheLayer::new(&cache).layer(origin)),
            "tags" => boxed(TagInvalidationLayer::new(&cache).layer(origin)),
            _ => boxed(TagInvalidationLayer::new(&cache).layer(CacheLayer::new(&cache).layer(origin))),
        };
        for n in 0..500 {
            let request = request(method, &format!("http://h/{n}"), &[]);
            let _ = tokio::time::timeout(Duration::from_millis(1), app.clone().oneshot(request)).await;
        }
        few_go_on_and_not_for_ever(&running).await;
    }
}

#[tokio::test(start_paused = true)]
async fn clients_that_leave_after_the_head_leave_no_more_than_the_limit_behind() {
    for layer in ["coalesce", "cache"] {
        let running = Arc::default();
        let cache = HttpCache::new(&Backend::memory()).revalidations(16, 16);
        let counter = Arc::clone(&running);
        let origin = service_fn(move |_: Request<Body>| {
            let running = Running::new(&counter);
            // Never a byte more.
            let chunks = futures_util::stream::pending::<Result<Frame<Bytes>, BoxError>>();
            let body = StreamBody::new(chunks.map(move |chunk| {
                let _running = &running;
                chunk
            }));
            let response = Response::builder().header("cache-control", "max-age=60").body(body.boxed_unsync());
            async move { Ok::<_, BoxError>(response.unwrap()) }
        });
        let app = match layer {
            "coalesce" => boxed(CoalesceLayer::new(&cache).layer(origin)),
            _ => boxed(CacheLayer::new(&cache).layer(origin)),
        };
        for n in 0..500 {
            let answer = app.clone().oneshot(request("GET", &format!("http://h/{n}"), &[])).await.unwrap();
            assert_eq!(answer.status(), 200);
        }
        few_go_on_and_not_for_ever(&running).await;
    }
}

/// What a request may have changed is not served any more without asking, though nobody knows what became of it.
#[tokio::test(start_paused = true)]
async fn what_is_broken_off_is_asked_for_again() {
    for layers in 1..4 {
        let cache = HttpCache::new(&Backend::memory()).revalidations(0, 0);
        let origin = Origin::with(&[("cache-control", "max-age=60"), ("cache-tag", "p")]);
        let reading = boxed(CacheLayer::new(&cache).layer(origin.clone()));
        let running = Arc::default();
        let caching = |inner| boxed(CacheLayer::new(&cache).layer(inner));
        let tags = TagInvalidationLayer::new(&cache).on("PUT /a", ["p"]).unwrap();
        let changing = match layers {
            1 => caching(boxed(hangs(&running))),
            2 => boxed(tags.layer(hangs(&running))),
            _ => boxed(tags.layer(caching(boxed(hangs(&running))))),
        };
        get(&reading, "http://h/a").await;
        assert_eq!(get(&reading, "http://h/a").await.x_cache(), "HIT");
        let put = changing.oneshot(request("PUT", "http://h/a", &[]));
        assert!(tokio::time::timeout(Duration::from_millis(1), put).await.is_err());
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(running.load(Ordering::SeqCst), 0);
        assert_ne!(get(&reading, "http://h/a").await.x_cache(), "HIT", "{layers}");
        // What was never polled has not begun, and is not begun by being dropped.
        let tags = TagInvalidationLayer::new(cache.clone().revalidations(8, 8));
        drop(tags.layer(hangs(&running)).call(request("PUT", "http://h/a", &[])));
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(running.load(Ordering::SeqCst), 0);
    }
}

/// A store that cannot be told of invalidations, and counts how often it is tried.
#[derive(Debug)]
struct Deaf {
    inner: Backend,
    is_away: Arc<AtomicBool>,
    tried: Arc<AtomicUsize>,
}

impl Alter for Deaf {
    fn inner(&self) -> &Backend {
        &self.inner
    }

    async fn invalidate(&self, scope: Scope<'_>, mode: Mode) -> Result<(), InvalidateError> {
        self.tried.fetch_add(1, Ordering::SeqCst);
        if self.is_away.load(Ordering::SeqCst) {
            let error = BackendError::new(ErrorKind::Unavailable, "it is away");
            return Err(InvalidateError::new(vec![("the store".to_owned(), error)]));
        }
        self.inner.invalidate(scope, mode).await
    }
}

/// However much is changed while the store is away, one task tells it afterwards.
#[tokio::test(start_paused = true)]
async fn what_the_store_could_not_be_told_it_is_told_when_it_is_back() {
    let (is_away, tried) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let deaf = Deaf { inner: Backend::memory(), is_away: Arc::clone(&is_away), tried: Arc::clone(&tried) };
    let cache = HttpCache::new(&Backend::custom(Altered(deaf)));
    let origin = Origin::with(&[("cache-control", "max-age=3600")]);
    let app = boxed(CacheLayer::new(&cache).layer(origin));
    let url = |n| format!("http://h/{n}");
    for n in 0..300 {
        get(&app, &url(n)).await;
        send(&app, request("PUT", &url(n), &[])).await;
        assert_eq!(get(&app, &url(n)).await.x_cache(), "HIT", "the store does not know");
    }
    // Of each once for its tags and once for its URL.
    assert_eq!(tried.swap(0, Ordering::SeqCst), 600);
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(tried.swap(0, Ordering::SeqCst), 3 * 2, "after 0.2, 1 and 5 s, all together");
    // What comes in is tried again, too, by the same task.
    send(&app, request("PUT", &url(0), &[])).await;
    is_away.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(tried.swap(0, Ordering::SeqCst), 2 + 2);
    for n in 0..300 {
        assert_eq!(get(&app, &url(n)).await.x_cache(), "MISS");
    }

    // Who is away for too long is not waited for for ever; the next one begins anew.
    is_away.store(true, Ordering::SeqCst);
    send(&app, request("PUT", &url(1), &[])).await;
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(tried.swap(0, Ordering::SeqCst), 2 + 20 * 2);
    is_away.store(false, Ordering::SeqCst);
    assert_eq!(get(&app, &url(1)).await.x_cache(), "HIT");
    is_away.store(true, Ordering::SeqCst);
    send(&app, request("PUT", &url(2), &[])).await;
    is_away.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(get(&app, &url(2)).await.x_cache(), "MISS");
}
