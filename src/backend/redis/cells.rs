//! The bookkeeping of a bucket, and the rule by which a look-up judges an entry.
//!
//! A value of the wrong length counts as absent, and an absent cell stands for the last invalidation of anything in its
//! bucket. So whatever Redis loses leads to misses, never to an entry that was invalidated.

use bytes::Bytes;

use crate::{
    TagDigest, Timestamp,
    backend::{
        Entry, Tick, Ticket,
        blob::{f64_at, u16_at, whole},
    },
};

/// The clock of a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Clock {
    pub(super) tick: Tick,
    pub(super) born: u64,
    hard: f64,
    soft: f64,
    all_soft: f64,
}

impl Clock {
    const LEN: usize = 40;

    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        if value.len() != Self::LEN {
            return None;
        }
        Some(Self {
            tick: whole(f64_at(value, 0))?,
            born: whole(f64_at(value, 8))?,
            hard: f64_at(value, 16),
            soft: f64_at(value, 24),
            all_soft: f64_at(value, 32),
        })
    }

    /// The ticket that reading this clock is.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket { tick: self.tick, born: self.born }
    }

    /// The last invalidation of anything in the bucket.
    pub(super) fn floor(&self) -> Tick {
        // What is not a number lets nobody join.
        [self.hard, self.soft, self.all_soft]
            .into_iter()
            .map(|tick| whole(tick).unwrap_or(Tick::MAX))
            .fold(0, Tick::max)
    }
}

/// When something was last invalidated, hard and soft.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cell {
    hard: f64,
    soft: f64,
}

impl Cell {
    const LEN: usize = 16;

    /// The cell of a tag.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        (value.len() == Self::LEN).then(|| Self { hard: f64_at(value, 0), soft: f64_at(value, 8) })
    }
}

/// The cell of a primary key, with the Vary specification that was committed last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Primary<'a> {
    pub(super) cell: Cell,
    /// Not known if the cell was only pinned.
    pub(super) vary: Option<&'a [u8]>,
}

impl<'a> Primary<'a> {
    const PREFIX: usize = 20;

    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        if let Some(cell) = Cell::parse(value) {
            return Some(Self { cell, vary: None });
        }
        if value.len() < Self::PREFIX {
            return None;
        }
        let (spec_len, variants) = (usize::from(u16_at(value, 16)), usize::from(u16_at(value, 18)));
        if value.len() != Self::PREFIX + spec_len + 8 * variants {
            return None;
        }
        let vary = &value[Self::PREFIX..Self::PREFIX + spec_len];
        let cell = Cell { hard: f64_at(value, 0), soft: f64_at(value, 8) };
        Some(Self { cell, vary: (!vary.is_empty()).then_some(vary) })
    }
}

/// The tag cells that a look-up has read; `None` for those that are absent. They are few: at most
/// [`Entry::MAX_TAGS`] for a variant.
#[derive(Clone, Debug, Default)]
pub(super) struct TagCells(Vec<(TagDigest, Option<Cell>)>);

impl TagCells {
    pub(super) fn with_capacity(n: usize) -> Self {
        Self(Vec::with_capacity(n))
    }

    /// Adds what is read for tags that are not there yet, one after the other.
    pub(super) fn read(&mut self, tags: &[TagDigest], mut next: impl FnMut() -> Option<Bytes>) {
        self.0.extend(tags.iter().map(|tag| (*tag, next().and_then(|value| Cell::parse(&value)))));
    }

    /// Which of these were not read yet.
    pub(super) fn missing(&self, tags: &[TagDigest]) -> Vec<TagDigest> {
        let is_missing = |tag: &TagDigest| !self.0.iter().any(|(read, _)| read == tag);
        tags.iter().copied().filter(is_missing).collect()
    }

    /// The cell of a tag; `None` if it is absent or was not read.
    fn get(&self, tag: TagDigest) -> Option<Cell> {
        self.0.iter().find(|(read, _)| *read == tag).and_then(|(_, cell)| *cell)
    }
}

impl FromIterator<(TagDigest, Option<Cell>)> for TagCells {
    fn from_iter<I: IntoIterator<Item = (TagDigest, Option<Cell>)>>(cells: I) -> Self {
        Self(cells.into_iter().collect())
    }
}

/// What the rule says about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It must not be handed out.
    Invalid,
    /// It may be.
    Valid,
    /// It may be, as stale from this time on.
    Stale(Timestamp),
}

/// Judges an entry by the newest clock that was read.
pub(super) fn judge(entry: &Entry, clock: &Clock, primary: Option<Cell>, tags: &TagCells) -> Verdict {
    let ticket = entry.ticket();
    if !(ticket.born == clock.born && ticket.tick <= clock.tick) {
        return Verdict::Invalid;
    }
    let tick = ticket.tick as f64;
    let absent = Cell { hard: clock.hard, soft: clock.soft };
    let cells = entry.tags().iter().map(|tag| tags.get(*tag));
    let mut stale: Option<f64> = None;
    let mut soften = |soft: f64| stale = Some(stale.map_or(soft, |since| since.min(soft)));
    if !at_least(tick, clock.all_soft) {
        soften(clock.all_soft);
    }
    for cell in cells.chain([primary]) {
        let cell = cell.unwrap_or(absent);
        if !at_least(tick, cell.hard) {
            return Verdict::Invalid;
        }
        if !at_least(tick, cell.soft) {
            soften(cell.soft);
        }
    }
    match stale {
        None => Verdict::Valid,
        Some(since) => Verdict::Stale(Timestamp::from_micros(whole(since).unwrap_or(0))),
    }
}

/// Never holds for what is not a number, so that damage to a cell makes an entry invalid, not valid.
fn at_least(tick: f64, invalidated: f64) -> bool {
    tick >= invalidated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(tick: Tick, born: u64, hard: f64, soft: f64, all_soft: f64) -> Clock {
        Clock { tick, born, hard, soft, all_soft }
    }

    fn entry(tick: Tick, born: u64, tags: &[u8]) -> std::sync::Arc<Entry> {
        let tags = tags.iter().map(|tag| digest(*tag));
        Entry::builder(Ticket { tick, born }).tags(tags).build()
    }

    fn digest(tag: u8) -> TagDigest {
        TagDigest::from_bytes([tag; 8])
    }

    fn cell(hard: f64, soft: f64) -> Cell {
        Cell { hard, soft }
    }

    #[test]
    fn each_condition_of_the_rule_alone_decides() {
        let old = Some(cell(10.0, 10.0));
        let tags = TagCells::from_iter([(digest(1), old)]);
        let calm = clock(100, 5, 10.0, 10.0, 10.0);
        let at = |micros| Verdict::Stale(Timestamp::from_micros(micros));
        let none = TagCells::default();
        for (name, entry, clock, primary, tags, expected) in [
            ("all is well", entry(50, 5, &[1]), calm, old, &tags, Verdict::Valid),
            ("another clock", entry(50, 6, &[1]), calm, old, &tags, Verdict::Invalid),
            ("younger than the clock", entry(101, 5, &[1]), calm, old, &tags, Verdict::Invalid),
            ("as old as the clock", entry(100, 5, &[1]), calm, old, &tags, Verdict::Valid),
            ("its key invalidated", entry(50, 5, &[1]), calm, Some(cell(51.0, 0.0)), &tags, Verdict::Invalid),
            ("invalidated by the same tick", entry(50, 5, &[1]), calm, Some(cell(50.0, 0.0)), &tags, Verdict::Valid),
            (
                "a tag invalidated",
                entry(5, 5, &[1]),
                clock(100, 5, 10.0, 0.0, 0.0),
                Some(cell(0.0, 0.0)),
                &tags,
                Verdict::Invalid,
            ),
            ("key lost, all calm", entry(50, 5, &[1]), calm, None, &tags, Verdict::Valid),
            ("key lost after an invalidation", entry(5, 5, &[]), calm, None, &tags, Verdict::Invalid),
            ("tag lost after an invalidation", entry(5, 5, &[1]), calm, Some(cell(0.0, 0.0)), &none, Verdict::Invalid),
            ("its key softened", entry(50, 5, &[1]), calm, Some(cell(0.0, 60.0)), &tags, at(60)),
            ("softened twice", entry(50, 5, &[]), clock(100, 5, 0.0, 0.0, 70.0), Some(cell(0.0, 60.0)), &none, at(60)),
            ("all softened", entry(50, 5, &[1]), clock(100, 5, 0.0, 0.0, 70.0), old, &tags, at(70)),
            ("not a number", entry(50, 5, &[1]), calm, Some(cell(f64::NAN, 0.0)), &tags, Verdict::Invalid),
        ] {
            assert_eq!(judge(&entry, &clock, primary, tags), expected, "{name}");
        }
    }

    #[test]
    fn values_of_the_wrong_length_are_absent() {
        for len in (0..100).filter(|len| *len != 40) {
            assert_eq!(Clock::parse(&vec![0; len]), None);
        }
        for len in (0..100).filter(|len| *len != 16) {
            assert_eq!(Cell::parse(&vec![0; len]), None);
        }
        for len in (0..100).filter(|len| *len != 16 && *len != 20) {
            assert!(Primary::parse(&vec![0; len]).is_none());
        }
        assert_eq!(Clock::parse(&[0xff; 40]), None, "NaN");
    }

    #[test]
    fn a_primary_cell_names_its_specification() {
        let mut value = [0; 16].to_vec();
        assert_eq!(Primary::parse(&value).unwrap().vary, None);
        value.extend([3, 0, 1, 0]);
        value.extend(b"abc12345678");
        assert_eq!(Primary::parse(&value).unwrap().vary, Some(&b"abc"[..]));
    }
}
