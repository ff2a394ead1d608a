//! The second listener, for those who run the gateway. It belongs on an address that clients cannot reach.

use std::time::Duration;

use axum::{Json, Router, extract::State, http::header, response::IntoResponse, routing::get};
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::layers::FanoutBuilder;
use serde_json::Value;
use tokio::net::TcpListener;
use tower_gatehouse::{
    HttpCache, PurgeToken,
    metrics::{BYTE_BUCKETS, SECOND_BUCKETS},
    tag_invalidation::InvalidateService,
};

use crate::{BoxError, figures::Figures, stats::Stats};

#[derive(Clone)]
struct Admin {
    recorded: Recorded,
    stats: Stats,
}

/// Where everything that is recorded can be read.
#[derive(Clone)]
pub(crate) struct Recorded {
    prometheus: PrometheusHandle,
    figures: Figures,
}

/// Records metrics from now on: the gateway's own, and with the feature `metrics` those of the layers.
pub(crate) fn record() -> Result<Recorded, BoxError> {
    let prometheus = PrometheusBuilder::new()
        .set_buckets(SECOND_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), BYTE_BUCKETS)?
        .build_recorder();
    let recorded = Recorded { prometheus: prometheus.handle(), figures: Figures::new() };
    let both = FanoutBuilder::default().add_recorder(prometheus).add_recorder(recorded.figures.clone()).build();
    metrics::set_global_recorder(both).map_err(|_| "The metrics have a recorder already.")?;
    describe();
    #[cfg(feature = "metrics")]
    tower_gatehouse::metrics::describe();
    Ok(recorded)
}

/// Serves on `listener` until the process ends.
///
/// `POST /invalidate` is there where somebody may use it.
pub(crate) fn start(
    listener: TcpListener,
    recorded: Recorded,
    stats: Stats,
    invalidate: Option<(HttpCache, PurgeToken)>,
) {
    tokio::spawn(upkeep(recorded.prometheus.clone()));
    let mut router = Router::new()
        .route("/metrics", get(prometheus))
        .route("/stats", get(json))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(Admin { recorded, stats });
    if let Some((cache, token)) = invalidate {
        router = router.route_service("/invalidate", InvalidateService::new(cache, token));
    }
    tokio::spawn(async move { axum::serve(listener, router).await });
}

async fn prometheus(State(admin): State<Admin>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.recorded.prometheus.render())
}

async fn json(State(admin): State<Admin>) -> Json<Value> {
    let mut all = admin.stats.to_json();
    all["cache"] = admin.recorded.figures.cache();
    all["metrics"] = admin.recorded.figures.to_json();
    Json(all)
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
