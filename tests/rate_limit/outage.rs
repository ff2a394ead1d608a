//! Redis stopped or frozen: each policy does what it says, soon, and says so once.

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tower_gatehouse::{
    Backend,
    rate_limit::{Key, OnError, Policy, Quota, RateLimitLayer},
};

use crate::{App, header, json, support::RedisServer};

/// What was logged of rate limits.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains("rate limits: ")).map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// In this thread, until the guard is dropped.
fn log() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    // Another test may have been at the same line of the crate just now, where nobody listened.
    tracing::callsite::rebuild_interest_cache();
    (log, guard)
}

fn app(backend: &Backend, on_error: OnError) -> App {
    let policy = Policy::new("all", Key::global(), Quota::per_hour(20)).on_error(on_error);
    App::new(&RateLimitLayer::with_policies(backend, [policy]))
}

/// The status, and how long it took.
async fn timed(app: &App) -> (u16, Duration) {
    let start = Instant::now();
    (app.get().await, start.elapsed())
}

/// Longer than by default: on a busy machine Redis may need more than 50 ms while all is well.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The statuses in order. Each answer comes within that time, or soon after it; and while the breaker is open, at once:
/// half of them much sooner, and hardly one waits for Redis.
async fn statuses(app: &App, n: usize) -> Vec<u16> {
    let mut answers = Vec::new();
    for _ in 0..n {
        answers.push(timed(app).await);
    }
    let slowest = answers.iter().map(|(_, took)| *took).max();
    assert!(slowest < Some(10 * TIMEOUT), "{slowest:?}");
    let mut later: Vec<_> = answers[8..].iter().map(|(_, took)| *took).collect();
    later.sort_unstable();
    assert!(later[later.len() / 2] < TIMEOUT / 10, "{later:?}");
    // A busy machine may stop this process for a while, but not so often.
    let waited = later.iter().filter(|took| **took >= TIMEOUT * 9 / 10).count();
    assert!(waited <= 5, "{later:?}");
    answers.into_iter().map(|(status, _)| status).collect()
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|seen| **seen == status).count()
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed,
    Frozen,
}

async fn each_policy_does_what_it_says(fault: Fault) {
    for (on_error, admitted, refused) in [
        (OnError::Local { share: 1.0 }, 20, 429),
        (OnError::Local { share: 0.25 }, 5, 429),
        (OnError::Allow, 60, 429),
        (OnError::Deny, 0, 503),
    ] {
        let mut server = RedisServer::start();
        let backend = Backend::redis(server.url()).limit_timeout(TIMEOUT).connect().await.unwrap();
        let (log, guard) = log();
        let app = app(&backend, on_error);
        assert_eq!(app.admits(3).await, 3);
        match fault {
            Fault::Killed => server.kill(),
            Fault::Frozen => server.pause(),
        }
        let seen = statuses(&app, 60).await;
        assert_eq!(count(&seen, 200), admitted, "{fault:?} {on_error:?}: {seen:?}");
        assert_eq!(count(&seen, refused), 60 - admitted, "{fault:?} {on_error:?}: {seen:?}");
        assert_eq!(log.lines().len(), 1, "{:?}", log.lines());
        match fault {
            Fault::Killed => server.restart(),
            Fault::Frozen => server.resume(),
        }
        // It recovers by itself, and then counts together again.
        let recovered = async {
            while log.lines().len() < 2 {
                app.get().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), recovered).await.expect("it does not recover");
        app.admits(30).await;
        assert_eq!(app.get().await, 429, "{fault:?} {on_error:?}");
        let lines = log.lines();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("cannot be asked") && lines[1].contains("answers again"), "{lines:?}");
        drop(guard);
    }
}

#[tokio::test]
async fn redis_is_killed() {
    each_policy_does_what_it_says(Fault::Killed).await;
}

#[tokio::test]
async fn redis_is_frozen() {
    each_policy_does_what_it_says(Fault::Frozen).await;
}

#[tokio::test]
async fn a_refusal_for_want_of_redis_is_a_503_that_says_so() {
    let mut server = RedisServer::start();
    let backend = Backend::redis(server.url()).connect().await.unwrap();
    server.kill();
    let answer = app(&backend, OnError::Deny).ask(http::Request::new(())).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(header(&answer, "retry-after"), "1");
    let problem = json(answer).await;
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity");
    assert_eq!(problem["violated-policies"], serde_json::json!(["all"]));
}

#[tokio::test]
async fn nobody_waits_a_second_time_because_of_a_shadow() {
    let server = RedisServer::start();
    let backend = Backend::redis(server.url()).operation_timeout(2 * TIMEOUT).limit_timeout(TIMEOUT);
    let quota = Quota::per_hour(100);
    let policies = [Policy::new("all", Key::global(), quota), Policy::new("new", Key::global(), quota).shadow()];
    let app = App::new(&RateLimitLayer::with_policies(&backend.connect().await.unwrap(), policies));
    assert_eq!(app.get().await, 200);
    server.pause();
    let (status, took) = timed(&app).await;
    server.resume();
    assert_eq!(status, 200);
    assert!(took < TIMEOUT * 19 / 10, "{took:?}");
}

#[tokio::test]
async fn policies_of_one_layer_differ_in_what_they_do() {
    let mut server = RedisServer::start();
    let backend = Backend::redis(server.url()).connect().await.unwrap();
    let layer = RateLimitLayer::with_policies(
        &backend,
        [
            Policy::new("strict", Key::global(), Quota::per_hour(2)).on_error(OnError::Allow),
            Policy::new("local", Key::global(), Quota::per_hour(8)).on_error(OnError::Local { share: 0.5 }),
        ],
    );
    let app = App::new(&layer);
    server.kill();
    assert_eq!(app.admits(20).await, 4);
}
