//! Real processes: this test binary started again as a reverse proxy with the layers in it, so that one can be killed
//! and frozen.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::IntoResponse as _,
};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tower_gatehouse::{Backend, CacheLayer, CoalesceLayer, HttpCache, SwrLayer};

use crate::{
    fleet::{MS, Steps, settled},
    support::{
        Answer, Gate, Origin, RedisServer,
        http::{Answered, get},
        process::Process,
        wait_until,
    },
};

const NODE: &str = "GATEHOUSE_TEST_NODE";
const STEPS: &str = "/steps";

/// How long a leader that is killed or frozen keeps the others waiting; elsewhere no busy machine is to end a lease.
const SHORT: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(15);

/// A process of the fleet.
struct Node {
    process: Process,
    url: String,
    _dir: TempDir,
}

impl Node {
    fn start(redis: &RedisServer, origin: &Origin, layers: &str, lease: Duration) -> Self {
        let dir = tempfile::Builder::new().prefix("gatehouse-node-").tempdir().expect("a temporary directory");
        let mut command = Command::new(std::env::current_exe().expect("the path of the test"));
        command.args(["--exact", "processes::node", "--nocapture"]);
        command.env(NODE, format!("{} {} {layers} {}", redis.url(), origin.url(), lease.as_secs()));
        let process = Process::spawn(&mut command, &dir.path().join("log")).expect("the node starts");
        let port = || {
            let log = process.log();
            let (_, rest) = log.split_once("port ")?;
            rest.split_once('.').map(|(port, _)| port.to_owned())
        };
        wait_until("the node listens", Duration::from_secs(20), || port().is_some());
        let url = format!("http://127.0.0.1:{}", port().expect("it has printed its port"));
        Self { process, url, _dir: dir }
    }

    fn fleet(redis: &RedisServer, origin: &Origin, layers: &str, lease: Duration) -> Vec<Self> {
        (0..4).map(|_| Self::start(redis, origin, layers, lease)).collect()
    }

    /// As [`Steps::taken`].
    async fn steps(&self) -> (usize, usize) {
        let answer = get(&format!("{}{STEPS}", self.url)).await;
        let (come, steps) = answer.text().split_once(' ').expect("two numbers");
        (come.parse().expect("a number"), steps.parse().expect("a number"))
    }
}

/// What such a process does; without the variable that says so, it checks that it is none.
#[test]
fn node() {
    let Ok(settings) = std::env::var(NODE) else {
        assert!(std::env::var_os(NODE).is_none());
        return;
    };
    let mut settings = settings.split(' ').map(str::to_owned);
    let mut next = || settings.next().expect("four settings");
    let (redis, origin, layers, lease) = (next(), next(), next(), next().parse().expect("seconds"));
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(async {
        let backend =
            Backend::redis(redis).operation_timeout(Duration::from_secs(5)).connect().await.expect("Redis answers");
        // One site, whichever port was asked; and no busy machine makes a follower ask for itself.
        let cache = HttpCache::new(&backend).any_host().wait(Duration::from_secs(25)).lease(Duration::from_secs(lease));
        let client = Client::builder(TokioExecutor::new()).build_http::<axum::body::Body>();
        let mut app = Router::new().fallback(move |mut request: Request| {
            let (client, origin) = (client.clone(), origin.clone());
            async move {
                let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                *request.uri_mut() = format!("{origin}{path}").parse().expect("a URL");
                request.headers_mut().remove("host");
                match client.request(request).await {
                    Ok(response) => response.map(axum::body::Body::new).into_response(),
                    Err(_) => http::StatusCode::BAD_GATEWAY.into_response(),
                }
            }
        });
        for layer in layers.split(',').rev() {
            app = match layer {
                "coalesce" => app.layer(CoalesceLayer::new(&cache)),
                "cache" => app.layer(CacheLayer::new(&cache)),
                "swr" => app.layer(SwrLayer::new(&cache)),
                other => panic!("there is no layer {other}"),
            };
        }
        // For a test that waits until all have come as far as they can.
        let steps = Steps::default();
        let count = steps.clone();
        app = app.layer(from_fn(move |request: Request, next: Next| count.clone().count(next.run(request))));
        let taken = axum::routing::get(async move || {
            let (come, steps) = steps.taken();
            format!("{come} {steps}")
        });
        let app = Router::new().route(STEPS, taken).fallback_service(app);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("port {}.", listener.local_addr().expect("an address").port());
        axum::serve(listener, app).await.expect("it serves until it is killed");
    });
}

/// So many requests to each of these, all at once.
async fn gets(nodes: &[Node], each: usize, path: impl Fn(usize) -> String) -> Vec<Answered> {
    let mut tasks = JoinSet::new();
    for n in 0..each * nodes.len() {
        let url = format!("{}{}", nodes[n % nodes.len()].url, path(n));
        tasks.spawn(async move { get(&url).await });
    }
    tasks.join_all().await
}

fn cacheable(body: &'static str) -> Answer {
    Answer::ok(body).header("cache-control", "max-age=60")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_with_a_thousand_requests_ask_the_origin_once_for_each_key() {
    for layers in ["cache,coalesce", "coalesce"] {
        let (redis, origin) = (RedisServer::start(), Origin::start());
        let nodes = Node::fleet(&redis, &origin, layers, LONG);
        let gate = answer_when_all_have_come(&origin, layers);
        let answers = tokio::join!(gets(&nodes, 250, |_| "/one".to_owned()), open_after(&nodes, 1000, &gate)).0;
        assert!(answers.iter().all(|answer| answer.status == 200 && answer.text() == "content"));
        assert_eq!((answers.len(), origin.count("/one")), (1000, 1), "{layers}");
        let gate = answer_when_all_have_come(&origin, layers);
        let answers = tokio::join!(gets(&nodes, 100, |n| format!("/{}", n / 4)), open_after(&nodes, 1400, &gate)).0;
        assert!(answers.iter().all(|answer| answer.status == 200));
        assert_eq!(origin.total() - 1, 100, "{layers}: a hundred keys");
    }
}

/// Coalescing alone shares only with those who come while the origin is asked, and a thousand connections take their
/// time on a small machine; where a cache is, it takes as long as an origin does.
fn answer_when_all_have_come(origin: &Origin, layers: &str) -> Gate {
    let gate = Gate::new();
    if layers == "coalesce" {
        let shut = gate.clone();
        origin.handle("*", move |_| cacheable("content").behind(&shut));
    } else {
        origin.handle("*", |_| cacheable("content").delay(200 * MS));
    }
    gate
}

/// Opens the gate when so many requests have come to these, in all, and wait.
async fn open_after(nodes: &[Node], requests: usize, gate: &Gate) {
    settled(requests, async || {
        let mut taken = (0, 0);
        for node in nodes {
            let (come, steps) = node.steps().await;
            taken = (taken.0 + come, taken.1 + steps);
        }
        taken
    })
    .await;
    gate.open();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_is_replaced_within_one_lease() {
    let (redis, origin) = (RedisServer::start(), Origin::start());
    let mut nodes = Node::fleet(&redis, &origin, "cache,coalesce", SHORT);
    origin.handle("/a", |seen| {
        let delay = if seen.number == 0 { Duration::from_mins(1) } else { 100 * MS };
        cacheable("content").delay(delay)
    });
    let mut leader = nodes.remove(0);
    let url = format!("{}/a", leader.url);
    let lost =
        tokio::spawn(async move { crate::support::http::send(http::Request::get(url).body("".into()).unwrap()).await });
    origin.wait_for("/a", 1);
    let waiting = tokio::spawn(async move { gets(&nodes, 20, |_| "/a".to_owned()).await });
    tokio::time::sleep(300 * MS).await;
    let killed = Instant::now();
    leader.process.kill();
    assert!(lost.await.unwrap().is_err());
    let answers = waiting.await.unwrap();
    assert!(answers.iter().all(|answer| answer.text() == "content"));
    assert_eq!(origin.count("/a"), 2, "one more request");
    // Those who wait look again within a second.
    assert!(killed.elapsed() < 5 * SHORT, "{:?}", killed.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_frozen_beyond_its_lease_replaces_nothing_newer_and_revives_nothing() {
    let (redis, origin) = (RedisServer::start(), Origin::start());
    let nodes = Node::fleet(&redis, &origin, "cache,coalesce", SHORT);
    let cache =
        HttpCache::new(&Backend::redis(redis.url()).operation_timeout(5000 * MS).connect().await.unwrap()).any_host();
    for (path, invalidates) in [("/newer", false), ("/purged", true)] {
        let gate = Gate::new();
        let shut = gate.clone();
        origin
            .handle(path, move |seen| if seen.number == 0 { cacheable("old").behind(&shut) } else { cacheable("new") });
        let url = format!("{}{path}", nodes[0].url);
        let leader = tokio::spawn(async move { get(&url).await });
        origin.wait_for(path, 1);
        nodes[0].process.signal("STOP");
        gate.open();
        if invalidates {
            cache.invalidate().url(path).await.unwrap();
        } else {
            // Another takes over when the lease has ended, and stores.
            let answer = get(&format!("{}{path}", nodes[1].url)).await;
            assert_eq!(answer.text(), "new");
        }
        nodes[0].process.signal("CONT");
        assert_eq!(leader.await.unwrap().text(), "old", "its own client gets its answer");
        tokio::time::sleep(200 * MS).await;
        for node in &nodes {
            assert_eq!(get(&format!("{}{path}", node.url)).await.text(), "new", "{path}");
        }
        assert_eq!(origin.count(path), 2, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_each_time_an_entry_turns_stale_one_request_goes_to_the_origin() {
    let (redis, origin) = (RedisServer::start(), Origin::start());
    let nodes = Node::fleet(&redis, &origin, "swr,cache,coalesce", LONG);
    origin.handle("/a", |seen| {
        let fields = |answer: Answer| {
            answer.header("etag", "\"v\"").header("cache-control", "max-age=2, stale-while-revalidate=60")
        };
        if seen.header("if-none-match") == "\"v\"" {
            fields(Answer::status(304)).delay(100 * MS)
        } else {
            fields(Answer::ok("content"))
        }
    });
    let start = Instant::now();
    get(&format!("{}/a", nodes[0].url)).await;
    let mut tasks = JoinSet::new();
    let mut tick = tokio::time::interval(5 * MS);
    let mut n = 0;
    while start.elapsed() < Duration::from_secs(7) {
        tick.tick().await;
        let url = format!("{}/a", nodes[n % 4].url);
        n += 1;
        tasks.spawn(async move { get(&url).await });
    }
    let answers = tasks.join_all().await;
    let took = start.elapsed();
    assert!(answers.iter().all(|answer| answer.text() == "content"));
    assert!(answers.iter().all(|answer| ["HIT", "STALE"].contains(&answer.header("x-cache"))), "nobody waits");
    let seen = origin.seen("/a");
    // It is fresh for 2 s from each request to the origin: it turns stale at 2, 4 and 6 s, or a little later.
    let most = 1 + usize::try_from(took.as_secs() / 2).unwrap();
    assert!((3..=most).contains(&seen.len()), "{} in {took:?}: one for each time that it turned stale", seen.len());
    assert!(seen[1..].iter().all(|seen| seen.header("if-none-match") == "\"v\""));
}
