//! The second listener, for those who run the gateway. It belongs on an address that clients cannot reach.

use std::time::Duration;

use axum::{Json, Router, extract::State, http::header, response::IntoResponse, routing::get};
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::Value;
use tokio::net::TcpListener;
use tower_gatehouse::{HttpCache, PurgeToken, tag_invalidation::InvalidateService};

use crate::{BoxError, stats::Stats};

/// From one millisecond to a minute, in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

#[derive(Clone)]
struct Admin {
    metrics: PrometheusHandle,
    stats: Stats,
}

/// Records metrics from now on, and serves on `listener` until the process ends.
///
/// `POST /invalidate` is there where somebody may use it.
pub(crate) fn start(
    listener: TcpListener,
    stats: Stats,
    invalidate: Option<(HttpCache, PurgeToken)>,
) -> Result<(), BoxError> {
    let metrics = PrometheusBuilder::new().set_buckets(&BUCKETS)?.install_recorder()?;
    describe();
    tokio::spawn(upkeep(metrics.clone()));
    let mut router = Router::new()
        .route("/metrics", get(prometheus))
        .route("/stats", get(json))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(Admin { metrics, stats });
    if let Some((cache, token)) = invalidate {
        router = router.route_service("/invalidate", InvalidateService::new(cache, token));
    }
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

async fn prometheus(State(admin): State<Admin>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.render())
}

async fn json(State(admin): State<Admin>) -> Json<Value> {
    Json(admin.stats.to_json())
}

/// Histograms gather what was recorded since the last scrape; without a scraper this keeps them small.
async fn upkeep(metrics: PrometheusHandle) {
    let mut ticks = tokio::time::interval(Duration::from_secs(5));
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}

fn describe() {
    describe_counter!("gateway_requests_total", "Requests answered, by class of the status");
    describe_gauge!("gateway_requests_in_flight", "Requests without the head of an answer yet");
    describe_histogram!("gateway_request_seconds", Unit::Seconds, "Time to the head of the answer");
    describe_counter!("gateway_origin_requests_total", "Requests sent to origins");
    describe_counter!("gateway_origin_errors_total", "Requests to which an origin gave no answer, by kind");
    describe_counter!("gateway_tunnels_total", "Connections that switched to WebSocket");
}
