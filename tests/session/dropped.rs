//! Futures that are dropped while the store works.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    extract::{Path, State},
    routing::post,
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower_gatehouse::{
    Backend, Timestamp,
    backend::{BackendError, CasBackend, CasStore, Versioned},
    session::{KeyRing, Session, SessionLayer},
};

use crate::app::{App, Login, Shop, routes};

/// Where a write stops, for ever.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stop {
    Before,
    After,
}

/// A value, and when it ends.
type Row = (Versioned<u64>, Option<Instant>);

/// A store whose writes can be stopped.
#[derive(Clone, Debug, Default)]
struct Table {
    rows: Arc<Mutex<HashMap<String, Row>>>,
    versions: Arc<AtomicU64>,
    stop: Arc<Mutex<Option<Stop>>>,
    stopped: Arc<Notify>,
}

impl Table {
    async fn stops(&self, here: Stop) {
        let stop = *self.stop.lock().unwrap();
        if stop == Some(here) {
            self.stopped.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// The future is dropped when a write has stopped.
    async fn drop_in<T>(&self, stop: Stop, future: impl Future<Output = T>) {
        *self.stop.lock().unwrap() = Some(stop);
        tokio::select! {
            _ = future => panic!("it waits for the store"),
            () = self.stopped.notified() => {}
        }
        *self.stop.lock().unwrap() = None;
    }
}

impl CasStore for Table {
    type Version = u64;

    async fn get(&self, key: &str) -> Result<Option<Versioned<u64>>, BackendError> {
        let rows = self.rows.lock().unwrap();
        let live = rows.get(key).filter(|(_, ends)| ends.is_none_or(|ends| ends > Instant::now()));
        Ok(live.map(|(row, _)| row.clone()))
    }

    async fn compare_and_set(
        &self,
        key: &str,
        expected: Option<&u64>,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, BackendError> {
        self.stops(Stop::Before).await;
        let present = self.get(key).await?.map(|row| row.version);
        let is_set = present.as_ref() == expected;
        if is_set {
            let version = self.versions.fetch_add(1, Ordering::Relaxed);
            let ends = ttl.map(|ttl| Instant::now() + ttl);
            self.rows.lock().unwrap().insert(key.to_owned(), (Versioned { value, version }, ends));
        }
        self.stops(Stop::After).await;
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

fn app() -> App {
    let table = Table::default();
    let backend = Backend::from(CasBackend::builder(table.clone()).build());
    let save = async |State(table): State<Table>, s: Session, Path(when): Path<String>| {
        s.insert("k", when.clone()).await.unwrap();
        table.drop_in(if when == "before" { Stop::Before } else { Stop::After }, s.save()).await;
    };
    let login = async |State(table): State<Table>, s: Session<Login>| {
        s.view::<Value>().insert("k", "staged").await.unwrap();
        table.drop_in(Stop::Before, s.login("ann", |login| login.since = 1)).await;
    };
    let strict = async |State(table): State<Table>, s: Session<Shop>| {
        s.load().await.unwrap();
        table.drop_in(Stop::Before, s.update_strict(|shop| shop.visits += 1)).await;
    };
    let dropping = axum::Router::new()
        .route("/dropped/save/{when}", post(save))
        .route("/dropped/login", post(login))
        .route("/dropped/strict", post(strict))
        .with_state(table);
    App(routes().merge(dropping).layer(SessionLayer::new(&backend, KeyRing::ephemeral())))
}

#[tokio::test]
async fn what_a_save_that_was_dropped_had_to_store_is_stored_with_the_response() {
    for when in ["before", "after"] {
        let client = app().client();
        for state in ["new", "live"] {
            client.ok("POST", &format!("/dropped/save/{when}")).await;
            assert!(client.token().is_some(), "{when} {state}");
            assert_eq!(client.json::<Value>("/all").await, json!({ "k": when }), "{state}");
            client.ok("POST", "/put/k/else").await;
        }
    }
}

#[tokio::test]
async fn of_a_login_or_a_strict_update_that_was_dropped_nothing_is_left() {
    let client = app().client();
    client.ok("POST", "/visit").await;
    client.ok("POST", "/dropped/strict").await;
    client.ok("POST", "/dropped/login").await;
    assert_eq!(client.ok("GET", "/me").await, "");
    let all = client.json::<Value>("/all").await;
    assert_eq!((&all["visits"], &all["k"], &all["since"]), (&json!(1), &json!("staged"), &Value::Null));
}
