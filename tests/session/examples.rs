//! The examples, as somebody tries them who reads them.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use http::{Request, StatusCode, header};
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::support::{RedisServer, example::example, http::Answered, process::Process};

/// An example that listens on a free port.
struct Example {
    _process: Process,
    base: String,
    _dir: tempfile::TempDir,
}

impl Example {
    fn start(name: &str, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(example(name));
        command.args(["--listen", "127.0.0.1:0"]).args(flags);
        let process = Process::spawn(&mut command, &dir.path().join("log")).unwrap();
        let start = Instant::now();
        loop {
            let log = process.log();
            // It ends what it says with a line of its own on what to try.
            let address = log.split("curl http://").nth(1).and_then(|rest| rest.split('/').next());
            if let Some(address) = address {
                return Self { base: format!("http://{address}"), _process: process, _dir: dir };
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{name} does not listen: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn browser(&self) -> Browser {
        Browser { base: self.base.clone(), cookie: None }
    }
}

/// `curl -c jar -b jar`.
struct Browser {
    base: String,
    cookie: Option<String>,
}

impl Browser {
    async fn send(&mut self, method: &str, path: &str, json: Option<Value>, field: Option<(&str, &str)>) -> Answered {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        if let Some((name, value)) = field {
            request = request.header(name, value);
        }
        let mut body = Bytes::new();
        if let Some(json) = json {
            request = request.header(header::CONTENT_TYPE, "application/json");
            body = json.to_string().into();
        }
        let answer = crate::support::http::send(request.body(body).unwrap()).await.unwrap();
        if answer.headers.contains_key(header::SET_COOKIE) {
            let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
            self.cookie = Some(cookie).filter(|cookie| !cookie.ends_with('='));
        }
        answer
    }

    async fn get(&mut self, path: &str) -> Value {
        let answer = self.send("GET", path, None, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    async fn post(&mut self, path: &str) -> Answered {
        self.send("POST", path, None, None).await
    }
}

/// Both stores; the server lives as long as the example.
fn stores() -> Vec<(Option<RedisServer>, Vec<String>)> {
    let server = RedisServer::start();
    let flags = vec!["--redis".to_owned(), server.url()];
    vec![(None, Vec::new()), (Some(server), flags)]
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_has_a_profile_a_login_a_logout_and_a_logout_everywhere() {
    for (_server, flags) in stores() {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let example = Example::start("sessions", &flags);
        let (mut phone, mut laptop) = (example.browser(), example.browser());
        assert_eq!(phone.get("/profile").await, json!({ "user": null, "theme": "", "visits": 1 }));
        let theme = phone.send("POST", "/theme", Some(json!({ "theme": "dark" })), None).await;
        assert_eq!(theme.status, StatusCode::NO_CONTENT);
        let (anonymous, ann) = (phone.cookie.clone(), json!({ "user": "ann", "password": "secret" }));
        let wrong = json!({ "user": "ann", "password": "guessed" });
        assert_eq!(phone.send("POST", "/login", Some(wrong), None).await.status, StatusCode::UNAUTHORIZED);
        // What another site sends unasked.
        let unasked = phone.send("POST", "/login", Some(ann.clone()), Some(("sec-fetch-site", "cross-site"))).await;
        assert_eq!(unasked.status, StatusCode::FORBIDDEN);
        assert_eq!(phone.send("POST", "/login", Some(ann.clone()), None).await.status, StatusCode::NO_CONTENT);
        assert_ne!(phone.cookie, anonymous);
        assert_eq!(phone.get("/profile").await, json!({ "user": "ann", "theme": "dark", "visits": 2 }));
        laptop.send("POST", "/login", Some(ann.clone()), None).await;
        assert_eq!(laptop.get("/profile").await, json!({ "user": "ann", "theme": "", "visits": 1 }));
        assert_eq!(laptop.post("/logout").await.status, StatusCode::NO_CONTENT);
        assert_eq!(laptop.cookie, None);
        assert_eq!(laptop.get("/profile").await["user"], Value::Null);
        laptop.send("POST", "/login", Some(ann), None).await;
        assert_eq!(laptop.post("/everywhere").await.text(), "2 sessions ended\n");
        assert_eq!(phone.get("/profile").await, json!({ "user": null, "theme": "", "visits": 1 }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn microservices_share_a_cart_that_becomes_one_order() {
    for (_server, flags) in stores() {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let example = Example::start("microservices", &flags);
        let mut browser = example.browser();
        assert_eq!(browser.get("/cart").await["items"], json!({}));
        for n in 1..=2 {
            assert_eq!(browser.post("/cart/mug").await.text(), n.to_string());
        }
        assert_eq!(browser.send("GET", "/history", None, None).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(browser.post("/login/ann").await.status, StatusCode::NO_CONTENT);
        let cart = browser.get("/cart").await;
        assert_eq!(cart["items"], json!({ "mug": 2 }), "the visitor's cart is the user's");
        let order = format!("/orders?id=1&version={}", cart["version"]);
        let old = format!("/orders?id=0&version={}", cart["version"].as_u64().unwrap() - 1);
        assert_eq!(browser.post(&old).await.status, StatusCode::CONFLICT);
        for _ in 0..2 {
            let answer = browser.post(&order).await;
            assert_eq!((answer.status, answer.text()), (StatusCode::CREATED, r#"{"id":"1","items":{"mug":2}}"#));
        }
        let history = browser.get("/history").await;
        assert_eq!(history, json!({ "for": "ANN", "orders": [{ "id": "1", "items": { "mug": 2 } }] }));
        let forged = example.browser().send("GET", "/history", None, Some(("x-session", "forged"))).await;
        assert_eq!(forged.status, StatusCode::UNAUTHORIZED);
    }
}
