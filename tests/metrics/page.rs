//! The documented page and the list are the same.

use std::collections::BTreeSet;

use tower_gatehouse::metrics::{ALL, BYTE_BUCKETS, Kind, SECOND_BUCKETS};

use crate::tables::{PAGE, quoted, table};

#[test]
fn the_table_of_the_page_is_the_list() {
    let rows = table("| metric | kind | labels | what |");
    let listed: Vec<_> = ALL
        .iter()
        .map(|metric| {
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            vec![
                format!("`{}`", metric.name),
                metric.kind.as_str().to_owned(),
                labels.join(", "),
                metric.help.to_owned(),
            ]
        })
        .collect();
    assert_eq!(rows, listed);
}

#[test]
fn names_follow_the_rules_of_prometheus() {
    let mut names = BTreeSet::new();
    for metric in ALL {
        let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(metric.name.starts_with("gatehouse_") && is_plain(metric.name), "{}", metric.name);
        assert!(names.insert(metric.name), "{} twice", metric.name);
        assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
        let has_unit = metric.name.ends_with("_seconds") || metric.name.ends_with("_bytes");
        assert!(metric.kind != Kind::Histogram || has_unit, "{}", metric.name);
        assert!(metric.labels.iter().all(|label| is_plain(label) && *label != "le"), "{}", metric.name);
        assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{}", metric.name);
    }
    for buckets in [SECOND_BUCKETS, BYTE_BUCKETS] {
        assert!(buckets.windows(2).all(|pair| pair[0] < pair[1]));
    }
}

#[test]
fn every_label_of_the_list_has_its_values_on_the_page() {
    let values = table("| metric | label | values |");
    for metric in ALL {
        for label in metric.labels.iter().filter(|label| !["cache", "backend", "node", "policy"].contains(label)) {
            let in_table =
                values.iter().any(|row| quoted(row[0]).contains(&metric.name) && quoted(row[1]).contains(label));
            // Requests and what is not stored have tables of their own.
            let apart = PAGE.contains(&format!("`{label}` of `{}`", metric.name))
                || PAGE.contains(&format!("and `{label}` of `{}`", metric.name))
                || metric.name == "gatehouse_cache_requests_total" && PAGE.contains("`result` and `reason` of");
            assert!(in_table || apart, "{} of {}", label, metric.name);
        }
    }
}
