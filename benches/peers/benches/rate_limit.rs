//! Rate limits beside governor, tower_governor and a bare fred GET.
//!
//! ```text
//! cargo bench --manifest-path benches/peers/Cargo.toml --bench rate_limit
//! ```

#[path = "../../support/mod.rs"]
mod bench;
mod redis;
#[path = "../../support/rounds.rs"]
mod rounds;

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo, routing::get};
use bench::{compare, each};
use fred::prelude::{ClientLike, KeysInterface};
use governor::{DefaultKeyedRateLimiter, RateLimiter};
use http::{Request, Response};
use redis::Redis;
use rounds::rounds;
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_gatehouse::{
    Backend,
    backend::{Ask, Limit, LimitKey, Take},
    rate_limit::{Headers, Key, Quota, RateLimitLayer},
};
use tower_governor::{GovernorLayer, governor::GovernorConfigBuilder};

/// Never used up.
const PLENTY: u32 = 1_000_000_000;

fn main() {
    // One thread, so that a check is not measured together with the scheduler.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    checks();
    layers(&runtime);
    routes(&runtime);
    refusals(&runtime);
    on_redis(&runtime);
}

fn key(n: u64) -> LimitKey {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    LimitKey::from_bytes(bytes)
}

/// The counter alone, over 1,000 keys.
fn checks() {
    let quota = governor::Quota::per_second(NonZeroU32::new(PLENTY).unwrap());
    let limiter: DefaultKeyedRateLimiter<u128> = RateLimiter::keyed(quota);
    let backend = Backend::memory();
    let limit = Limit::rate(Duration::from_nanos(1), PLENTY);
    let (mut n, mut m) = (0, 0);
    compare(
        "a counter in memory, of 1,000 keys",
        vec![
            each("governor, keyed", || {
                n = (n + 1) % 1000;
                assert!(limiter.check_key(&u128::from_le_bytes(*key(n).as_bytes())).is_ok());
            }),
            each("Backend::take_now", || {
                m = (m + 1) % 1000;
                let asks = [Ask { limit, cost: 1 }];
                assert!(backend.take_now(&[Take { key: key(m), asks: &asks }]).unwrap().admitted);
            }),
        ],
    );
}

/// So many a nanosecond, and so many at once; with header fields or without.
macro_rules! governor {
    ($burst:expr, $period:expr, $($fields:ident)?) => {{
        let mut config = GovernorConfigBuilder::default();
        config.period($period).burst_size($burst);
        GovernorLayer::new(config$(.$fields())?.finish().unwrap())
    }};
}

fn ours(backend: &Backend, headers: Headers) -> RateLimitLayer {
    let quota = Quota::new(PLENTY, Duration::from_secs(1));
    RateLimitLayer::new(backend, "ip", Key::peer_ip(), quota).headers(headers)
}

const NANOSECOND: Duration = Duration::from_nanos(1);

/// The layers alone: a request from one of 1,000 addresses to a service that does nothing.
fn layers(runtime: &Runtime) {
    let nothing = || service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Body::empty())));
    let backend = Backend::memory();
    let layer = |headers| ours(&backend, headers).layer(nothing());
    compare(
        "a layer by IP address, without header fields",
        vec![
            ("tower_governor", through(runtime, governor!(PLENTY, NANOSECOND,).layer(nothing()), 200)),
            ("RateLimitLayer", through(runtime, layer(Headers::None), 200)),
            ("no layer", through(runtime, nothing(), 200)),
        ],
    );
    compare(
        "a layer by IP address, with header fields",
        vec![
            ("tower_governor", through(runtime, governor!(PLENTY, NANOSECOND, use_headers).layer(nothing()), 200)),
            ("RateLimitLayer with X-RateLimit", through(runtime, layer(Headers::XRateLimit), 200)),
            ("RateLimitLayer with the fields of the draft", through(runtime, layer(Headers::Draft), 200)),
            ("no layer", through(runtime, nothing(), 200)),
        ],
    );
}

/// The same around an axum route.
fn routes(runtime: &Runtime) {
    let router = || Router::new().route("/", get(async || "hello"));
    // As a server does: without it, axum makes the layers anew for each request.
    let route = |router: Router| router.with_state(()).into_service::<Body>();
    let backend = Backend::memory();
    let limited = |headers| route(router().layer(ours(&backend, headers)));
    compare(
        "an axum route, without header fields",
        vec![
            ("tower_governor", through(runtime, route(router().layer(governor!(PLENTY, NANOSECOND,))), 200)),
            ("RateLimitLayer", through(runtime, limited(Headers::None), 200)),
            ("no layer", through(runtime, route(router()), 200)),
        ],
    );
    compare(
        "an axum route, with header fields",
        vec![
            (
                "tower_governor",
                through(runtime, route(router().layer(governor!(PLENTY, NANOSECOND, use_headers))), 200),
            ),
            ("RateLimitLayer with X-RateLimit", through(runtime, limited(Headers::XRateLimit), 200)),
            ("RateLimitLayer with the fields of the draft", through(runtime, limited(Headers::Draft), 200)),
            ("no layer", through(runtime, route(router()), 200)),
        ],
    );
}

/// Who is refused costs this much.
fn refusals(runtime: &Runtime) {
    const LONG: Duration = Duration::from_hours(24);
    let nothing = || service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Body::empty())));
    let quota = Quota::new(1, LONG);
    let layer = RateLimitLayer::new(&Backend::memory(), "ip", Key::peer_ip(), quota).headers(Headers::XRateLimit);
    let (mut governed, mut limited) = (governor!(1, LONG, use_headers).layer(nothing()), layer.layer(nothing()));
    // What is there at first.
    runtime.block_on(async {
        for n in 0..1000 {
            governed.call(from(n)).await.unwrap();
            limited.call(from(n)).await.unwrap();
        }
    });
    compare(
        "a refusal, with header fields",
        vec![
            ("tower_governor", through(runtime, governed, 429)),
            ("RateLimitLayer with X-RateLimit", through(runtime, limited, 429)),
        ],
    );
}

fn from<B: Default>(n: u32) -> Request<B> {
    let mut request = Request::new(B::default());
    let address = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n));
    request.extensions_mut().insert(ConnectInfo(SocketAddr::new(address, 80)));
    request
}

fn through<'a, S, B, R>(runtime: &'a Runtime, mut service: S, status: u16) -> Box<dyn FnMut(u64) + 'a>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible> + 'a,
    B: Default,
{
    let mut n = 0u32;
    Box::new(move |times| {
        runtime.block_on(async {
            for _ in 0..times {
                n = (n + 1) % 1000;
                let Ok(response) = service.ready().await.unwrap().call(from(n)).await;
                assert_eq!(response.status(), status);
            }
        });
    })
}

/// One at a time, and 64 at once, on one connection.
fn on_redis(runtime: &Runtime) {
    let server = Redis::start();
    let (backend, client) = runtime.block_on(async {
        let config = fred::types::config::Config::from_url(&server.url()).unwrap();
        let client = fred::clients::Client::new(config, None, None, None);
        client.init().await.unwrap();
        let _: () = client.set("key", vec![b'x'; 64].as_slice(), None, None, false).await.unwrap();
        // A turn that the machine has interrupted must not open the breaker.
        let long = Duration::from_secs(10);
        let backend = Backend::redis(server.url()).operation_timeout(long).limit_timeout(long).connect().await.unwrap();
        (backend, client)
    });
    let limit = Limit::rate(Duration::from_nanos(100), 1_000_000);
    let take = async |n: usize| {
        let asks = [Ask { limit, cost: 1 }];
        assert!(backend.take(&[Take { key: key(n as u64 % 1000), asks: &asks }]).await.unwrap().admitted);
    };
    let get = async |_: usize| {
        let value: fred::types::Value = client.get("key").await.unwrap();
        assert_eq!(value.as_bytes().map(<[u8]>::len), Some(64));
    };
    for at_once in [1, 64] {
        compare(
            &format!("Redis, {at_once} at once: one round of all"),
            vec![
                rounds(runtime, "fred GET of 64 bytes", at_once, get),
                rounds(runtime, "Backend::take", at_once, take),
            ],
        );
    }
}
