//! On one Redis: expiry, what is lost and cut under load, cost under attack, bounds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tower_gatehouse::{
    Backend,
    backend::{Ask, Limit, LimitKey, MemoryBackend, Take},
    rate_limit::{Key, OnError, Policy, Quota, RateLimitLayer},
};

use crate::{
    Answer, App, header, patient,
    support::{RedisCluster, RedisSentinel, RedisServer},
    with,
};

fn key(n: u64) -> LimitKey {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    LimitKey::from_bytes(bytes)
}

#[tokio::test]
async fn every_key_has_an_expiry() {
    let server = RedisServer::start();
    let backend = patient(server.url()).await;
    let user = || Key::header(http::HeaderName::from_static("x-user"));
    let layer = RateLimitLayer::with_policies(
        &backend,
        [
            Policy::new("burst", user(), Quota::per_second(3)),
            Policy::new("daily", user(), Quota::per_day(10).fixed_window()),
            Policy::new("all", Key::global(), Quota::per_hour(1000).strict()),
            Policy::new("tokens", Key::global(), Quota::per_hour(10)).charge_after(|_| 50).shadow(),
        ],
    );
    let app = App::new(&layer);
    for n in 0..200 {
        app.ask(with("x-user", &(n % 20).to_string())).await;
    }
    let keys: Vec<_> = server.keys().into_iter().filter(|key| key.contains(":n:")).collect();
    assert!(keys.len() >= 22, "{keys:?}");
    for key in &keys {
        let ttl = server.command(&["PTTL", key]).integer();
        assert!((1..=25 * 3_600_000).contains(&ttl), "{key}: {ttl}");
    }
}

#[tokio::test]
async fn a_request_is_one_round_trip_and_one_script_however_many_policies_there_are() {
    const REQUESTS: u64 = 50;
    let server = RedisServer::start();
    let backend = patient(server.url()).await;
    let user = || Key::header(http::HeaderName::from_static("x-user"));
    let plenty = Quota::per_hour(1_000_000);
    let one = [Policy::new("all", Key::global(), plenty)];
    let window = [Policy::new("window", Key::global(), plenty.fixed_window())];
    let three = ["burst", "daily"].map(|name| Policy::new(name, user(), plenty)).into_iter();
    let three = three.chain([Policy::new("global", Key::global(), plenty)]).collect::<Vec<_>>();
    for (policies, keys) in [(one.to_vec(), 1), (window.to_vec(), 1), (three, 2)] {
        let app = App::new(&RateLimitLayer::with_policies(&backend, policies));
        app.ask(with("x-user", "a")).await; // loads the script
        server.reset_stats();
        for _ in 0..REQUESTS {
            assert_eq!(app.ask(with("x-user", "a")).await.status(), 200);
        }
        // And within the script one command for the time, and two for each key.
        let expected = [("evalsha", 1), ("get", keys), ("set", keys), ("time", 1)];
        let expected = expected.map(|(command, calls)| (command, calls * REQUESTS)).into();
        assert_eq!(server.commandstats().data(), expected);
    }
}

/// The second of two refusals: the first one is Redis', this one is remembered, and what a client is told holds for both.
/// On a machine that is so slow that a unit comes back between them, the next.
async fn refused(app: &App) -> Answer {
    for _ in 0..20 {
        app.get().await;
        let answer = app.ask(http::Request::new(())).await;
        if answer.status() == 429 {
            return answer;
        }
    }
    panic!("it is not refused");
}

#[tokio::test]
async fn a_client_that_obeys_retry_after_is_not_denied_again_by_redis_nor_by_what_is_remembered() {
    let server = RedisServer::start();
    let app = App::new(&RateLimitLayer::new(
        &patient(server.url()).await,
        "all",
        Key::global(),
        Quota::new(2, Duration::from_millis(2500)).burst(1),
    ));
    assert_eq!(app.get().await, 200);
    for _ in 0..3 {
        let seconds = header(&refused(&app).await, "retry-after").parse().unwrap();
        assert!((1..=2).contains(&seconds), "{seconds}");
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        assert_eq!(app.get().await, 200);
    }
}

/// What was denied together with another key may have been given back a moment later: only a key that has denied by
/// itself is known to deny.
#[tokio::test]
async fn a_denial_of_keys_on_different_nodes_is_not_remembered_and_that_of_one_key_is() {
    const LONG: Duration = Duration::from_secs(30);
    let server = RedisServer::start();
    let backend = Backend::redis(server.url()).buckets(2).operation_timeout(LONG).limit_timeout(LONG);
    let backend = backend.connect().await.unwrap();
    let of = |first: u8, units| {
        let mut bytes = [7; 16];
        bytes[0] = first;
        (LimitKey::from_bytes(bytes), [Ask { limit: Limit::rate(Duration::from_hours(1), units), cost: 1 }])
    };
    // The first byte says in which of the two buckets a key lies.
    let ((narrow, one), (wide, hundred)) = (of(0, 1), of(1, 100));
    let (alone, both) = (
        [Take { key: narrow, asks: &one }],
        [narrow, wide].map(|key| Take { key, asks: if key == narrow { &one } else { &hundred } }),
    );
    assert!(backend.take(&both).await.unwrap().admitted);
    for left in [Some(99), None, None] {
        let denied = backend.take(&both).await.unwrap();
        assert!(!denied.admitted);
        let told = denied.levels[1].map(|level| level.remaining);
        assert_eq!(told, left, "nothing is taken, and then it is not even asked for");
        assert_eq!(backend.take_now(&both), None);
        assert_eq!(backend.take_now(&alone), None);
    }
    assert!(!backend.take(&alone).await.unwrap().admitted);
    assert!(!backend.take_now(&alone).expect("it is remembered").admitted);
    let recalled = backend.take_now(&both).expect("one of them is known to deny");
    assert_eq!((recalled.admitted, recalled.levels[1]), (false, None));
}

/// Takes from one key in many tasks until told to stop; how many were answered, and how many failed.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

const PLENTY: u32 = 100_000_000;

fn plenty() -> Limit {
    // Hardly refills while a test runs: a unit takes 25 ms, all of them 29 days.
    Limit::rate(Duration::from_millis(25), PLENTY)
}

impl Load {
    fn start(backend: &Backend) -> Self {
        let (stop, answered, failed) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let tasks = (0..16).map(|_| {
            let (backend, stop) = (backend.clone(), Arc::clone(&stop));
            let (answered, failed) = (Arc::clone(&answered), Arc::clone(&failed));
            tokio::spawn(async move {
                let asks = [Ask { limit: plenty(), cost: 1 }];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(taken) = backend.take(&[Take { key: key(1), asks: &asks }]).await {
                        assert!(taken.admitted);
                        answered.fetch_add(1, Ordering::Relaxed);
                    } else {
                        failed.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            })
        });
        let tasks = tasks.collect();
        Self { stop, answered, failed, tasks }
    }

    async fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        (self.answered.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

/// What was taken in all, and how much of it may have refilled since `start`.
async fn used(backend: &Backend, start: Instant) -> (u64, u64) {
    let asks = [Ask { limit: plenty(), cost: 0 }];
    let taken = backend.take(&[Take { key: key(1), asks: &asks }]).await.unwrap();
    let left = taken.levels[0].unwrap().remaining;
    (u64::from(PLENTY) - left, u64::try_from(start.elapsed().as_millis()).unwrap() / 25 + 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_are_flushed_and_clients_that_are_killed_lose_and_double_nothing() {
    let server = RedisServer::start();
    let backend = patient(server.url()).await;
    let (start, load) = (Instant::now(), Load::start(&backend));
    for _ in 0..4 {
        for _ in 0..14 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            server.command(&["SCRIPT", "FLUSH"]);
        }
        // Opens the breaker, for a second.
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    let (answered, failed) = load.stop().await;
    let (used, refilled) = used(&patient(server.url()).await, start).await;
    assert!(answered > 100, "{answered} answered, {failed} failed");
    // Each that was answered was counted once; each that failed at most once.
    assert!(used + refilled >= answered, "{used} used, {refilled} refilled, {answered} answered");
    assert!(used <= answered + failed, "{used} used, {answered} answered, {failed} failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_layer_answers_all_requests_while_scripts_are_flushed_and_clients_are_killed() {
    let server = RedisServer::start();
    let backend = Backend::redis(server.url()).connect().await.unwrap();
    let layer = RateLimitLayer::new(&backend, "all", Key::global(), Quota::per_hour(1_000_000_000));
    let app = App::new(&layer);
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (app, stop) = (app.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut asked = 0;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(app.get().await, 200);
                    asked += 1;
                    tokio::time::sleep(Duration::from_micros(100)).await;
                }
                asked
            })
        })
        .collect();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.command(&["SCRIPT", "FLUSH"]);
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    stop.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for task in tasks {
        asked += task.await.unwrap();
    }
    assert!(asked > 50, "{asked}");
}

/// While others take over, the layer answers all requests, and afterwards nothing was counted twice. How much was used,
/// may have been refilled, and was answered.
async fn survive(url: &str, fail_over: impl FnOnce() + Send + 'static) -> (u64, u64, u64) {
    let backend = Backend::redis(url).connect().await.unwrap();
    let (start, load) = (Instant::now(), Load::start(&backend));
    let policy = Policy::new("all", Key::global(), Quota::per_hour(1_000_000)).on_error(OnError::Allow);
    let app = App::new(&RateLimitLayer::with_policies(&backend, [policy]));
    let over = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn({
        let (app, over) = (app.clone(), Arc::clone(&over));
        async move {
            let mut asked = 0;
            while !over.load(Ordering::Relaxed) {
                assert_eq!(app.get().await, 200);
                asked += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            asked
        }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    tokio::task::spawn_blocking(fail_over).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    over.store(true, Ordering::Relaxed);
    assert!(watch.await.unwrap() > 20);
    let (answered, failed) = load.stop().await;
    let (used, refilled) = used(&patient(url).await, start).await;
    assert!(answered > 100, "{answered} answered, {failed} failed");
    assert!(used <= answered + failed, "{used} used, {answered} answered, {failed} failed");
    (used, refilled, answered)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_of_a_cluster_under_load_is_no_error_for_clients_and_doubles_and_loses_nothing() {
    let cluster = Arc::new(RedisCluster::start());
    let (url, all) = (cluster.url(), Arc::clone(&cluster));
    // The replicas of all three masters take over, one after the other, each agreed with its master.
    let (used, refilled, answered) = survive(&url, move || (3..6).for_each(|replica| all.fail_over(replica))).await;
    assert!(used + refilled >= answered, "{used} used, {refilled} refilled, {answered} answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_under_sentinel_is_no_error_for_clients_and_doubles_nothing() {
    let sentinel = Arc::new(RedisSentinel::start());
    let (url, all) = (sentinel.url(), Arc::clone(&sentinel));
    // What the old master acknowledged last may be lost.
    survive(&url, move || {
        all.fail_over();
    })
    .await;
    let fresh = patient(sentinel.url()).await;
    let asks = [Ask { limit: plenty(), cost: 1 }];
    assert!(fresh.take(&[Take { key: key(1), asks: &asks }]).await.unwrap().admitted, "the new master counts");
}

/// How many requests ask for as long as it takes to see some units come back, how many of them are admitted, and how
/// many round trips that costs.
async fn overload(quota: Quota) -> (u64, u64, u64) {
    let server = RedisServer::start();
    let app = App::new(&RateLimitLayer::new(&patient(server.url()).await, "all", Key::global(), quota));
    app.get().await;
    server.reset_stats();
    let end = Instant::now() + Duration::from_secs(2);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move {
                let (mut asked, mut admitted) = (0, 0);
                while Instant::now() < end {
                    admitted += u64::from(app.get().await == 200);
                    asked += 1;
                    tokio::task::yield_now().await;
                }
                (asked, admitted)
            })
        })
        .collect();
    let (mut asked, mut admitted) = (0, 0);
    for task in tasks {
        let (a, b) = task.await.unwrap();
        asked += a;
        admitted += b;
    }
    let stats = server.commandstats();
    (asked, admitted, stats.calls("evalsha") + stats.calls("eval"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_a_hundred_times_the_limit_one_request_in_ten_or_less_asks_redis() {
    for quota in [Quota::per_second(3), Quota::per_second(5).burst(1), Quota::per_minute(6).fixed_window()] {
        let mut tries = 0;
        let (asked, admitted, calls) = loop {
            let (asked, admitted, calls) = overload(quota).await;
            if asked >= 100 * admitted.max(1) {
                break (asked, admitted, calls);
            }
            // So slow that it was none.
            tries += 1;
            assert!(tries < 20, "{quota:?}: not an overload: {asked} asked, {admitted} admitted");
        };
        assert!(calls * 10 <= asked, "{quota:?}: {calls} round trips for {asked} requests");
        assert!(calls >= admitted, "every admission is asked for");
    }
}

const HEAVY: u64 = u64::MAX;

/// One key uses up its quota; a million others come by once each; the first is still denied.
async fn flood(backend: &Backend, fresh: &Backend) {
    let limit = Limit::rate(Duration::from_hours(1), 10);
    let asks = [Ask { limit, cost: 1 }];
    for n in 0..12 {
        let taken = backend.take(&[Take { key: key(HEAVY), asks: &asks }]).await.unwrap();
        assert_eq!(taken.admitted, n < 10);
    }
    for batch in 0..20_000 {
        let keys: Vec<_> = (batch * 50..(batch + 1) * 50).map(key).collect();
        let takes: Vec<_> = keys.iter().map(|&key| Take { key, asks: &asks }).collect();
        assert!(backend.take(&takes).await.unwrap().admitted);
    }
    assert!(
        !fresh.take(&[Take { key: key(HEAVY), asks: &asks }]).await.unwrap().admitted,
        "the heavy one is forgotten"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_keys_in_memory_are_bounded_and_the_heavy_offender_stays_denied() {
    let store = MemoryBackend::new();
    let backend = Backend::from(store.clone());
    flood(&backend, &backend).await;
    assert!(store.limit_keys() <= 262_144, "{}", store.limit_keys());
    assert!(store.limit_keys() > 200_000, "the room is used: {}", store.limit_keys());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_keys_on_redis_are_bounded_and_the_heavy_offender_stays_denied() {
    const MAX: u64 = 40 << 20;
    let server = RedisServer::builder().maxmemory(MAX, "volatile-ttl").start();
    let (backend, fresh) = (patient(server.url()).await, patient(server.url()).await);
    flood(&backend, &fresh).await;
    let used: u64 = server.info("memory")["used_memory"].trim().parse().unwrap();
    assert!(used <= MAX + (4 << 20), "{used} bytes");
    assert!(server.info("stats")["evicted_keys"].trim() != "0", "it was full");
}
