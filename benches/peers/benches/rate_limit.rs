//! Rate limits beside governor, tower_governor and a bare fred GET.
//!
//! ```text
//! cargo bench --manifest-path benches/peers/Cargo.toml --bench rate_limit
//! ```

#[path = "../../support/mod.rs"]
mod bench;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    num::NonZeroU32,
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo, routing::get};
use bench::{compare, each};
use fred::prelude::{ClientLike, KeysInterface};
use futures_util::future::join_all;
use governor::{DefaultKeyedRateLimiter, RateLimiter};
use http::Request;
use tokio::runtime::Runtime;
use tower::{Service, ServiceExt};
use tower_gatehouse::{
    Backend,
    backend::{Ask, Limit, LimitKey, Take},
    rate_limit::{Headers, Key, Quota, RateLimitLayer},
};
use tower_governor::{GovernorLayer, governor::GovernorConfigBuilder};

/// Never used up.
const PLENTY: u32 = 1_000_000_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    checks();
    layers(&runtime);
    // A multiplexed client has a task of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    redis(&runtime);
}

fn key(n: u64) -> LimitKey {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    LimitKey::from_bytes(bytes)
}

/// The check alone, over 1,000 keys.
fn checks() {
    let quota = governor::Quota::per_second(NonZeroU32::new(PLENTY).unwrap());
    let limiter: DefaultKeyedRateLimiter<u128> = RateLimiter::keyed(quota);
    let backend = Backend::memory();
    let limit = Limit::rate(Duration::from_nanos(1), PLENTY);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut n, mut m) = (0, 0);
    compare(
        "a check in memory, over 1,000 keys",
        vec![
            each("governor, keyed", || {
                n = (n + 1) % 1000;
                assert!(limiter.check_key(&u128::from_le_bytes(*key(n).as_bytes())).is_ok());
            }),
            each("Backend::take", || {
                m = (m + 1) % 1000;
                let asks = [Ask { limit, cost: 1 }];
                assert!(runtime.block_on(backend.take(&[Take { key: key(m), asks: &asks }])).unwrap().admitted);
            }),
        ],
    );
}

fn router() -> Router {
    Router::new().route("/", get(async || "hello"))
}

/// A request through an axum route, from one of 1,000 addresses.
fn layers(runtime: &Runtime) {
    let governed = |headers: bool| {
        let mut config = GovernorConfigBuilder::default();
        config.per_nanosecond(1).burst_size(PLENTY);
        if headers {
            router().layer(GovernorLayer::new(config.use_headers().finish().unwrap()))
        } else {
            router().layer(GovernorLayer::new(config.finish().unwrap()))
        }
    };
    let backend = Backend::memory();
    let ours = |headers| {
        let quota = Quota::new(PLENTY, Duration::from_secs(1));
        router().layer(RateLimitLayer::new(&backend, "ip", Key::peer_ip(), quota).headers(headers))
    };
    compare(
        "a request through an axum route, by IP address",
        vec![
            ("no limit", through(runtime, router())),
            ("tower_governor", through(runtime, governed(false))),
            ("tower_governor with header fields", through(runtime, governed(true))),
            ("RateLimitLayer without header fields", through(runtime, ours(Headers::None))),
            ("RateLimitLayer with X-RateLimit", through(runtime, ours(Headers::XRateLimit))),
            ("RateLimitLayer with the fields of the draft", through(runtime, ours(Headers::Draft))),
        ],
    );
}

fn through<'a>(runtime: &'a Runtime, router: Router) -> Box<dyn FnMut(u64) + 'a> {
    let mut service = router.into_service::<Body>();
    let mut n = 0u32;
    Box::new(move |times| {
        runtime.block_on(async {
            for _ in 0..times {
                n = (n + 1) % 1000;
                let mut request = Request::new(Body::empty());
                let address = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n));
                request.extensions_mut().insert(ConnectInfo(SocketAddr::new(address, 80)));
                let response = service.ready().await.unwrap().call(request).await.unwrap();
                assert_eq!(response.status(), 200);
            }
        });
    })
}

/// One at a time, and 64 at once, on one connection.
fn redis(runtime: &Runtime) {
    let server = Redis::start();
    let (backend, client) = runtime.block_on(async {
        let config = fred::types::config::Config::from_url(&server.url()).unwrap();
        let client = fred::clients::Client::new(config, None, None, None);
        client.init().await.unwrap();
        let _: () = client.set("key", vec![b'x'; 2048].as_slice(), None, None, false).await.unwrap();
        (Backend::redis(server.url()).connect().await.unwrap(), client)
    });
    let limit = Limit::rate(Duration::from_nanos(100), 1_000_000);
    let take = async |n: u64| {
        let asks = [Ask { limit, cost: 1 }];
        assert!(backend.take(&[Take { key: key(n % 1000), asks: &asks }]).await.unwrap().admitted);
    };
    let get = async |_: u64| {
        let value: fred::types::Value = client.get("key").await.unwrap();
        assert_eq!(value.as_bytes().map(<[u8]>::len), Some(2048));
    };
    for at_once in [1, 64] {
        let gets = |times: u64| {
            runtime.block_on(async {
                for _ in 0..times {
                    join_all((0..at_once).map(get)).await;
                }
            });
        };
        let takes = |times: u64| {
            runtime.block_on(async {
                for _ in 0..times {
                    join_all((0..at_once).map(take)).await;
                }
            });
        };
        compare(
            &format!("Redis, {at_once} at once: one round of all"),
            vec![("fred GET of 2 KiB", Box::new(gets)), ("Backend::take", Box::new(takes))],
        );
    }
}

/// A server of the bench's own, killed with it.
struct Redis {
    process: Child,
    port: u16,
}

impl Redis {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let args = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let process = Command::new("redis-server").args(args).stdout(Stdio::null()).spawn().unwrap();
        let server = Self { process, port };
        let is_up = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        for _ in 0..1000 {
            if is_up() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("redis-server does not start");
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
