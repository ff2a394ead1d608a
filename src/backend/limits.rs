//! The contract for limits: counters that are exact across all processes that share the store.

use std::{fmt, future::Future, ops::Deref, time::Duration};

use smallvec::SmallVec;

use super::BackendError;
use crate::Timestamp;

/// 16 bytes that name who or what is limited, made by the caller: a hash of all that is keyed, or for a store that
/// [takes plain keys](Limits::takes_plain_keys) what fits in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitKey([u8; 16]);

impl LimitKey {
    /// The key that consists of these bytes. Stores shard by them: they must be spread evenly (a hash) unless the store
    /// [takes plain keys](Limits::takes_plain_keys).
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Another key, which follows from this one.
    pub(crate) fn twin(&self) -> Self {
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(&self.0).as_bytes()[..16]);
        Self(key)
    }
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LimitKey({self})")
    }
}

/// What one counter allows, in the numbers that all stores calculate with.
///
/// All of them are whole and below 2⁵³, so that a store whose numbers are doubles (Redis' Lua) decides exactly like
/// one that counts in integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit(pub(super) Rule);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    /// The generic cell rate algorithm. The level is the time that it takes until everything is refilled, in
    /// nanoseconds.
    Rate { interval: u64, capacity: u64, ceiling: u64 },
    /// Windows of a fixed length that begin at multiples of it. The level is what was taken in the window.
    Window { limit: u64, length: u64 },
}

impl Limit {
    /// The longest time to refill, 2⁵² ns: 52 days.
    pub const MAX_REFILL: Duration = Duration::from_nanos(MAX_NANOS);

    /// One unit every `interval`, and up to `burst` units at once after a pause (GCRA, ITU-T I.371).
    ///
    /// The interval is at least 1 ns and at most [`MAX_REFILL`](Self::MAX_REFILL); a burst that would take longer than
    /// that to refill is cut. With a burst of 0, nothing is ever admitted.
    pub fn rate(interval: Duration, burst: u32) -> Self {
        let interval = nanos(interval).max(1);
        let capacity = (MAX_NANOS / interval).min(u64::from(burst)) * interval;
        Self(Rule::Rate { interval, capacity, ceiling: capacity })
    }

    /// At most `limit` units in each window; windows begin at multiples of `length` since the Unix epoch.
    ///
    /// The length is at least 1 µs and at most 2⁵² µs (142 years).
    pub fn window(limit: u32, length: Duration) -> Self {
        let length = u64::try_from(length.as_micros()).unwrap_or(u64::MAX).clamp(1, 1 << 52);
        Self(Rule::Window { limit: u64::from(limit), length })
    }

    /// How far [`Limits::settle`] may charge beyond a rate, in units; without, charges beyond it are cut.
    ///
    /// The level beyond a rate has to be bounded, so that a rate that was lowered heals within the new rate's time.
    #[must_use]
    pub fn overdraft(mut self, units: u32) -> Self {
        if let Rule::Rate { interval, capacity, ceiling } = &mut self.0 {
            *ceiling = capacity.saturating_add(interval.saturating_mul(u64::from(units))).min(MAX_NANOS);
        }
        self
    }

    /// The most that can be taken at once, in units.
    pub const fn capacity(self) -> u64 {
        match self.0 {
            Rule::Rate { interval, capacity, .. } => capacity / interval,
            Rule::Window { limit, .. } => limit,
        }
    }
}

const MAX_NANOS: u64 = 1 << 52;

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min(MAX_NANOS)
}

/// How much to take from one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What the counter allows.
    pub limit: Limit,
    /// How many units; 0 only tells the level.
    pub cost: u32,
}

/// What to take for one key: its counters are kept together.
#[derive(Clone, Copy, Debug)]
pub struct Take<'a> {
    /// Who is limited.
    pub key: LimitKey,
    /// The key's counters; their number and order belong to the key: other ones under the same key begin anew.
    pub asks: &'a [Ask],
}

/// The answer to [`Limits::take`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whether everything was taken; else nothing was.
    pub admitted: bool,
    /// When, on the store's clock; for [`Settle::taken`].
    pub at: Timestamp,
    /// The state of every counter afterwards: the first key's in order, then the second's, and so on. `None` for
    /// keys that were not asked for because another one denies, or that could not be asked while another one denied.
    pub levels: Levels,
}

/// The states of counters, in the order in which they were asked for; collected from an iterator.
///
/// Most requests ask for one counter: that needs no allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels(SmallVec<[Option<Level>; 1]>);

impl Levels {
    pub(super) fn push(&mut self, level: Option<Level>) {
        self.0.push(level);
    }
}

impl Deref for Levels {
    type Target = [Option<Level>];

    fn deref(&self) -> &[Option<Level>] {
        &self.0
    }
}

impl FromIterator<Option<Level>> for Levels {
    fn from_iter<I: IntoIterator<Item = Option<Level>>>(levels: I) -> Self {
        Self(levels.into_iter().collect())
    }
}

impl Extend<Option<Level>> for Levels {
    fn extend<I: IntoIterator<Item = Option<Level>>>(&mut self, levels: I) {
        self.0.extend(levels);
    }
}

/// The state of one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// How many units could be taken now.
    pub remaining: u64,
    /// When everything can be taken again, if nothing is taken meanwhile.
    pub refilled: Duration,
    /// Whether what was asked for was there.
    pub verdict: Verdict,
}

/// Whether a counter had what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It had.
    Within,
    /// It will have after this time, and not earlier, if nothing is taken or given back meanwhile.
    Wait(Duration),
    /// It never will: the cost is above what can be taken at once.
    Never,
}

/// Corrects what was taken, once it is known what it should have been.
#[derive(Clone, Copy, Debug)]
pub struct Settle<'a> {
    /// The key.
    pub key: LimitKey,
    /// [`Taken::at`] of what is corrected.
    pub taken: Timestamp,
    /// One for each counter, in the order of [`Take::asks`].
    pub changes: &'a [Change],
}

/// What to correct at one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What the counter allows.
    pub limit: Limit,
    /// The units to charge; below 0, to give back.
    pub units: i64,
}

/// Counters that are exact across all processes that share the store.
///
/// A store that forgets a counter admits anew what it had counted; it never denies because of it.
pub trait Limits {
    /// Takes from every counter of every key, or from none. Atomic.
    ///
    /// The keys are distinct. Not retried: what was sent may have been counted, also after an error. A dropped future
    /// has taken all or nothing.
    ///
    /// Where keys lie on different servers, others may for a moment see as taken what is given back at once because
    /// another key had nothing left. If a server cannot be asked, the answer is an error unless another one denies.
    fn take(&self, takes: &[Take<'_>]) -> impl Future<Output = Result<Taken, BackendError>> + Send;

    /// The same, where the answer is known without waiting for anything: in memory, or for what was denied a moment
    /// ago. `None`, which is the default, if it has to be [`take`](Self::take)n; nothing has been then.
    fn take_now(&self, takes: &[Take<'_>]) -> Option<Taken> {
        let _ = takes;
        None
    }

    /// Whether a key may be an address as it is: for counters that never leave the memory of this process, and that
    /// spread keys themselves. It spares a hash. `false` by default.
    fn takes_plain_keys(&self) -> bool {
        false
    }

    /// Charges, whether it is there or not, or gives back.
    ///
    /// What is given back is never more than what would be there had it not been taken: the part of a rate that was
    /// refilled since, and what was taken in an earlier window, are not given back. Not retried.
    fn settle(&self, settle: Settle<'_>) -> impl Future<Output = Result<(), BackendError>> + Send;
}
