//! What the pages of the guide claim: the tests that they name are there.

use std::{fs, path::Path};

/// `path.rs::name` in backticks.
fn named_tests(page: &str) -> Vec<(String, String)> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted.filter_map(|text| text.split_once(".rs::")).map(|(file, test)| (format!("{file}.rs"), test.into())).collect()
}

fn is_a_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let is_it = line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.strip_prefix(name));
        // Its attributes stand above it, and those of proptest have no other.
        is_it.is_some_and(|rest| rest.starts_with('('))
            && lines[..at]
                .iter()
                .rev()
                .take_while(|line| !line.is_empty())
                .any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide").join(name)).expect("a page")
}

#[test]
fn every_test_that_the_security_page_names_is_there() {
    let named = named_tests(&page("security.md"));
    assert!(named.len() > 50, "{}", named.len());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let missing: Vec<_> = named
        .iter()
        .filter(|(file, test)| !fs::read_to_string(root.join(file)).is_ok_and(|source| is_a_test(&source, test)))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_attack_has_a_test_that_shows_the_defence_and_a_word_on_what_is_left_to_do() {
    let page = page("security.md");
    let (_, attacks) = page.split_once("\n# Attacks\n").expect("a part about attacks");
    let (attacks, limits) = attacks.split_once("\n# Limits\n").expect("a part about limits");
    let attacks: Vec<&str> = attacks.split("\n## ").skip(1).collect();
    assert_eq!(attacks.len(), 13);
    for attack in attacks {
        let title = attack.lines().next().unwrap_or_default();
        assert!(!named_tests(attack).is_empty(), "{title}: no test");
        assert!(attack.contains("\n*Yours:*"), "{title}: what stays the user's job?");
    }
    for limit in ["Failover", "Restarts from old snapshots", "Replicas", "Clocks"] {
        assert!(limits.contains(&format!("- **{limit}.**")), "{limit}");
    }
}

#[test]
fn the_checks_see_what_they_look_for() {
    assert_eq!(
        named_tests("a `b.rs::c`, `d` and `e/f.rs::g`"),
        [("b.rs".into(), "c".into()), ("e/f.rs".into(), "g".into())]
    );
    let source =
        "#[test]\nfn one() {}\n\nfn helper() {}\n\n    #[tokio::test(start_paused = true)]\n    async fn two() {}\n";
    assert!(is_a_test(source, "one") && is_a_test(source, "two"));
    assert!(!is_a_test(source, "helper") && !is_a_test(source, "on") && !is_a_test(source, "three"));
}
