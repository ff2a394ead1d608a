//! The conformance kit.

/// What a store can lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The clock by which tickets are ordered.
    Clock,
    /// What is known of keys: when they were invalidated, how they vary.
    KeyCells,
    /// When tags were invalidated.
    TagCells,
    /// The stored responses.
    Entries,
    /// Who holds which lease.
    Leases,
    /// What was handed over.
    HandOvers,
    /// All of it.
    Everything,
}
