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
use tokio::sync::{Notify, watch};
use tower_gatehouse::{
    Backend, Timestamp,
    backend::{BackendError, CasBackend, CasStore, ErrorKind, UserKey, Versioned},
    session::{KeyRing, Session, SessionError, SessionLayer},
};

use crate::app::{App, Login, Shop, routes};

/// Where a write stops until the future that waits for it is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Stop {
    #[default]
    Nowhere,
    Before,
    After,
    /// It does not stop, but the answer is lost.
    Lost,
    /// It does not stop, and nothing is written.
    Refused,
}

impl Stop {
    fn at(name: &str) -> Self {
        match name {
            "before" => Self::Before,
            "after" => Self::After,
            "lost" => Self::Lost,
            "refused" => Self::Refused,
            other => panic!("{other}"),
        }
    }
}

/// A value, and when it ends.
type Row = (Versioned<u64>, Option<Instant>);

/// A store whose writes can be stopped.
#[derive(Clone, Debug, Default)]
struct Table {
    rows: Arc<Mutex<HashMap<String, Row>>>,
    versions: Arc<AtomicU64>,
    stop: watch::Sender<Stop>,
    stopped: Arc<Notify>,
}

impl Table {
    async fn stops(&self, here: Stop) {
        if *self.stop.borrow() == here {
            self.stopped.notify_one();
            let mut stop = self.stop.subscribe();
            stop.wait_for(|stop| *stop != here).await.expect("the sender is here");
        }
    }

    /// The future is dropped when a write has stopped, and the store goes on.
    async fn drop_in<T>(&self, stop: Stop, future: impl Future<Output = Result<T, SessionError>>) {
        self.stop.send_replace(stop);
        tokio::select! {
            ended = future => assert!(matches!(stop, Stop::Lost | Stop::Refused) && ended.is_err(), "it waits for the store"),
            () = self.stopped.notified() => {}
        }
        self.stop.send_replace(Stop::Nowhere);
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
        if *self.stop.borrow() == Stop::Refused {
            return Err(BackendError::new(ErrorKind::Unavailable, "not now"));
        }
        let present = self.get(key).await?.map(|row| row.version);
        let is_set = present.as_ref() == expected;
        if is_set {
            let version = self.versions.fetch_add(1, Ordering::Relaxed);
            let ends = ttl.map(|ttl| Instant::now() + ttl);
            self.rows.lock().unwrap().insert(key.to_owned(), (Versioned { value, version }, ends));
        }
        self.stops(Stop::After).await;
        if *self.stop.borrow() == Stop::Lost {
            return Err(BackendError::new(ErrorKind::Unavailable, "the answer is lost"));
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

fn app() -> (App, Backend) {
    let table = Table::default();
    let backend = Backend::from(CasBackend::builder(table.clone()).build());
    let save = async |State(table): State<Table>, s: Session, Path(when): Path<String>| {
        s.insert("k", when.clone()).await.unwrap();
        table.drop_in(Stop::at(&when), s.save()).await;
    };
    let login = async |State(table): State<Table>, s: Session<Login>, Path(when): Path<String>| {
        s.view::<Value>().insert("k", "staged").await.unwrap();
        let login = s.begin_login("ann").await.unwrap();
        table.drop_in(Stop::at(&when), login.finish(|login| login.since = 1)).await;
    };
    let cycle = async |State(table): State<Table>, s: Session, Path(when): Path<String>| {
        s.insert("k", "staged").await.unwrap();
        table.drop_in(Stop::at(&when), s.cycle()).await;
    };
    let revoke = {
        let backend = backend.clone();
        async move |State(table): State<Table>, s: Session<Login>| {
            let login = s.begin_login("ann").await.unwrap();
            table.drop_in(Stop::After, login.finish(|login| login.since = 1)).await;
            backend.revoke_all(&UserKey::of("ann")).await.unwrap();
        }
    };
    let logout = async |State(table): State<Table>, s: Session<Login>| {
        let login = s.begin_login("ann").await.unwrap();
        table.drop_in(Stop::After, login.finish(|login| login.since = 1)).await;
        s.destroy().await
    };
    let strict = async |State(table): State<Table>, s: Session<Shop>| {
        s.load().await.unwrap();
        table.drop_in(Stop::Before, s.update_strict(|shop| shop.visits += 1)).await;
    };
    let save_again = async |State(table): State<Table>, s: Session, Path(when): Path<String>| {
        s.insert("k", when.clone()).await?;
        table.drop_in(Stop::at(&when), s.save()).await;
        assert_eq!(s.get::<String>("k").await?, Some(when), "what is staged is still seen");
        s.save().await
    };
    let login_again = async |State(table): State<Table>, s: Session<Login>, Path(when): Path<String>| {
        s.view::<Value>().insert("k", when.clone()).await?;
        table.drop_in(Stop::at(&when), s.login("ann", |login| login.since = 1)).await;
        s.login("ann", |_| {}).await
    };
    let dropping = axum::Router::new()
        .route("/again/save/{when}", post(save_again))
        .route("/again/login/{when}", post(login_again))
        .route("/dropped/save/{when}", post(save))
        .route("/dropped/login/{when}", post(login))
        .route("/dropped/cycle/{when}", post(cycle))
        .route("/dropped/revoke", post(revoke))
        .route("/dropped/logout", post(logout))
        .route("/dropped/strict", post(strict))
        .with_state(table);
    (App(routes().merge(dropping).layer(SessionLayer::new(&backend, KeyRing::ephemeral()))), backend)
}

async fn sessions_of_ann(backend: &Backend) -> usize {
    backend.records_of(&UserKey::of("ann")).await.unwrap().len()
}

#[tokio::test]
async fn what_a_save_that_was_dropped_had_to_store_is_stored_with_the_response() {
    for when in ["before", "after"] {
        let client = app().0.client();
        for state in ["new", "live"] {
            client.ok("POST", &format!("/dropped/save/{when}")).await;
            assert!(client.token().is_some(), "{when} {state}");
            assert_eq!(client.json::<Value>("/all").await, json!({ "k": when }), "{state}");
            client.ok("POST", "/put/k/else").await;
        }
    }
}

#[tokio::test]
async fn what_could_not_be_stored_is_stored_when_it_is_tried_again() {
    for how in ["save", "login"] {
        for when in ["refused", "lost"] {
            let (app, backend) = app();
            for begun in [true, false] {
                let client = app.client();
                if begun {
                    client.ok("POST", "/visit").await;
                }
                client.ok("POST", &format!("/again/{how}/{when}")).await;
                assert_eq!(client.json::<Value>("/all").await["k"], when, "{how} {begun}");
            }
            assert_eq!(sessions_of_ann(&backend).await, if how == "login" { 2 } else { 0 }, "{when}");
        }
    }
}

/// The handler takes no notice, so the layer tries again.
#[tokio::test]
async fn what_could_not_be_stored_is_stored_with_the_response() {
    for when in ["refused", "lost"] {
        let client = app().0.client();
        for _ in ["new", "live"] {
            client.ok("POST", &format!("/dropped/save/{when}")).await;
            assert_eq!(client.json::<Value>("/all").await, json!({ "k": when }));
            client.ok("POST", "/put/k/else").await;
        }
    }
}

#[tokio::test]
async fn of_a_strict_update_that_was_dropped_nothing_is_left() {
    let client = app().0.client();
    client.ok("POST", "/visit").await;
    client.ok("POST", "/dropped/strict").await;
    assert_eq!(client.json::<Value>("/all").await["visits"], 1);
}

#[tokio::test]
async fn the_token_that_a_session_got_from_a_future_that_was_dropped_comes_with_the_response() {
    for how in ["login", "cycle"] {
        for when in ["before", "after", "lost"] {
            let (app, backend) = app();
            let client = app.client();
            client.ok("POST", "/visit").await;
            let old = client.twin();
            client.ok("POST", &format!("/dropped/{how}/{when}")).await;
            assert_ne!(client.token(), old.token(), "{how} {when}");
            let all = client.json::<Value>("/all").await;
            assert_eq!((&all["visits"], &all["k"]), (&json!(1), &json!("staged")), "{how} {when}");
            assert_eq!(old.json::<Value>("/all").await, json!({}), "{how} {when}");
            let (user, sessions) = if how == "login" { ("ann", 1) } else { ("", 0) };
            assert_eq!(client.ok("GET", "/me").await, user, "{how} {when}");
            assert_eq!(sessions_of_ann(&backend).await, sessions, "{how} {when}");
        }
    }
}

#[tokio::test]
async fn a_login_without_a_session_that_was_dropped_leaves_none_that_nobody_has_the_token_of() {
    for when in ["before", "after", "lost"] {
        let (app, backend) = app();
        let client = app.client();
        client.ok("POST", &format!("/dropped/login/{when}")).await;
        assert_eq!(client.ok("GET", "/me").await, "ann", "{when}");
        assert_eq!(client.json::<Value>("/all").await, json!({ "k": "staged", "since": 1 }), "{when}");
        assert_eq!(sessions_of_ann(&backend).await, 1, "{when}");
    }
}

#[tokio::test]
async fn a_session_that_was_ended_while_nobody_waited_for_its_login_stays_ended() {
    for how in ["revoke", "logout"] {
        for begun in [true, false] {
            let (app, backend) = app();
            let client = app.client();
            if begun {
                client.ok("POST", "/visit").await;
            }
            let old = client.twin();
            client.ok("POST", &format!("/dropped/{how}")).await;
            for client in [client, old] {
                assert_eq!(client.ok("GET", "/me").await, "", "{how} {begun}");
                assert_eq!(client.json::<Value>("/all").await, json!({}), "{how} {begun}");
            }
            assert_eq!(sessions_of_ann(&backend).await, 0, "{how} {begun}");
        }
    }
}
