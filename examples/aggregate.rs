//! One profile page from three services, and what becomes of it when they fail.
//!
//! ```text
//! cargo run --example aggregate
//! ```

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, Request, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_gatehouse::aggregate::{Aggregate, Part};

type AnyError = Box<dyn Error + Send + Sync>;

/// How long each service takes.
const WORK: Duration = Duration::from_millis(100);

fn users() -> Router {
    async fn user(Path(id): Path<u32>) -> impl IntoResponse {
        tokio::time::sleep(WORK).await;
        if id > 100 {
            return (StatusCode::NOT_FOUND, "no such user").into_response();
        }
        let fields = [(header::CACHE_CONTROL, "max-age=300".to_owned()), (SURROGATE_KEY, format!("user:{id}"))];
        (fields, Json(json!({ "id": id, "name": "Ada", "favourite": "sci-fi" }))).into_response()
    }
    Router::new().route("/users/{id}", get(user))
}

fn orders(is_down: Arc<AtomicBool>) -> Router {
    async fn orders(State(is_down): State<Arc<AtomicBool>>, Path(id): Path<u32>) -> impl IntoResponse {
        tokio::time::sleep(WORK).await;
        if is_down.load(Ordering::Relaxed) {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let fields = [(header::CACHE_CONTROL, "max-age=60".to_owned()), (SURROGATE_KEY, format!("orders:{id}"))];
        (fields, Json(json!([{ "book": "Solaris" }, { "book": "Ubik" }]))).into_response()
    }
    Router::new().route("/customers/{id}/orders", get(orders)).with_state(is_down)
}

fn books() -> Router {
    async fn shelf(Path(genre): Path<String>) -> impl IntoResponse {
        let fields = [(header::CACHE_CONTROL, "max-age=600".to_owned()), (SURROGATE_KEY, "catalogue".to_owned())];
        (fields, Json(json!({ "genre": genre, "books": ["Roadside Picnic"] })))
    }
    Router::new().route("/shelves/{genre}", get(shelf))
}

const SURROGATE_KEY: header::HeaderName = header::HeaderName::from_static("surrogate-key");

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let orders_are_down = Arc::new(AtomicBool::new(false));
    let profile = Aggregate::at("/profile/{id}")?
        .part("user", Part::new(users(), |cx| cx.get(format!("/users/{}", cx.path("id")?))))
        .part(
            "orders",
            Part::new(orders(orders_are_down.clone()), |cx| cx.get(format!("/customers/{}/orders", cx.path("id")?)))
                .optional()
                .timeout(Duration::from_secs(1)),
        )
        .part(
            "for_you",
            Part::new(books(), |cx| cx.get(format!("/shelves/{}", cx.segment("user", "/favourite")?)))
                .depends_on("user")
                .default(json!({ "books": [] })),
        )
        .build()?;
    let app = Router::new().route_service("/profile/{id}", profile);

    println!("# Three services, two of which take 100 ms: as long as the slower, not as both.");
    let start = Instant::now();
    let (status, fields, content) = curl(&app, "/profile/7").await?;
    println!("# {} ms\n", start.elapsed().as_millis());
    assert_eq!((status, content["data"]["for_you"]["genre"].as_str()), (StatusCode::OK, Some("sci-fi")));
    assert_eq!(fields["x-aggregate-complete"], "true");
    assert_eq!(fields["cache-control"], "max-age=60");
    assert_eq!(fields["surrogate-key"], "catalogue orders:7 user:7");

    println!("# The orders are down, and optional: the rest is answered, and not stored.");
    orders_are_down.store(true, Ordering::Relaxed);
    let (status, fields, content) = curl(&app, "/profile/7").await?;
    assert_eq!((status, content["errors"]["orders"]["status"].as_u64()), (StatusCode::OK, Some(503)));
    assert_eq!(fields["x-aggregate-complete"], "false");
    assert_eq!(fields["cache-control"], "no-store");

    println!("# There is no such user, who is required.");
    let (status, fields, _) = curl(&app, "/profile/404").await?;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(fields["content-type"], "application/problem+json");
    Ok(())
}

/// Asks the app, and shows the request and the answer as `curl -i` does.
async fn curl(app: &Router, path: &str) -> Result<(StatusCode, HeaderMap, Value), AnyError> {
    let response = app.clone().oneshot(Request::get(path).body(axum::body::Body::empty())?).await?;
    let (head, body) = response.into_parts();
    let content = body.collect().await?.to_bytes();
    println!("$ curl -i {path}\nHTTP/1.1 {}", head.status);
    for (name, value) in &head.headers {
        println!("{name}: {}", value.to_str()?);
    }
    println!("\n{}\n", String::from_utf8_lossy(&content));
    Ok((head.status, head.headers, serde_json::from_slice(&content)?))
}
