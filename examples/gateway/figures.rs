//! The figures of `/stats`: what `/metrics` has, kept a second time, for people and scripts that read JSON.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::registry::{Registry, Storage};
use serde_json::{Map, Value, json};

/// A recorder that stands beside the exporter's. Clones share the figures.
#[derive(Clone)]
pub(crate) struct Figures(Arc<Registry<Key, Numbers>>);

impl Figures {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Registry::new(Numbers)))
    }

    /// Each metric by its name, with a list of its series: labels and `value`, or `count` and `sum`.
    pub(crate) fn to_json(&self) -> Value {
        let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let mut add = |key: &Key, numbers: Vec<(&str, Value)>| {
            let labels = key.labels().map(|label| (label.key().to_owned(), label.value().into()));
            let numbers = numbers.into_iter().map(|(name, number)| (name.to_owned(), number));
            let series: Map<String, Value> = labels.chain(numbers).collect();
            all.entry(key.name().to_owned()).or_default().push(series.into());
        };
        self.0.visit_counters(|key, count| add(key, vec![("value", count.load(Ordering::Relaxed).into())]));
        self.0.visit_gauges(|key, gauge| add(key, vec![("value", number(gauge.load(Ordering::Relaxed)))]));
        self.0.visit_histograms(|key, sum| {
            let count = sum.count.load(Ordering::Relaxed);
            add(key, vec![("count", count.into()), ("sum", number(sum.sum.load(Ordering::Relaxed)))]);
        });
        for series in all.values_mut() {
            series.sort_by_cached_key(Value::to_string);
        }
        json!(all)
    }

    /// The requests that the cache layers have answered, by result.
    pub(crate) fn cache(&self) -> Value {
        let mut results: BTreeMap<String, u64> = BTreeMap::new();
        self.0.visit_counters(|key, count| {
            if key.name() == "gatehouse_cache_requests_total"
                && let Some(result) = key.labels().find(|label| label.key() == "result")
            {
                *results.entry(result.value().to_owned()).or_default() += count.load(Ordering::Relaxed);
            }
        });
        let of = |result: &str| results.get(result).copied().unwrap_or_default();
        let saved = of("hit") + of("stale") + of("coalesced");
        let asked = of("miss") + of("revalidated");
        let ratio = if saved + asked == 0 { Value::Null } else { (saved as f64 / (saved + asked) as f64).into() };
        json!({ "requests": results, "hit_ratio": ratio, "origin_requests_saved": saved })
    }
}

impl Recorder for Figures {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.0.get_or_create_counter(key, |count| count.clone().into())
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.0.get_or_create_gauge(key, |gauge| gauge.clone().into())
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.0.get_or_create_histogram(key, |sum| sum.clone().into())
    }
}

/// What is kept of each series.
struct Numbers;

impl Storage<Key> for Numbers {
    type Counter = Arc<AtomicU64>;
    type Gauge = Arc<AtomicU64>;
    type Histogram = Arc<Sum>;

    fn counter(&self, _: &Key) -> Self::Counter {
        Arc::default()
    }

    fn gauge(&self, _: &Key) -> Self::Gauge {
        Arc::default()
    }

    fn histogram(&self, _: &Key) -> Self::Histogram {
        Arc::default()
    }
}

/// What is kept of a histogram.
#[derive(Default)]
struct Sum {
    count: AtomicU64,
    /// The bits of a float.
    sum: AtomicU64,
}

impl HistogramFn for Sum {
    fn record(&self, value: f64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let add = |sum| Some((f64::from_bits(sum) + value).to_bits());
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

/// A float that is kept as its bits.
fn number(bits: u64) -> Value {
    f64::from_bits(bits).into()
}
