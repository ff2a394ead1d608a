//! An application with sessions, and a client of it.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::Path,
    response::Redirect,
    routing::{get, post},
};
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use tower::ServiceExt as _;
use tower_gatehouse::{
    Backend,
    backend::RedisBuilder,
    session::{KeyRing, Session, SessionError, SessionLayer},
};

use crate::support::RedisServer;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Shop {
    pub(crate) theme: String,
    pub(crate) visits: u32,
}

/// What handlers that know only a part of the session see.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Login {
    pub(crate) since: u64,
}

/// One server for the tests that do nothing bad to it; each takes a namespace of its own.
pub(crate) fn server() -> &'static RedisServer {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    SERVER.get_or_init(RedisServer::start)
}

pub(crate) fn namespace() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("session{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A Redis that is waited for: on a busy machine a call may take longer than the 100 ms that there are.
pub(crate) fn patient(url: impl Into<String>) -> RedisBuilder {
    Backend::redis(url).operation_timeout(Duration::from_secs(5)).limit_timeout(Duration::from_secs(5))
}

pub(crate) async fn redis() -> Backend {
    patient(server().url()).namespace(namespace()).connect().await.expect("Redis")
}

/// Both kinds of store.
pub(crate) async fn backends() -> Vec<Backend> {
    vec![Backend::memory(), redis().await]
}

pub(crate) fn routes() -> Router {
    Router::new()
        .route("/", get(async || "hello"))
        .route("/read", get(async |s: Session<Shop>| Ok::<_, SessionError>(Json(s.load().await?))))
        .route("/visit", post(async |s: Session<Shop>| s.update(|shop| shop.visits += 1).await))
        .route("/strict", post(async |s: Session<Shop>| s.update_strict(|shop| shop.visits += 1).await))
        .route("/theme/{name}", post(theme))
        .route("/put/{key}/{value}", post(put))
        .route(
            "/redirect/{key}",
            post(async |s: Session, Path(key): Path<String>| {
                s.insert(&key, true).await?;
                Ok::<_, SessionError>(Redirect::to("/all"))
            }),
        )
        .route("/all", get(async |s: Session| Ok::<_, SessionError>(Json(s.load().await?))))
        .route(
            "/fail",
            post(async |s: Session<Shop>| {
                s.update(|shop| shop.visits += 1).await?;
                Ok::<_, SessionError>(StatusCode::BAD_GATEWAY)
            }),
        )
        .route("/login/{user}", post(login))
        .route("/cycle", post(async |s: Session| s.cycle().await))
        .route("/logout", post(async |s: Session| s.destroy().await))
        .route("/everywhere", post(async |s: Session| Ok::<_, SessionError>(s.revoke_all().await?.to_string())))
        .route("/me", get(async |s: Session| Ok::<_, SessionError>(s.user().await?.unwrap_or_default())))
}

async fn theme(s: Session<Shop>, Path(name): Path<String>) -> Result<(), SessionError> {
    s.update(|shop| shop.theme = name).await
}

async fn put(s: Session, Path((key, value)): Path<(String, String)>) -> Result<(), SessionError> {
    s.insert(&key, value).await
}

async fn login(s: Session<Login>, Path(user): Path<String>) -> Result<StatusCode, SessionError> {
    s.login(user, |login| login.since = 1).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An application around a backend.
#[derive(Clone)]
pub(crate) struct App(pub(crate) Router);

impl App {
    pub(crate) fn new(backend: &Backend) -> Self {
        Self::with(SessionLayer::new(backend, KeyRing::new([7; 32]).unwrap()))
    }

    pub(crate) fn with(layer: SessionLayer) -> Self {
        Self(routes().layer(layer))
    }

    pub(crate) fn client(&self) -> Client {
        Client { app: self.clone(), cookie: Arc::default() }
    }

    pub(crate) async fn send(&self, request: Request<axum::body::Body>) -> Response<String> {
        let response = self.0.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Response::from_parts(parts, String::from_utf8(bytes.to_vec()).unwrap())
    }
}

/// A browser.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) app: App,
    pub(crate) cookie: Arc<Mutex<Option<String>>>,
}

impl Client {
    pub(crate) async fn get(&self, path: &str) -> Response<String> {
        self.send("GET", path).await
    }

    pub(crate) async fn post(&self, path: &str) -> Response<String> {
        self.send("POST", path).await
    }

    pub(crate) async fn ok(&self, method: &str, path: &str) -> String {
        let response = self.send(method, path).await;
        assert!(response.status().is_success(), "{method} {path}: {} {}", response.status(), response.body());
        response.into_body()
    }

    pub(crate) async fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        serde_json::from_str(&self.ok("GET", path).await).unwrap()
    }

    pub(crate) async fn send(&self, method: &str, path: &str) -> Response<String> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = self.token() {
            request = request.header(header::COOKIE, format!("__Host-sid={token}"));
        }
        let response = self.app.send(request.body(axum::body::Body::empty()).unwrap()).await;
        for cookie in response.headers().get_all(header::SET_COOKIE) {
            let value = cookie.to_str().unwrap().strip_prefix("__Host-sid=").unwrap();
            let token = value.split(';').next().unwrap().to_owned();
            *self.cookie.lock().unwrap() = Some(token).filter(|token| !token.is_empty());
        }
        response
    }

    pub(crate) fn token(&self) -> Option<String> {
        self.cookie.lock().unwrap().clone()
    }

    /// Another browser with the same cookie.
    pub(crate) fn twin(&self) -> Self {
        Self { app: self.app.clone(), cookie: Arc::new(Mutex::new(self.token())) }
    }
}
