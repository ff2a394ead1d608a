//! What the gateway has done, for the panel on the page.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    extract::{Request, State},
    http::HeaderValue,
    middleware::Next,
    response::Response,
};
use serde_json::{Value, json};
use tower_gatehouse::{CacheStatus, ResponseExt};

/// Counts of all requests that went through the cache layers.
#[derive(Clone)]
pub(crate) struct Board(Arc<Inner>);

struct Inner {
    /// How often the store was asked.
    calls: Arc<AtomicU64>,
    /// Requests that are under way, and how many have begun.
    under_way: AtomicU64,
    begun: AtomicU64,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    hit: u64,
    stale: u64,
    coalesced: u64,
    revalidated: u64,
    miss: u64,
    bypass: u64,
    answered: Latencies,
    asked: Latencies,
}

/// The last times, in microseconds.
#[derive(Default)]
struct Latencies(VecDeque<u64>);

impl Latencies {
    const KEPT: usize = 1000;

    fn push(&mut self, took: Duration) {
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    fn percentiles(&self) -> Value {
        let mut sorted: Vec<u64> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get(sorted.len() * percent / 100).copied();
        json!({ "p50_us": at(50), "p99_us": at(99) })
    }
}

impl Board {
    pub(crate) fn new(calls: Arc<AtomicU64>) -> Self {
        let (under_way, begun, counts) = Default::default();
        Self(Arc::new(Inner { calls, under_way, begun, counts }))
    }

    /// As JSON.
    pub(crate) fn to_json(&self) -> Value {
        let counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Counts { hit, stale, coalesced, revalidated, miss, bypass, .. } = *counts;
        json!({
            "hit": hit, "stale": stale, "coalesced": coalesced, "revalidated": revalidated, "miss": miss,
            "bypass": bypass, "saved": hit + stale + coalesced, "cacheable": hit + stale + coalesced + revalidated + miss,
            "from_store": counts.answered.percentiles(), "from_services": counts.asked.percentiles(),
            "store_calls": self.0.calls.load(Ordering::Relaxed),
        })
    }

    fn count(&self, response: &Response, took: Duration) -> &'static str {
        let status = response.cache_status();
        let x_cache = response.headers().get("x-cache").and_then(|value| value.to_str().ok()).unwrap_or("BYPASS");
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (what, count) = match x_cache {
            _ if status.as_ref().is_some_and(CacheStatus::is_collapsed) => ("COALESCED", &mut counts.coalesced),
            "HIT" => ("HIT", &mut counts.hit),
            "STALE" => ("STALE", &mut counts.stale),
            "REVALIDATED" => ("REVALIDATED", &mut counts.revalidated),
            "MISS" if status.is_some_and(|status| status.is_stored()) => ("MISS", &mut counts.miss),
            // Nothing that could have been a hit.
            "MISS" => ("MISS", &mut counts.bypass),
            _ => ("BYPASS", &mut counts.bypass),
        };
        *count += 1;
        match what {
            "HIT" | "STALE" => counts.answered.push(took),
            "MISS" | "REVALIDATED" => counts.asked.push(took),
            _ => {}
        }
        what
    }
}

/// Counts a request and says in its answer what was done, how long it took, and how often the store was asked (where no
/// other request was under way, so that it is known whose calls they were).
pub(crate) async fn watch(State(board): State<Board>, request: Request, next: Next) -> Response {
    let inner = &board.0;
    let begun = inner.begun.fetch_add(1, Ordering::SeqCst);
    let alone = inner.under_way.fetch_add(1, Ordering::SeqCst) == 0;
    let (start, before) = (Instant::now(), inner.calls.load(Ordering::SeqCst));
    let mut response = next.run(request).await;
    let (took, calls) = (start.elapsed(), inner.calls.load(Ordering::SeqCst) - before);
    inner.under_way.fetch_sub(1, Ordering::SeqCst);
    let what = board.count(&response, took);
    let headers = response.headers_mut();
    headers.insert("x-gateway", HeaderValue::from_static(what));
    if let Ok(timing) = format!("gateway;dur={:.3}", took.as_secs_f64() * 1000.0).parse() {
        headers.append("server-timing", timing);
    }
    if alone && inner.begun.load(Ordering::SeqCst) == begun + 1 {
        headers.insert("x-store-calls", calls.into());
    }
    response
}
