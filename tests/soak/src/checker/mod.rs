//! Judges a history, and nothing but the history: it shares no code with what it judges.

mod carts;
mod limits;
mod pages;
mod sessions;
mod sizes;

use std::{collections::BTreeMap, fmt};

use crate::history::History;
pub(crate) use limits::{BURST, PER_SECOND};
pub(crate) use sizes::is_back;

/// What was promised and not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    /// No page older than what was invalidated before it was asked for.
    NothingStale,
    /// Pages are answered, whatever happens to Redis.
    NoErrorOfOurs,
    /// What was acknowledged is in the cart, once.
    NoCartChangeLost,
    /// A token that was ended stays ended, and one that was not goes on; each is of one user.
    SessionsEndOnce,
    /// No more is admitted than the quota allows.
    NoLimitExceeded,
    /// Memory, tasks and descriptors are back to where they were.
    BackToTheStart,
    /// No gateway panics, nor ends by itself.
    NoPanic,
}

/// One promise that was not kept, in one sentence.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) promise: Promise,
    pub(crate) what: String,
}

impl Violation {
    pub(crate) fn new(promise: Promise, what: impl fmt::Display) -> Self {
        Self { promise, what: what.to_string() }
    }
}

/// All that is wrong with a history.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    [
        pages::check(history),
        carts::check(history),
        sessions::check(history),
        limits::check(history),
        sizes::check(history),
    ]
    .concat()
}

/// What has happened, and how often. A history in which nothing has happened keeps all promises.
pub(crate) fn counts(history: &History) -> BTreeMap<&'static str, u64> {
    let mut counts = history.counts.clone();
    pages::count(history, &mut counts);
    carts::count(history, &mut counts);
    sessions::count(history, &mut counts);
    limits::count(history, &mut counts);
    counts
}
