//! A client that leaves while what its request has cost is being corrected.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use tokio::sync::watch;
use tower_gatehouse::{
    Backend, Timestamp,
    backend::{BackendError, CasBackend, CasStore, Versioned},
    rate_limit::{Key, Policy, Quota, RateLimitLayer},
};

use crate::{App, json, with};

/// A store whose writes wait while they are stopped.
#[derive(Clone, Debug, Default)]
struct Table {
    rows: Arc<Mutex<HashMap<String, Versioned<u64>>>>,
    versions: Arc<AtomicU64>,
    stopped: watch::Sender<bool>,
    waiting: watch::Sender<bool>,
}

impl CasStore for Table {
    type Version = u64;

    async fn get(&self, key: &str) -> Result<Option<Versioned<u64>>, BackendError> {
        Ok(self.rows.lock().unwrap().get(key).cloned())
    }

    async fn compare_and_set(
        &self,
        key: &str,
        expected: Option<&u64>,
        value: Bytes,
        _: Option<Duration>,
    ) -> Result<bool, BackendError> {
        self.waiting.send_replace(*self.stopped.borrow());
        self.stopped.subscribe().wait_for(|stopped| !stopped).await.expect("the sender is here");
        let mut rows = self.rows.lock().unwrap();
        let is_set = rows.get(key).map(|row| &row.version) == expected;
        if is_set {
            let version = self.versions.fetch_add(1, Ordering::Relaxed);
            rows.insert(key.to_owned(), Versioned { value, version });
        }
        Ok(is_set)
    }

    async fn delete(&self, key: &str) -> Result<(), BackendError> {
        self.rows.lock().unwrap().remove(key);
        Ok(())
    }

    fn now(&self) -> Timestamp {
        Timestamp::system()
    }

    fn name(&self) -> &'static str {
        "table"
    }
}

/// Two keys, which are corrected one after the other.
#[tokio::test]
async fn what_a_response_has_cost_is_charged_to_all_keys_also_when_the_client_leaves_meanwhile() {
    let table = Table::default();
    let backend = Backend::from(CasBackend::builder(table.clone()).operation_timeout(Duration::from_mins(1)).build());
    let policy = |name, key| {
        let cost = |parts: &http::response::Parts| parts.headers["x-cost"].to_str().unwrap().parse().unwrap();
        Policy::new(name, key, Quota::per_hour(10)).charge_after(cost)
    };
    let policies =
        [policy("all", Key::global()), policy("each", Key::header(http::HeaderName::from_static("x-client")))];
    let stop = table.stopped.clone();
    let app = App::with(&RateLimitLayer::with_policies(&backend, policies), move |request| {
        // The next thing to be written is the correction.
        stop.send_replace(request.headers()["x-cost"] != "0");
        async move { Response::builder().header("x-cost", &request.headers()["x-cost"]).body(String::new()).unwrap() }
    });
    let request = |cost| {
        let mut request = with("x-client", "one");
        request.headers_mut().insert("x-cost", http::HeaderValue::from_static(cost));
        request
    };
    let mut waiting = table.waiting.subscribe();
    tokio::select! {
        _ = app.ask(request("50")) => panic!("the store has not answered"),
        corrects = waiting.wait_for(|waiting| *waiting) => drop(corrects.expect("the sender is here")),
    }
    table.stopped.send_replace(false);
    let charged = async {
        loop {
            let answer = app.ask(request("0")).await;
            if answer.status() == 429 && json(answer).await["violated-policies"] == serde_json::json!(["all", "each"]) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), charged).await.expect("both are charged");
}
