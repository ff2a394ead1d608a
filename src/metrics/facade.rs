//! Recording through the `metrics` facade.

use std::{cell::Cell, fmt, sync::OnceLock, time::Instant};

use ::metrics::{IntoF64, Key, Label, Metadata, SharedString, with_recorder};

use super::{ALL, Kind, Metric, Word};

/// Tells the recorder what each metric means, and its unit. Call it once, after the recorder was installed.
pub fn describe() {
    for metric in ALL {
        let unit = if metric.name.ends_with("_seconds") {
            Some(::metrics::Unit::Seconds)
        } else if metric.name.ends_with("_bytes") {
            Some(::metrics::Unit::Bytes)
        } else {
            None
        };
        let (name, help) = (metric.name.into(), SharedString::const_str(metric.help));
        with_recorder(|recorder| match metric.kind {
            Kind::Counter => recorder.describe_counter(name, unit, help),
            Kind::Gauge => recorder.describe_gauge(name, unit, help),
            Kind::Histogram => recorder.describe_histogram(name, unit, help),
        });
    }
}

/// Counts one, for what does not happen often.
pub(crate) fn count<const N: usize>(metric: &'static Metric, words: [Word<'_>; N]) {
    counter(metric, &words).increment(1);
}

/// Sets a gauge.
pub(crate) fn gauge<const N: usize>(metric: &'static Metric, words: [Word<'_>; N], value: impl FnOnce() -> f64) {
    let key = key(metric, &words);
    with_recorder(|recorder| recorder.register_gauge(&key, &METADATA)).set(value());
}

/// Raises or lowers a gauge.
pub(crate) fn add<const N: usize>(metric: &'static Metric, words: [Word<'_>; N], value: f64) {
    let key = key(metric, &words);
    with_recorder(|recorder| recorder.register_gauge(&key, &METADATA)).increment(value);
}

/// Adds a value to a histogram, for what does not happen often.
pub(crate) fn observe<const N: usize>(metric: &'static Metric, words: [Word<'_>; N], value: f64) {
    histogram(metric, &words).record(value);
}

/// Counters for what happens often: each is looked for in the recorder when it is first used, and not again.
#[derive(Default)]
pub(crate) struct Counters<const N: usize>(Handles<::metrics::Counter, N>);

impl<const N: usize> Counters<N> {
    /// Counts one; `index` stands for the labels.
    pub(crate) fn count<'a, const M: usize>(
        &self,
        index: usize,
        metric: &'static Metric,
        words: impl FnOnce() -> [Word<'a>; M],
    ) {
        self.0.get(index, || counter(metric, &words())).increment(1);
    }
}

/// Histograms for what happens often.
#[derive(Default)]
pub(crate) struct Histograms<const N: usize>(Handles<::metrics::Histogram, N>);

impl<const N: usize> Histograms<N> {
    /// Begins to measure; `index` stands for the labels. A look at the clock costs as much as several layers, so that none
    /// is had where nobody records.
    pub(crate) fn start<'a, const M: usize>(
        &self,
        index: usize,
        metric: &'static Metric,
        words: impl FnOnce() -> [Word<'a>; M],
    ) -> Stopwatch {
        let recorded = Cell::new(false);
        // The value is asked for by those that record, and it is recorded not once.
        self.0.get(index, || histogram(metric, &words())).record_many(Asked(&recorded), 0);
        Stopwatch(recorded.get().then(Instant::now))
    }

    /// Adds what was measured, in seconds; `index` stands for the labels.
    pub(crate) fn observe<'a, const M: usize>(
        &self,
        index: usize,
        metric: &'static Metric,
        words: impl FnOnce() -> [Word<'a>; M],
        since: Stopwatch,
    ) {
        if let Some(seconds) = since.seconds() {
            self.0.get(index, || histogram(metric, &words())).record(seconds);
        }
    }
}

/// A value that notices whether it is asked for.
struct Asked<'a>(&'a Cell<bool>);

impl IntoF64 for Asked<'_> {
    fn into_f64(self) -> f64 {
        self.0.set(true);
        0.0
    }
}

struct Handles<H, const N: usize>([OnceLock<H>; N]);

impl<H, const N: usize> Handles<H, N> {
    fn get(&self, index: usize, find: impl FnOnce() -> H) -> &H {
        self.0[index].get_or_init(find)
    }
}

impl<H, const N: usize> Default for Handles<H, N> {
    fn default() -> Self {
        Self([const { OnceLock::new() }; N])
    }
}

/// Measures how long something takes, if anybody wants to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Option<Instant>);

impl Stopwatch {
    fn seconds(self) -> Option<f64> {
        self.0.map(|since| since.elapsed().as_secs_f64())
    }
}

const METADATA: Metadata<'static> = Metadata::new("tower_gatehouse", ::metrics::Level::INFO, None);

fn counter(metric: &'static Metric, words: &[Word<'_>]) -> ::metrics::Counter {
    let key = key(metric, words);
    with_recorder(|recorder| recorder.register_counter(&key, &METADATA))
}

fn histogram(metric: &'static Metric, words: &[Word<'_>]) -> ::metrics::Histogram {
    let key = key(metric, words);
    with_recorder(|recorder| recorder.register_histogram(&key, &METADATA))
}

fn key(metric: &'static Metric, words: &[Word<'_>]) -> Key {
    debug_assert_eq!(metric.labels.len(), words.len(), "{}", metric.name);
    let labels = metric.labels.iter().zip(words).map(|(label, word)| {
        let value = match *word {
            Word::Own(word) => SharedString::const_str(word),
            Word::Given(name) => SharedString::from_shared(name.clone()),
        };
        Label::new(*label, value)
    });
    Key::from_parts(metric.name, labels.collect::<Vec<_>>())
}

impl<const N: usize> fmt::Debug for Counters<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

impl<const N: usize> fmt::Debug for Histograms<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histograms").finish_non_exhaustive()
    }
}

/// A clone finds its own.
impl<const N: usize> Clone for Counters<N> {
    fn clone(&self) -> Self {
        Self::default()
    }
}
