//! What the buttons of the page do, and the numbers of its panel.

use std::{collections::BTreeMap, time::Instant};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use futures_util::future::join_all;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::json;
use tower::ServiceExt;
use tower_gatehouse::HttpCache;

use crate::{board::Board, catalogue, gateway::Services, store::Store};

/// What they need.
#[derive(Clone)]
pub(crate) struct Demo {
    pub(crate) cache: HttpCache,
    pub(crate) services: Services,
    /// The shop behind its cache layers.
    pub(crate) shop: Router,
    pub(crate) board: Board,
    pub(crate) store: Store,
}

pub(crate) fn routes(demo: Demo) -> Router {
    Router::new()
        .route("/", get(async || Html(include_str!("page/index.html"))))
        .route("/style.css", get(async || file("text/css", include_str!("page/style.css"))))
        .route("/app.js", get(async || file("text/javascript", include_str!("page/app.js"))))
        .route("/demo/panel", get(panel))
        .route("/demo/stampede", post(stampede))
        .route("/demo/purge", post(purge))
        .route("/demo/warm", post(warm))
        .route("/demo/down/{service}", post(down))
        .route("/demo/freeze", post(freeze))
        .with_state(demo)
}

fn file(kind: &'static str, content: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], content)
}

async fn panel(State(demo): State<Demo>) -> Json<serde_json::Value> {
    let service = |service: &crate::upstream::Upstream| {
        json!({
            "name": service.name(), "port": service.address().port(), "requests": service.requests(),
            "down": service.is_down(),
        })
    };
    Json(json!({
        "counts": demo.board.to_json(),
        "services": demo.services.all().map(service),
        "store": demo.store.backend.name(),
        "can_freeze": demo.store.can_freeze(),
    }))
}

/// How many come at once.
const CROWD: usize = 500;

/// A crowd asks for one page that nobody has asked for before.
async fn stampede(State(demo): State<Demo>) -> Json<serde_json::Value> {
    let nonce = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let path = format!("/api/products/{}?stampede={nonce}", 1 + nonce as usize % catalogue::COUNT);
    let products = &demo.services.products;
    products.watch(&path);
    let start = Instant::now();
    let visitors = (0..CROWD).map(|_| tokio::spawn(visit(demo.shop.clone(), path.clone())));
    let answers = join_all(visitors).await;
    let took = start.elapsed();
    let mut layers = BTreeMap::<String, usize>::new();
    for answer in &answers {
        let what = answer.as_ref().map_or("FAILED", String::as_str);
        *layers.entry(what.to_owned()).or_default() += 1;
    }
    Json(json!({
        "requests": CROWD, "origin": products.watched(&path), "took_ms": took.as_secs_f64() * 1000.0, "layers": layers,
    }))
}

/// One visitor's request, read to its end; what the gateway did for it.
async fn visit(shop: Router, path: String) -> String {
    let Ok(request) = Request::get(path).header(header::HOST, "127.0.0.1").body(Body::empty()) else {
        return "FAILED".to_owned();
    };
    let Ok(response) = shop.oneshot(request).await;
    let (head, body) = response.into_parts();
    let read = body.collect().await.is_ok() && head.status.is_success();
    let what = head.headers.get("x-gateway").and_then(|what| what.to_str().ok()).filter(|_| read);
    what.unwrap_or("FAILED").to_owned()
}

#[derive(Deserialize)]
struct Purge {
    tag: String,
    #[serde(default)]
    soft: bool,
}

async fn purge(State(demo): State<Demo>, Json(Purge { tag, soft }): Json<Purge>) -> Response {
    let order = demo.cache.invalidate().tag(tag);
    match if soft { order.soft().await } else { order.await } {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) if error.is_input() => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

/// Fills the cache with every product and its picture.
async fn warm(State(demo): State<Demo>, headers: HeaderMap) -> Json<serde_json::Value> {
    let host = headers.get(header::HOST).cloned();
    let paths = (1..=catalogue::COUNT).flat_map(|id| [format!("/api/products/{id}"), format!("/images/{id}.svg")]);
    let paths: Vec<_> = paths.chain(["/api/products".to_owned()]).collect();
    let requests = paths.into_iter().filter_map(move |path| {
        let mut request = Request::get(path).body(Body::empty()).ok()?;
        request.headers_mut().extend(host.clone().map(|host| (header::HOST, host)));
        Some(request)
    });
    let start = Instant::now();
    let summary = demo.cache.warm(demo.shop, requests).concurrency(32).per_second(500).finish().await;
    Json(json!({
        "stored": summary.stored, "fresh": summary.fresh, "total": summary.total(), "text": summary.to_string(),
        "took_ms": start.elapsed().as_secs_f64() * 1000.0,
    }))
}

/// Takes a service down, or up again.
async fn down(State(demo): State<Demo>, Path(name): Path<String>) -> Response {
    match demo.services.all().into_iter().find(|service| service.name() == name) {
        Some(service) => Json(json!({ "name": name, "down": service.toggle() })).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// How long Redis is frozen.
const FREEZE: std::time::Duration = std::time::Duration::from_secs(5);

async fn freeze(State(demo): State<Demo>) -> Response {
    match demo.store.freeze(FREEZE).await {
        Ok(()) => Json(json!({ "seconds": FREEZE.as_secs() })).into_response(),
        Err(error) => (StatusCode::CONFLICT, error.to_string()).into_response(),
    }
}
