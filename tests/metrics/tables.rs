//! The tables of the documented page.

pub(crate) const PAGE: &str = include_str!("../../src/metrics/page.md");

/// The cells of the rows of the table that begins with this head.
pub(crate) fn table(head: &str) -> Vec<Vec<&'static str>> {
    let (_, table) = PAGE.split_once(head).unwrap_or_else(|| panic!("no table {head}"));
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// The words in backquotes.
pub(crate) fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}
