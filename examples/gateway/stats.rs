//! What the gateway counts about itself.
//!
//! In the recorder behind the `metrics` facade, which the crate's own metrics reach as well; beside it the few numbers
//! that a person wants at a glance, for `/stats`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use http::StatusCode;
use metrics::{counter, gauge, histogram};
use serde_json::{Value, json};

/// Shared by all parts of the gateway; clones count into the same.
#[derive(Clone, Debug)]
pub(crate) struct Stats(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    since: Instant,
    /// By the first digit of the status.
    answers: [AtomicU64; 5],
    in_flight: AtomicU64,
    origin_requests: AtomicU64,
    origin_errors: AtomicU64,
    tunnels: AtomicU64,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Counts {
            since: Instant::now(),
            answers: Default::default(),
            in_flight: AtomicU64::new(0),
            origin_requests: AtomicU64::new(0),
            origin_errors: AtomicU64::new(0),
            tunnels: AtomicU64::new(0),
        }))
    }

    /// A request has come in. It counts as under way until the value is dropped, by an answer or because the client
    /// has gone.
    pub(crate) fn request(&self) -> InFlight {
        self.0.in_flight.fetch_add(1, Ordering::Relaxed);
        gauge!("gateway_requests_in_flight").increment(1.0);
        InFlight { counts: self.0.clone(), since: Instant::now() }
    }

    pub(crate) fn origin_request(&self) {
        self.0.origin_requests.fetch_add(1, Ordering::Relaxed);
        counter!("gateway_origin_requests_total").increment(1);
    }

    pub(crate) fn origin_error(&self, kind: &'static str) {
        self.0.origin_errors.fetch_add(1, Ordering::Relaxed);
        counter!("gateway_origin_errors_total", "kind" => kind).increment(1);
    }

    pub(crate) fn tunnel(&self) {
        self.0.tunnels.fetch_add(1, Ordering::Relaxed);
        counter!("gateway_tunnels_total").increment(1);
    }

    /// For `/stats`.
    pub(crate) fn to_json(&self) -> Value {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let [informational, success, redirection, client_error, server_error] = &self.0.answers;
        json!({
            "uptime_seconds": self.0.since.elapsed().as_secs(),
            "requests": {
                "in_flight": read(&self.0.in_flight),
                "answered": self.0.answers.iter().map(read).sum::<u64>(),
                "1xx": read(informational),
                "2xx": read(success),
                "3xx": read(redirection),
                "4xx": read(client_error),
                "5xx": read(server_error),
            },
            "origin": { "requests": read(&self.0.origin_requests), "errors": read(&self.0.origin_errors) },
            "tunnels": read(&self.0.tunnels),
        })
    }
}

/// A request under way.
pub(crate) struct InFlight {
    counts: Arc<Counts>,
    since: Instant,
}

impl InFlight {
    /// The head of the answer is known.
    pub(crate) fn answered(self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100);
        if let Some(count) = self.counts.answers.get(class - 1) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let label = ["1xx", "2xx", "3xx", "4xx", "5xx"].get(class - 1).copied().unwrap_or("other");
        counter!("gateway_requests_total", "status" => label).increment(1);
        histogram!("gateway_request_seconds").record(self.since.elapsed().as_secs_f64());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
        gauge!("gateway_requests_in_flight").decrement(1.0);
    }
}
