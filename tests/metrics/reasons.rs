//! Reasons for which the gateway has no flag.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_gatehouse::{
    Backend, CacheLayer, CoalesceLayer, HttpCache, Personal, Rule, SwrLayer,
    backend::{Commit, Entry, MemoryBackend, PrimaryKey, Variant},
    rate_limit::{ConcurrencyLimitLayer, Key, OnError, Policy, Quota, RateLimitLayer},
};

use crate::recorder::{Recorder, counts};

const REQUESTS: &str = "gatehouse_cache_requests_total";
const NOT_STORED: &str = "gatehouse_cache_not_stored_total";
const ORIGIN: &str = "gatehouse_origin_requests_total";
const LIMITS: &str = "gatehouse_rate_limit_decisions_total";

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://shop.example{path}")).body(Full::default()).expect("a request")
}

fn answer(control: &str) -> Response<Full<Bytes>> {
    Response::builder().header(header::CACHE_CONTROL, control).body(Full::from("hello")).expect("a response")
}

async fn send<S, B>(service: &S, request: Request<Full<Bytes>>)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: std::fmt::Debug> + Clone,
    B: http_body::Body<Data: Send, Error: std::fmt::Debug>,
{
    service.clone().oneshot(request).await.expect("an answer").into_body().collect().await.expect("a body");
}

#[tokio::test(start_paused = true)]
async fn a_slow_origin_is_one_request_answered_stale_and_one_to_the_origin() {
    let recorder = Recorder::new();
    let _guard = recorder.install();
    let asked = Arc::new(AtomicU32::new(0));
    let origin = service_fn(move |_: Request<Full<Bytes>>| {
        let again = asked.fetch_add(1, Ordering::Relaxed) > 0;
        async move {
            if again {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            Ok::<_, Infallible>(answer("max-age=0, stale-if-error=600"))
        }
    });
    let cache = HttpCache::new(&Backend::memory()).soft_timeout(Duration::from_millis(100));
    let service = SwrLayer::new(&cache).layer(CacheLayer::new(&cache).layer(CoalesceLayer::new(&cache).layer(origin)));
    send(&service, get("/")).await;
    send(&service, get("/")).await;
    assert!(cache.shutdown(Duration::from_secs(10)).await);
    assert_eq!(recorder.counts(REQUESTS), counts(&[("miss uri-miss", 1), ("stale origin-slow", 1)]));
    assert_eq!(
        recorder.counts(ORIGIN),
        counts(&[("miss 2xx", 2)]),
        "the late answer is stored, and counts as no request"
    );
    assert_eq!(recorder.counts("gatehouse_cache_stored_total"), counts(&[("stored", 2)]));
    assert_eq!(recorder.observed("gatehouse_origin_seconds"), 2);
}

#[tokio::test]
async fn what_another_process_has_filled_is_told_from_what_this_one_followed() {
    let recorder = Recorder::new();
    let _guard = recorder.install();
    let backend = Backend::memory();
    let origin = service_fn(|_: Request<Full<Bytes>>| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok::<_, Infallible>(answer("max-age=60"))
    });
    // Two caches stand for two processes.
    let stack = |name: &str| {
        let cache = HttpCache::new(&backend).named(name);
        CacheLayer::new(&cache).layer(CoalesceLayer::new(&cache).layer(origin))
    };
    let (one, two) = (stack("one"), stack("two"));
    tokio::join!(send(&one, get("/")), send(&one, get("/")), send(&two, get("/")));
    let expected = [("coalesced filled", 1), ("coalesced in-flight", 1), ("miss uri-miss", 1)];
    assert_eq!(recorder.counts(REQUESTS), counts(&expected));
    assert_eq!(recorder.counts(ORIGIN), counts(&[("miss 2xx", 1)]));
}

#[tokio::test]
async fn personal_answers_unclear_hosts_full_stores_and_clients_that_leave_have_reasons_of_their_own() {
    let recorder = Recorder::new();
    let _guard = recorder.install();
    let backend = Backend::from(MemoryBackend::builder().max_entry_bytes(2000).build());
    let origin = service_fn(|request: Request<Full<Bytes>>| async move {
        let mut response = answer("max-age=60");
        match request.uri().path() {
            "/personal" => {
                let personal = Personal::default();
                personal.mark();
                response.extensions_mut().insert(personal);
            }
            "/large" => *response.body_mut() = Full::from(vec![0; 10_000]),
            "/never" => std::future::pending().await,
            _ => {}
        }
        Ok::<_, Infallible>(response)
    });
    let cache = HttpCache::new(&backend);
    let service = SwrLayer::new(&cache).layer(CacheLayer::new(&cache).layer(origin));
    send(&service, get("/personal")).await;
    send(&service, get("/large")).await;
    let mut unclear = get("/");
    unclear.headers_mut().insert(header::HOST, "other.example".parse().expect("a value"));
    send(&service, unclear).await;
    drop(tokio::time::timeout(Duration::from_millis(20), service.clone().oneshot(get("/never"))).await);
    assert_eq!(recorder.counts(REQUESTS), counts(&[("bypass host", 1), ("miss uri-miss", 2)]));
    assert_eq!(recorder.counts(NOT_STORED), counts(&[("personal", 1), ("too-large", 1)]));
    assert_eq!(recorder.counts(ORIGIN), counts(&[("bypass 2xx", 1), ("miss 2xx", 2), ("miss given-up", 1)]));
    let errors = recorder.counts("gatehouse_backend_errors_total");
    assert_eq!(errors, counts(&[("memory commit too-large", 1)]));
    assert_eq!(recorder.observed("gatehouse_backend_seconds"), 0, "memory is not timed");
}

#[tokio::test]
async fn values_are_hits_computed_or_coalesced() {
    let recorder = Recorder::new();
    let _guard = recorder.install();
    let cache = HttpCache::new(&Backend::memory());
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        1
    };
    let (one, two) = tokio::join!(cache.value("a").get_or(slow), cache.value("a").get_or(slow));
    assert_eq!((one, two), (Ok(1), Ok(1)));
    assert_eq!(cache.value("a").get_or(slow).await, Ok(1));
    let expected = counts(&[("coalesced", 1), ("computed", 1), ("hit", 1)]);
    assert_eq!(recorder.counts("gatehouse_cache_values_total"), expected);
}

#[tokio::test]
async fn limits_on_concurrency_count_as_decisions_of_this_process() {
    let recorder = Recorder::new();
    let _guard = recorder.install();
    let origin = service_fn(|_: Request<Full<Bytes>>| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok::<_, Infallible>(answer("no-store"))
    });
    let service = ConcurrencyLimitLayer::new("one", Key::global(), 1).layer(origin);
    tokio::join!(send(&service, get("/")), send(&service, get("/")));
    assert_eq!(recorder.counts(LIMITS), counts(&[("one admitted process", 1), ("one denied process", 1)]));
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn limits_without_a_store_say_who_has_decided() {
    let recorder = Recorder::new();
    let _guard = recorder.install();
    // Nobody listens there.
    let backend = Backend::redis("redis://127.0.0.1:1").connect_lazy().expect("a backend");
    let origin = service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(answer("no-store")) });
    let policy =
        |name: &str, on_error| Policy::new(name, Key::global(), Quota::per_minute(1).burst(1)).on_error(on_error);
    let both = [policy("local", OnError::default()), policy("allow", OnError::Allow)];
    let service = RateLimitLayer::with_policies(&backend, both).layer(origin);
    send(&service, get("/")).await;
    send(&service, get("/")).await;
    let deny = RateLimitLayer::with_policies(&backend, [policy("deny", OnError::Deny)]).layer(origin);
    send(&deny, get("/")).await;
    let expected = [
        ("allow admitted on-error", 1),
        ("deny denied on-error", 1),
        ("local admitted process", 1),
        ("local denied process", 1),
    ];
    assert_eq!(recorder.counts(LIMITS), counts(&expected));
}

#[tokio::test]
async fn without_a_recorder_everything_works_and_a_cache_that_came_before_it_stays_silent_where_it_counts_often() {
    let origin = service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(answer("max-age=60")) });
    let service = |cache: &HttpCache| CacheLayer::new(cache).layer(origin);
    let early = service(&HttpCache::new(&Backend::memory()));
    send(&early, get("/")).await;
    send(&early, get("/")).await;
    let recorder = Recorder::new();
    let _guard = recorder.install();
    send(&early, get("/")).await;
    assert_eq!(recorder.counts(REQUESTS), counts(&[]), "as documented");
    let late = HttpCache::new(&Backend::memory()).rule("/x", Rule::bypass()).expect("a pattern");
    send(&service(&late), get("/")).await;
    send(&service(&late), get("/")).await;
    send(&service(&late), get("/x")).await;
    assert_eq!(recorder.counts(REQUESTS), counts(&[("bypass rule", 1), ("hit fresh", 1), ("miss uri-miss", 1)]));
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_a_miss_that_is_counted_once() {
    let recorder = Recorder::new();
    let _guard = recorder.install();
    let backend = Backend::memory();
    let origin = service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(answer("no-store")) });
    let service = CacheLayer::new(HttpCache::new(&backend).key_in_status()).layer(origin);
    let response = service.clone().oneshot(get("/")).await.expect("an answer");
    let status = response.headers()["cache-status"].to_str().expect("text").to_owned();
    let key = status.split_once("key=\"").and_then(|(_, key)| u128::from_str_radix(key.get(..32)?, 16).ok());
    let key = PrimaryKey::from_bytes(key.expect("a key").to_be_bytes());
    let ticket = backend.ticket(&key).await.expect("memory");
    let end = backend.now().plus(Duration::from_mins(1));
    let entry =
        Entry::builder(ticket).fresh_until(end).keep_until(end).head(Bytes::from_static(b"of another version")).build();
    let commit = Commit { key, variant: Variant(None), entry, refresh: None, lease: None };
    backend.commit(commit).await.expect("memory");
    send(&service, get("/")).await;
    send(&service, get("/")).await;
    assert_eq!(recorder.counts("gatehouse_backend_malformed_total"), counts(&[("response", 1)]));
    assert_eq!(recorder.counts(REQUESTS), counts(&[("miss miss", 2), ("miss uri-miss", 1)]));
}
