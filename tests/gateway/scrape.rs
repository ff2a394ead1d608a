//! `/metrics` as Prometheus reads it: with the parser of its own client library for Python.

use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
};

use serde::Deserialize;

use crate::gateway::Gateway;

/// What a scrape has found.
pub(crate) struct Scrape(Vec<Family>);

/// A metric with all its series. The parser leaves `_total` out of the names of counters.
#[derive(Deserialize)]
pub(crate) struct Family {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) samples: Vec<Sample>,
}

#[derive(Deserialize)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

const PARSE: &str = "
import json, sys
from prometheus_client.parser import text_string_to_metric_families
json.dump([{
    'name': family.name, 'type': family.type, 'help': family.documentation,
    'samples': [{'name': s.name, 'labels': s.labels, 'value': s.value} for s in family.samples],
} for family in text_string_to_metric_families(sys.stdin.read())], sys.stdout)";

impl Scrape {
    pub(crate) fn of(gateway: &Gateway) -> Self {
        Self::parse(&gateway.connect_admin().get("/metrics", "").text())
    }

    fn parse(text: &str) -> Self {
        let mut python = Command::new("python3");
        python.args(["-c", PARSE]).env("PYTHONPATH", PACKAGES).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut python = python.spawn().expect("python3 runs");
        python.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
        let output = python.wait_with_output().expect("it ends");
        assert!(
            output.status.success(),
            "`sh tests/run.sh` installs the parser; or this is not the text format: {text}"
        );
        Self(serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    pub(crate) fn families(&self) -> &[Family] {
        &self.0
    }

    pub(crate) fn family(&self, name: &str) -> Option<&Family> {
        let name = name.strip_suffix("_total").unwrap_or(name);
        self.0.iter().find(|family| family.name == name)
    }

    /// The value of a series; 0 where there is none, as Prometheus' `increase` has it.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|found| found == value))
        };
        self.0.iter().flat_map(|family| &family.samples).filter(wanted).map(|sample| sample.value).sum()
    }

    /// All series of a counter: the values of these labels, joined by spaces, and what was counted.
    pub(crate) fn counts(&self, name: &str, labels: &[&str]) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for sample in self.family(name).map_or(&[][..], |family| &family.samples) {
            let values: Vec<_> = labels.iter().map(|label| sample.labels[*label].as_str()).collect();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let count = sample.value as u64;
            *counts.entry(values.join(" ")).or_default() += count;
        }
        counts
    }
}

/// Where `tests/run.sh` puts what is not part of Python.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/python");
