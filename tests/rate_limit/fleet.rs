//! Several processes on one Redis admit together what one would.

use std::{
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderName, Request};
use tower_gatehouse::{
    Backend,
    rate_limit::{Key, OnError, Policy, Quota, RateLimitLayer},
};

use crate::{App, header, patient, support::RedisServer, with};

/// What a process of the fleet is told: the Redis, the layer, when to begin (milliseconds since the epoch).
const TOLD: &str = "GATEHOUSE_TEST_FLEET";
/// Should a call to Redis fail all the same, no process decides for itself: a 503 ends the test.
const DENY: OnError = OnError::Deny;
const PROCESSES: usize = 4;
const REQUESTS: usize = 500;
/// Of this, a unit takes longer to come back than any test.
const MONTH: Duration = Duration::from_hours(30 * 24);

fn layer(name: &str, backend: &Backend) -> RateLimitLayer {
    let user = || Key::header(HeaderName::from_static("x-user"));
    match name {
        "hardly-refills" => RateLimitLayer::with_policies(
            backend,
            [Policy::new("all", Key::global(), Quota::new(100, MONTH)).on_error(DENY)],
        ),
        "refills" => {
            let quota = Quota::per_second(50).burst(100);
            RateLimitLayer::with_policies(backend, [Policy::new("all", Key::global(), quota).on_error(DENY)])
        }
        "three" => RateLimitLayer::with_policies(
            backend,
            [
                Policy::new("burst", user(), Quota::new(100, MONTH)).on_error(DENY),
                Policy::new("daily", user(), Quota::new(1000, MONTH)).on_error(DENY),
                Policy::new("all", Key::global(), Quota::new(5000, MONTH)).on_error(DENY),
            ],
        ),
        other => panic!("no layer {other}"),
    }
}

fn millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// One process of the fleet; the tests below start it. By itself it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_of_the_fleet() {
    let Ok(told) = std::env::var(TOLD) else { return };
    let [url, name, begin] = told.split(' ').collect::<Vec<_>>().try_into().expect("three words");
    let backend = patient(url).await;
    let app = App::new(&layer(name, &backend));
    let begin = begin.parse::<u128>().unwrap().saturating_sub(millis());
    tokio::time::sleep(Duration::from_millis(begin.try_into().unwrap())).await;
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move {
                let mut admitted = 0;
                for _ in 0..REQUESTS / 10 {
                    match app.ask(with("x-user", "one")).await.status().as_u16() {
                        200 => admitted += 1,
                        429 => {}
                        other => panic!("status {other}"),
                    }
                }
                admitted
            })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += task.await.unwrap();
    }
    assert_eq!(app.reached(), admitted);
    println!("\nadmitted {admitted}");
}

/// How many requests the fleet admits, and for how long it ran at most.
fn run_fleet(server: &RedisServer, name: &str) -> (usize, Duration) {
    let begin = millis() + 1500;
    let told = format!("{} {name} {begin}", server.url());
    let processes: Vec<_> = (0..PROCESSES)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "fleet::process_of_the_fleet", "--nocapture"])
                .env(TOLD, &told)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut admitted = 0;
    for process in processes {
        let output = process.wait_with_output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{printed}");
        let count = printed.lines().find_map(|line| line.strip_prefix("admitted ")).expect("a count");
        admitted += count.parse::<usize>().unwrap();
    }
    (admitted, Duration::from_millis((millis() - begin).try_into().unwrap()))
}

/// A process of its own, that remembers no denial.
async fn fresh(server: &RedisServer, name: &str) -> App {
    App::new(&layer(name, &patient(server.url()).await))
}

#[tokio::test]
async fn four_processes_with_500_requests_each_admit_exactly_the_limit() {
    let server = RedisServer::start();
    let (admitted, _) = run_fleet(&server, "hardly-refills");
    assert_eq!(admitted, 100);
    assert_eq!(fresh(&server, "hardly-refills").await.get().await, 429);
}

#[tokio::test]
async fn four_processes_admit_the_burst_and_what_refills_meanwhile() {
    let server = RedisServer::start();
    let (admitted, took) = run_fleet(&server, "refills");
    let refilled = usize::try_from(took.as_millis()).unwrap() * 50 / 1000 + 1;
    assert!((100..=100 + refilled).contains(&admitted), "{admitted} admitted, {refilled} refilled at most");
}

#[tokio::test]
async fn four_processes_with_three_policies_admit_what_the_tightest_does_and_leave_the_others_untouched() {
    let server = RedisServer::start();
    let (admitted, _) = run_fleet(&server, "three");
    assert_eq!(admitted, 100);
    let denied = fresh(&server, "three").await.ask(with("x-user", "one")).await;
    assert_eq!(denied.status(), 429);
    let told = header(&denied, "ratelimit");
    for part in [r#""burst";r=0;"#, r#""daily";r=900;"#, r#""all";r=4900;"#] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    let other = fresh(&server, "three").await.ask(with("x-user", "two")).await;
    assert_eq!(other.status(), 200);
    assert!(header(&other, "ratelimit").contains(r#""all";r=4899;"#), "{}", header(&other, "ratelimit"));
    assert_eq!(fresh(&server, "three").await.ask(Request::new(())).await.status(), 200);
}
