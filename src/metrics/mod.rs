#![doc = include_str!("page.md")]

#[allow(dead_code, reason = "the backends use a part each")]
#[cfg(feature = "metrics")]
#[path = "facade.rs"]
mod handles;
#[allow(dead_code, reason = "the backends use a part each")]
#[cfg(not(feature = "metrics"))]
#[path = "nothing.rs"]
mod handles;
#[allow(dead_code, reason = "the backends use a part each")]
mod list;

#[cfg(feature = "metrics")]
pub use handles::describe;
#[allow(unused_imports, reason = "the backends use a part each")]
pub(crate) use handles::{Counters, Histograms, Stopwatch, add, count, gauge, observe};
pub(crate) use list::*;
pub use list::{ALL, BYTE_BUCKETS, SECOND_BUCKETS};

use std::sync::Arc;

/// A metric: its name and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// As it is recorded.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// The names of its labels. Their values come from the code and the configuration, never from a request.
    pub labels: &'static [&'static str],
    /// What is counted or measured, and in which unit.
    pub help: &'static str,
}

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution of values.
    Histogram,
}

impl Kind {
    /// The word of the Prometheus text format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The value of a label: a word of this crate, or a name that the user has given.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "nobody reads what is not recorded"))]
pub(crate) enum Word<'a> {
    Own(&'static str),
    Given(&'a Arc<str>),
}

impl From<&'static str> for Word<'_> {
    fn from(word: &'static str) -> Self {
        Self::Own(word)
    }
}

impl<'a> From<&'a Arc<str>> for Word<'a> {
    fn from(name: &'a Arc<str>) -> Self {
        Self::Given(name)
    }
}
