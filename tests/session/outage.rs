//! When the store is gone, or full.

use std::time::{Duration, Instant};

use http::StatusCode;
use tower_gatehouse::{
    Backend,
    session::{KeyRing, SessionLayer},
};

use crate::{
    app::{App, Shop, namespace, patient},
    support::{RedisServer, Reply},
};

/// Longer than by default: on a busy machine Redis may need more than 100 ms while all is well.
const TIMEOUT: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_down_the_answer_is_503_and_nobody_is_logged_out() {
    let mut server = RedisServer::builder().config("appendonly yes").start();
    let mut refusals = Vec::new();
    let backend = Backend::redis(server.url()).namespace(namespace()).operation_timeout(TIMEOUT);
    let backend = backend.connect().await.unwrap();
    for required in [false, true] {
        let layer = SessionLayer::new(&backend, KeyRing::new([1; 32]).unwrap());
        let app = App::with(if required { layer.required_under("/me") } else { layer });
        let client = app.client();
        client.ok("POST", "/login/ann").await;
        let token = client.token();
        for frozen in [true, false] {
            if frozen {
                server.pause();
            } else {
                server.kill();
            }
            for _ in 0..5 {
                for (method, path) in [("GET", "/me"), ("POST", "/visit")] {
                    let start = Instant::now();
                    let response = client.send(method, path).await;
                    refusals.push(start.elapsed());
                    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
                    assert!(response.headers().get("set-cookie").is_none(), "nobody is logged out");
                }
                let start = Instant::now();
                assert_eq!(client.get("/").await.status(), StatusCode::OK, "who needs no session is served");
                assert!(start.elapsed() < SOON);
            }
            if frozen {
                server.resume();
            } else {
                server.restart();
            }
            let deadline = Instant::now() + Duration::from_mins(1);
            while client.get("/me").await.status() != StatusCode::OK {
                assert!(Instant::now() < deadline, "it does not recover");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(client.ok("GET", "/me").await, "ann", "the same session as before");
            assert_eq!(client.token(), token);
        }
    }
    refusals.sort();
    println!("503 after {refusals:?}");
    // Most of them do not wait for Redis; none waits for long.
    assert!(refusals[refusals.len() / 2] < TIMEOUT, "{refusals:?}");
    assert!(refusals.iter().all(|refusal| *refusal < SOON), "{refusals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_is_a_clear_error_and_nothing_is_half_written() {
    let server = RedisServer::builder().maxmemory(3 << 20, "noeviction").start();
    let backend = patient(server.url()).namespace(namespace()).connect().await.unwrap();
    let app = App::new(&backend);
    let client = app.client();
    client.ok("POST", "/login/ann").await;
    client.ok("POST", "/visit").await;
    let visitors: Vec<_> = (0..4).map(|_| app.client()).collect();
    for visitor in &visitors {
        visitor.ok("POST", "/visit").await;
    }
    // Full, and not a little less full the next moment, when some connection's buffer is freed.
    drop(server.command(&["CONFIG", "SET", "maxmemory", "1"]));
    assert!(matches!(server.try_command(&["SET", "filler", "x"]), Ok(Reply::Error(error)) if error.starts_with("OOM")));
    // Who writes is told; who reads, and who leaves, is served.
    let before = server.keys();
    for path in ["/visit", "/put/a/b", "/login/ann"] {
        let response = client.post(path).await;
        assert!(response.status().is_server_error(), "{path}: {}", response.status());
        assert!(!response.headers().contains_key("set-cookie"));
    }
    // A login that cannot be stored leaves the visitor as it was, wherever the user's data is at home.
    for (visitor, user) in visitors.iter().zip(["bob", "carol", "dave", "erin"]) {
        assert!(visitor.post(&format!("/login/{user}")).await.status().is_server_error());
        assert_eq!(visitor.json::<Shop>("/read").await.visits, 1, "{user}");
        assert_eq!(visitor.ok("GET", "/me").await, "");
    }
    let newcomer = app.client();
    let response = newcomer.post("/visit").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!((newcomer.token(), response.body().contains("could not be stored")), (None, true));
    assert_eq!(server.keys(), before);
    assert_eq!(client.json::<Shop>("/read").await.visits, 1);
    assert_eq!(client.ok("GET", "/me").await, "ann");
    assert_eq!(client.ok("POST", "/everywhere").await, "1");
    assert_eq!(client.ok("GET", "/me").await, "");
}

#[tokio::test]
async fn a_full_memory_refuses_new_sessions_and_keeps_the_live_ones() {
    let backend: Backend = tower_gatehouse::backend::MemoryBackend::builder().max_record_bytes(64 << 10).build().into();
    let app = App::new(&backend);
    let mut clients = Vec::new();
    loop {
        let client = app.client();
        match client.post("/visit").await.status() {
            StatusCode::OK => clients.push(client),
            status => {
                assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
                break;
            }
        }
        assert!(clients.len() < 1000, "it does not get full");
    }
    assert!(clients.len() > 20, "{}", clients.len());
    for (n, client) in clients.iter().enumerate() {
        let status = client.post(&format!("/login/user{n}")).await.status();
        assert!(status == StatusCode::NO_CONTENT || status == StatusCode::SERVICE_UNAVAILABLE, "{status}");
        assert_eq!(client.json::<Shop>("/read").await.visits, 1, "a live one was displaced");
    }
    for client in clients.split_off(10) {
        client.ok("POST", "/logout").await;
    }
    app.client().ok("POST", "/visit").await;
}
