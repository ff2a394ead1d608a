//! A recorder of the test's own.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, LocalRecorderGuard, Metadata, SharedString, Unit};
use metrics_util::registry::{AtomicStorage, Registry};
use tower_gatehouse::metrics::ALL;

/// Keeps what is recorded on this thread while it is installed.
pub(crate) struct Recorder(Registry<Key, AtomicStorage>);

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Registry::atomic()))
    }

    pub(crate) fn install(self: &Arc<Self>) -> LocalRecorderGuard<'_> {
        metrics::set_default_local_recorder(self)
    }

    /// What was counted, by the values of the labels, without those of `cache`.
    pub(crate) fn counts(&self, name: &str) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        self.0.visit_counters(|key, count| {
            if key.name() == name {
                let listed = ALL.iter().find(|metric| metric.name == name).expect("a metric of the list");
                let labels: Vec<_> = key.labels().map(metrics::Label::key).collect();
                assert_eq!(labels, listed.labels);
                let values = key.labels().filter(|label| label.key() != "cache").map(metrics::Label::value);
                counts.insert(values.collect::<Vec<_>>().join(" "), count.load(Ordering::Relaxed));
            }
        });
        counts
    }

    /// What the gauge of this name says, by the values of its labels.
    pub(crate) fn gauge(&self, name: &str, labels: &str) -> Option<f64> {
        let mut said = None;
        self.0.visit_gauges(|key, gauge| {
            let values = key.labels().map(metrics::Label::value);
            if key.name() == name && values.collect::<Vec<_>>().join(" ") == labels {
                said = Some(f64::from_bits(gauge.load(Ordering::Relaxed)));
            }
        });
        said
    }

    /// How many values the histograms of this name have got.
    pub(crate) fn observed(&self, name: &str) -> usize {
        let mut observed = 0;
        self.0.visit_histograms(|key, bucket| {
            if key.name() == name {
                bucket.data_with(|values| observed += values.len());
            }
        });
        observed
    }
}

/// What is expected of [`Recorder::counts`].
pub(crate) fn counts(list: &[(&str, u64)]) -> BTreeMap<String, u64> {
    list.iter().map(|(labels, count)| ((*labels).to_owned(), *count)).collect()
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.0.get_or_create_counter(key, |counter| Counter::from_arc(counter.clone()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.0.get_or_create_gauge(key, |gauge| Gauge::from_arc(gauge.clone()))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.0.get_or_create_histogram(key, |histogram| Histogram::from_arc(histogram.clone()))
    }
}
