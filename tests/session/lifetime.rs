//! When sessions end.

use std::time::{Duration, Instant};

use http::header;
use tower_gatehouse::{
    Backend, TestClock,
    session::{KeyRing, Lifetime, Session, SessionError, SessionLayer},
};

use crate::app::{App, Client, Login, redis, routes};

const MIN: Duration = Duration::from_mins(1);

fn app(clock: &TestClock) -> App {
    App::new(&Backend::memory_with(clock))
}

async fn user(client: &Client) -> String {
    // The touch goes its own way.
    let user = client.ok("GET", "/me").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    user
}

#[tokio::test]
async fn a_user_who_does_nothing_for_half_an_hour_is_logged_out() {
    let clock = TestClock::new();
    let (idle, busy) = (app(&clock).client(), app(&clock).client());
    let busy = Client { app: idle.app.clone(), ..busy };
    idle.ok("POST", "/login/ann").await;
    busy.ok("POST", "/login/bob").await;
    clock.advance(29 * MIN);
    assert_eq!(user(&busy).await, "bob");
    clock.advance(MIN);
    assert_eq!(user(&idle).await, "");
    assert_eq!(idle.token(), None, "the browser is told");
    clock.advance(28 * MIN);
    assert_eq!(user(&busy).await, "bob", "29 minutes after the touch");
}

#[tokio::test]
async fn after_twelve_hours_everybody_is_logged_out() {
    let clock = TestClock::new();
    let client = app(&clock).client();
    client.ok("POST", "/login/ann").await;
    for _ in 0..(12 * 3 - 1) {
        clock.advance(20 * MIN);
        assert_eq!(user(&client).await, "ann");
        client.ok("POST", "/visit").await;
    }
    clock.advance(20 * MIN);
    assert_eq!(user(&client).await, "");
}

#[tokio::test]
async fn a_session_is_touched_after_a_tenth_of_its_idle_time_and_not_before() {
    let clock = TestClock::new();
    let backend = Backend::memory_with(&clock);
    let client = App::new(&backend).client();
    client.ok("POST", "/login/ann").await;
    let handle = tower_gatehouse::session::Sessions::new(&backend).of("ann").await.unwrap()[0];
    let expires = async || backend.load(&handle).await.unwrap().unwrap().expires;
    let first = expires().await;
    clock.advance(MIN * 29 / 10);
    user(&client).await;
    assert_eq!(expires().await, first, "2.9 minutes of 30: not worth a write");
    clock.advance(MIN / 10);
    user(&client).await;
    assert_eq!(expires().await, first.plus(3 * MIN));
    // A change is as good as a touch, and a change and a touch are not two writes.
    clock.advance(4 * MIN);
    client.ok("POST", "/visit").await;
    assert_eq!(expires().await, first.plus(7 * MIN));
    assert_eq!(backend.load(&handle).await.unwrap().unwrap().version, 2);
}

#[tokio::test]
async fn an_anonymous_session_lives_for_an_hour() {
    let clock = TestClock::new();
    let client = app(&clock).client();
    client.ok("POST", "/visit").await;
    clock.advance(59 * MIN);
    client.ok("POST", "/visit").await;
    assert_eq!(client.json::<crate::app::Shop>("/read").await.visits, 2);
    clock.advance(MIN);
    assert_eq!(client.json::<crate::app::Shop>("/read").await.visits, 0);
}

fn max_age(response: &http::Response<String>) -> u64 {
    let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
    cookie.split("Max-Age=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn cookie_and_store_end_together() {
    let clock = TestClock::new();
    let backend = Backend::memory_with(&clock);
    let remember = async |s: Session<Login>| {
        let days = Lifetime { idle: Duration::from_hours(240), absolute: Duration::from_hours(720) };
        s.begin_login("ann").await?.finish_for(days, |login| login.since = 1).await?;
        Ok::<_, SessionError>(())
    };
    let layer = SessionLayer::new(&backend, KeyRing::ephemeral());
    let app = App(routes().route("/remember", axum::routing::post(remember)).layer(layer));

    for (path, lives, idle) in [
        ("/visit", Duration::from_hours(1), Duration::from_hours(1)),
        ("/login/ann", Duration::from_hours(12), 30 * MIN),
        ("/remember", Duration::from_hours(720), Duration::from_hours(240)),
    ] {
        let client = app.client();
        let cookie_lives = Duration::from_secs(max_age(&client.post(path).await));
        assert_eq!(cookie_lives, lives, "{path}");
        let started = clock.now();
        // Used all the time, it is there until the cookie's last second, and gone with it.
        while clock.now().since(started) + idle / 2 < cookie_lives {
            clock.advance(idle / 2);
            assert_ne!(client.ok("GET", "/all").await, "{}", "{path}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        clock.set(started.plus(cookie_lives).minus(Duration::from_secs(1)));
        assert_ne!(client.ok("GET", "/all").await, "{}", "{path}");
        clock.advance(Duration::from_secs(1));
        assert_eq!(client.ok("GET", "/all").await, "{}", "{path}");
    }
}

#[tokio::test]
async fn a_cycled_session_keeps_its_deadline_and_so_does_its_cookie() {
    let clock = TestClock::new();
    let client = app(&clock).client();
    client.ok("POST", "/visit").await;
    clock.advance(20 * MIN);
    let old = client.token();
    let response = client.post("/cycle").await;
    assert_eq!(max_age(&response), 40 * 60);
    assert_ne!(client.token(), old);
    clock.advance(40 * MIN);
    assert_eq!(client.ok("GET", "/all").await, "{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_in_real_time_in_memory() {
    sessions_end_in_real_time(Backend::memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_in_real_time_on_redis() {
    sessions_end_in_real_time(redis().await).await;
}

async fn sessions_end_in_real_time(backend: Backend) {
    const IDLE: Duration = Duration::from_secs(3);
    const ABSOLUTE: Duration = Duration::from_secs(6);
    const SECOND: Duration = Duration::from_secs(1);
    let app = App::with(SessionLayer::new(&backend, KeyRing::ephemeral()).idle(IDLE).absolute(ABSOLUTE));
    let (idle, busy) = (app.client(), app.client());
    let start = Instant::now();
    idle.ok("POST", "/login/ann").await;
    busy.ok("POST", "/login/bob").await;
    let begun = Instant::now();
    let mut used = start;
    while start.elapsed() + SECOND < ABSOLUTE {
        tokio::time::sleep(SECOND).await;
        let asked = Instant::now();
        let answer = busy.ok("GET", "/me").await;
        // A machine that is too slow proves nothing.
        if used.elapsed() > IDLE / 2 || start.elapsed() + SECOND / 10 > ABSOLUTE {
            break;
        }
        assert_eq!(answer, "bob");
        used = asked;
    }
    tokio::time::sleep((IDLE + SECOND / 10).saturating_sub(begun.elapsed())).await;
    assert_eq!(idle.ok("GET", "/me").await, "");
    tokio::time::sleep((ABSOLUTE + SECOND / 10).saturating_sub(begun.elapsed())).await;
    assert_eq!(busy.ok("GET", "/me").await, "");
}
