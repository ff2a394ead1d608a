//! What a request through all six layers asks Redis for, as the guide's page says it.

use std::time::Duration;

use axum::{
    Router,
    routing::{get, post},
};
use http::header::CACHE_CONTROL;
use tower_gatehouse::{
    Backend, CacheLayer, CoalesceLayer, HttpCache, InvalidateTags, SwrLayer, Tag, TagInvalidationLayer,
    rate_limit::{Key, Quota, RateLimitLayer},
    session::{KeyRing, Session, SessionError, SessionLayer},
};

use crate::{
    app::{App, Client, namespace, patient, routes},
    round_trips::Counter,
    support::RedisServer,
};

/// The rows of the page's table: what is asked for, and the words in backquotes.
fn documented() -> Vec<(String, Vec<String>)> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/redis.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let (_, table) = page.split_once("| through all six layers |").expect("the table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.trim_matches('|').split_once('|'));
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    cells.map(|(what, commands)| (what.trim().to_owned(), quoted(commands))).collect()
}

/// What the page calls a command: by its name, and by the key that it is for.
fn name(command: &str, key: &str) -> String {
    let kind = key.split("}:").nth(1).and_then(|rest| rest.split(':').next()).unwrap_or_default();
    match (command, kind) {
        ("EVALSHA", "n") => "limit",
        ("EVALSHA", "l" | "lr") => "lease",
        ("SET", "s") => "value",
        ("EVALSHA", "e") => "commit",
        ("EVALSHA", "c") => "invalidation",
        ("GET", "session") => "session",
        ("MGET", _) => "look-up",
        ("EVALSHA", "session") => "session change",
        _ => return format!("{command} {key}"),
    }
    .to_owned()
}

/// The documented order, outermost last.
fn app(backend: &Backend, per_minute: u32) -> App {
    let cache = HttpCache::new(backend);
    let more = Router::new()
        .route("/page/{n}", get(async || ([(CACHE_CONTROL, "public, max-age=60"), (TAG, "page")], "for all")))
        .route("/stale/{n}", get(async || ([(CACHE_CONTROL, STALE)], "for all")))
        .route("/own/{n}", get(async || ([(CACHE_CONTROL, "no-store")], "for one")))
        .route("/count", post(async |s: Session| s.insert("n", 1).await))
        .route("/mine", get(async |s: Session| Ok::<_, SessionError>(s.user().await?.unwrap_or_default())))
        .route("/change", post(async || (InvalidateTags::new([Tag::new("page").unwrap()]), "changed")));
    let quota = Quota::per_minute(per_minute);
    let router = routes()
        .merge(more)
        .layer(CoalesceLayer::new(&cache))
        .layer(CacheLayer::new(&cache))
        .layer(SwrLayer::new(&cache))
        .layer(TagInvalidationLayer::new(&cache))
        .layer(RateLimitLayer::new(backend, "user", Key::user(), quota))
        .layer(SessionLayer::new(backend, KeyRing::new([7; 32]).unwrap()))
        .layer(RateLimitLayer::new(backend, "ip", Key::from_fn(|_| Some("192.0.2.1")), quota));
    App(router)
}

const TAG: http::HeaderName = http::HeaderName::from_static("cache-tag");
const STALE: &str = "public, max-age=0, stale-while-revalidate=60";

/// Asks once, and tells what Redis was asked for, in the background, too: `n` commands, or more.
async fn cost(counter: &mut Counter<'_>, client: &Client, (method, path): (&str, &str), n: usize) -> Vec<String> {
    client.send(method, path).await;
    let mut calls = counter.calls();
    for _ in 0..1000 {
        if calls.len() >= n {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        calls.extend(counter.calls());
    }
    calls.iter().map(|(command, key)| name(command, key)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_asks_redis_for_is_what_the_page_says() {
    let server = RedisServer::start();
    let prefix = namespace();
    let backend = patient(server.url()).namespace(&prefix).connect().await.unwrap();
    let mut counter = Counter::new(&server, &prefix);
    let app = app(&backend, 10_000);
    let (nobody, ann) = (app.client(), app.client());
    ann.ok("POST", "/login/ann").await;
    // Every script once, so that Redis knows them, and every page that is to be a hit.
    for (method, path) in [("GET", "/page/1"), ("GET", "/stale/1"), ("GET", "/own/1"), ("POST", "/change")] {
        nobody.ok(method, path).await;
    }
    ann.ok("POST", "/count").await;
    nobody.ok("GET", "/page/1").await;
    // Leases may still be given back.
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if counter.calls().is_empty() {
            break;
        }
    }

    let documented = documented();
    let mut found = Vec::new();
    for (what, expected) in &documented {
        let (client, request) = match what.as_str() {
            "a hit" => (&nobody, ("GET", "/page/1")),
            "a hit of somebody who has logged in" => (&ann, ("GET", "/page/1")),
            "a miss" => (&nobody, ("GET", "/page/2")),
            "a stale hit, which is revalidated" => (&nobody, ("GET", "/stale/1")),
            "what is not stored" => (&nobody, ("GET", "/own/2")),
            "a session that is read" => (&ann, ("GET", "/mine")),
            "a session that is changed" => (&ann, ("POST", "/count")),
            "a change that invalidates a tag" => (&nobody, ("POST", "/change")),
            other => panic!("the page says what {other} costs"),
        };
        found.push((what.clone(), cost(&mut counter, client, request, expected.len()).await));
    }
    assert_eq!(found, documented);
    assert_eq!(found.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_asks_redis_once() {
    let server = RedisServer::start();
    let prefix = namespace();
    let backend = patient(server.url()).namespace(&prefix).connect().await.unwrap();
    let mut counter = Counter::new(&server, &prefix);
    let client = app(&backend, 2).client();
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(client.get("/own/1").await.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 429, 429, 429]);
    let calls = counter.calls();
    let limits = calls.iter().filter(|(command, key)| name(command, key) == "limit").count();
    assert_eq!(limits, 3, "two that are let through, one that is not, and that is known from then on");
}
