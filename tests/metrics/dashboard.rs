//! The dashboard for Grafana and the metrics are the same list.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tower_gatehouse::metrics::{ALL, Kind};

const DASHBOARD: &str = include_str!("../../examples/gateway/grafana.json");
const GATEWAY: &str = include_str!("../../examples/gateway/admin.rs");

/// Metrics that no panel shows, with the reason.
const NOT_SHOWN: &[(&str, &str)] = &[];

/// The expressions of all panels.
fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().expect("an expression").to_owned()).collect()
}

/// The series that the exporter makes of each metric, with its labels; of the crate and of the gateway.
fn series() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut series = BTreeMap::new();
    for metric in ALL {
        let labels: BTreeSet<_> = metric.labels.iter().copied().collect();
        if metric.kind == Kind::Histogram {
            for part in ["bucket", "sum", "count"] {
                let mut labels = labels.clone();
                labels.extend((part == "bucket").then_some("le"));
                series.insert(format!("{}_{part}", metric.name), labels);
            }
        } else {
            series.insert(metric.name.to_owned(), labels);
        }
    }
    for (_, rest) in GATEWAY.match_indices("describe_").map(|(at, _)| GATEWAY.split_at(at)) {
        let Some(name) = rest.split('"').nth(1).filter(|name| name.starts_with("gateway_")) else { continue };
        let labels = match name {
            "gateway_requests_total" => BTreeSet::from(["status"]),
            "gateway_origin_errors_total" => BTreeSet::from(["kind"]),
            _ => BTreeSet::new(),
        };
        if rest.starts_with("describe_histogram") {
            series.insert(format!("{name}_bucket"), BTreeSet::from(["le"]));
        } else {
            series.insert(name.to_owned(), labels);
        }
    }
    series
}

/// The words of an expression, each with the character that follows.
fn words(expression: &str) -> Vec<(&str, Option<char>)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut words = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(is_word) {
        let from = &rest[start..];
        let end = from.find(|c| !is_word(c)).unwrap_or(from.len());
        words.push((&from[..end], from[end..].chars().next()));
        rest = &from[end..];
    }
    words
}

fn is_metric(word: &str) -> bool {
    word.starts_with("gatehouse_") || word.starts_with("gateway_")
}

#[test]
fn every_metric_of_the_dashboard_is_in_the_list_and_every_one_of_the_list_in_the_dashboard() {
    let expressions = expressions();
    let shown: BTreeSet<&str> = expressions
        .iter()
        .flat_map(|expression| words(expression))
        .map(|(word, _)| word)
        .filter(|w| is_metric(w))
        .collect();
    let series = series();
    let unknown: Vec<_> = shown.iter().filter(|name| !series.contains_key(**name)).collect();
    assert!(unknown.is_empty(), "no such metric: {unknown:?}");
    for metric in ALL {
        let name =
            if metric.kind == Kind::Histogram { format!("{}_bucket", metric.name) } else { metric.name.to_owned() };
        let left_out = NOT_SHOWN.iter().any(|(other, _)| *other == metric.name);
        assert_ne!(shown.contains(name.as_str()), left_out, "{name}");
    }
}

#[test]
fn the_dashboard_asks_for_labels_that_the_metrics_have() {
    let series = series();
    for expression in expressions() {
        for (at, _) in expression.match_indices('g') {
            let (name, rest) = name_at(&expression[at..]);
            if !is_metric(name) || expression[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
                continue;
            }
            let labels = &series[name];
            let selected =
                rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
            for matcher in selected.split("\",").filter(|matcher| !matcher.is_empty()) {
                let label = matcher.split(['=', '!']).next().expect("a label");
                assert!(label == "job" || labels.contains(label), "{name} has no label {label}: {expression}");
            }
            let grouped = expression[..at].rsplit_once("sum by (").and_then(|(_, rest)| rest.split_once(')'));
            for label in grouped.map_or("", |(labels, _)| labels).split(',').map(str::trim).filter(|l| !l.is_empty()) {
                assert!(labels.contains(label), "{name} has no label {label}: {expression}");
            }
        }
    }
}

fn name_at(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len()))
}

#[test]
fn panels_have_titles_and_ids_of_their_own_and_do_not_overlap() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    let titles: BTreeSet<_> = panels.iter().map(|panel| panel["title"].as_str().expect("a title")).collect();
    assert_eq!((ids.len(), titles.len()), (panels.len(), panels.len()));
    let mut taken = BTreeSet::new();
    for panel in panels {
        let of = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        for (x, y) in (of("x")..of("x") + of("w")).flat_map(|x| (of("y")..of("y") + of("h")).map(move |y| (x, y))) {
            assert!(x < 24 && taken.insert((x, y)), "{} overlaps", panel["title"]);
        }
    }
}
