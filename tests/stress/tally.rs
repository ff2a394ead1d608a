//! What one process has counted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// Counts, and the first few traces of what must not be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    counts: BTreeMap<&'static str, u64>,
    traces: Vec<String>,
}

impl Tally {
    pub(crate) fn count(&self, name: &'static str) {
        *self.0.lock().unwrap().counts.entry(name).or_default() += 1;
    }

    pub(crate) fn trace(&self, name: &'static str, trace: &str) {
        self.count(name);
        let traces = &mut self.0.lock().unwrap().traces;
        if traces.len() < 3 {
            traces.push(trace.replace('\n', "|"));
        }
    }

    pub(crate) fn print(&self) {
        let tally = self.0.lock().unwrap();
        tally.counts.iter().for_each(|(name, count)| println!("count {name} {count}"));
        tally.traces.iter().for_each(|trace| println!("{trace}"));
    }
}
