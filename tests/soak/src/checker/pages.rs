//! Pages: never older than what was invalidated, and always answered.

use std::collections::BTreeMap;

use super::{Promise, Violation};
use crate::history::{History, Moment, Seen};

pub(super) fn check(history: &History) -> Vec<Violation> {
    let required = Required::of(history);
    let wrong = |read: &crate::history::Read| match read.seen {
        Seen::Version(version) => {
            let least = required.at(read.page, read.span.begin);
            (version < least).then(|| {
                let what = format!(
                    "gateway {} answered page {} with version {version} ({}), asked at {} µs; {least} was invalidated",
                    read.gateway, read.page, read.status, read.span.begin
                );
                Violation::new(Promise::NothingStale, what)
            })
        }
        Seen::Torn => Some(Violation::new(Promise::NothingStale, format!("page {} is torn: {read:?}", read.page))),
        Seen::Refused(status) => Some(Violation::new(
            Promise::NoErrorOfOurs,
            format!("page {} was answered with {status}: {read:?}", read.page),
        )),
        Seen::Lost => None,
    };
    history.reads.iter().filter_map(wrong).collect()
}

/// By page: from when on which version is the least that may be seen.
struct Required(BTreeMap<usize, Vec<(Moment, u64)>>);

impl Required {
    fn of(history: &History) -> Self {
        let mut pages: BTreeMap<usize, Vec<(Moment, u64)>> = BTreeMap::new();
        for done in &history.invalidations {
            pages.entry(done.page).or_default().push((done.span.end, done.version));
        }
        for steps in pages.values_mut() {
            steps.sort_unstable();
            // Invalidations of one page may end in any order; the highest version counts.
            let mut highest = 0;
            for (_, version) in steps {
                highest = highest.max(*version);
                *version = highest;
            }
        }
        Self(pages)
    }

    fn at(&self, page: usize, begin: Moment) -> u64 {
        let Some(steps) = self.0.get(&page) else { return 0 };
        let done = steps.partition_point(|(end, _)| *end <= begin);
        done.checked_sub(1).map_or(0, |last| steps[last].1)
    }
}

pub(super) fn count(history: &History, counts: &mut BTreeMap<&'static str, u64>) {
    for read in &history.reads {
        let name = match (read.seen, &*read.cache) {
            (Seen::Lost, _) => "pages lost",
            (_, "HIT") => "hits",
            (_, "STALE") => "stale while revalidating",
            (_, "REVALIDATED") => "validated",
            _ => "misses",
        };
        *counts.entry(name).or_default() += 1;
    }
    counts.insert("pages", history.reads.len() as u64);
    counts.insert("invalidations", history.invalidations.len() as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Invalidation, Read, Span};

    fn history(reads: &[(Moment, Seen)]) -> History {
        let span = |begin, end| Span { begin, end };
        let done = |begin, end, version| Invalidation { span: span(begin, end), page: 1, version };
        let read = |(begin, seen): &(Moment, Seen)| Read {
            span: span(*begin, begin + 5),
            gateway: 0,
            page: 1,
            seen: *seen,
            cache: "HIT".to_owned(),
            status: String::new(),
        };
        History {
            // The second ends first.
            invalidations: vec![done(10, 40, 2), done(20, 30, 3), Invalidation { page: 2, ..done(0, 1, 9) }],
            reads: reads.iter().map(read).collect(),
            ..History::default()
        }
    }

    #[test]
    fn what_was_asked_before_the_invalidation_had_ended_may_be_old() {
        let history =
            history(&[(29, Seen::Version(0)), (30, Seen::Version(3)), (50, Seen::Version(4)), (9, Seen::Lost)]);
        assert!(check(&history).is_empty());
    }

    #[test]
    fn an_older_version_afterwards_is_stale() {
        let found = check(&history(&[(30, Seen::Version(2)), (40, Seen::Version(2)), (41, Seen::Torn)]));
        assert_eq!(found.iter().map(|found| found.promise).collect::<Vec<_>>(), [Promise::NothingStale; 3]);
    }

    #[test]
    fn an_error_is_ours() {
        assert_eq!(check(&history(&[(0, Seen::Refused(502))]))[0].promise, Promise::NoErrorOfOurs);
    }
}
