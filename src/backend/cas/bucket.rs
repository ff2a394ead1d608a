//! The bookkeeping of a bucket, in one value: its clock, and what was invalidated last.
//!
//! Everything here is pure. That a bucket is one value makes an invalidation, and the judgement of an entry, one step.
//! Cells are bounded: the ones invalidated longest ago are forgotten, which raises the floor that absent cells stand
//! for. A bucket that was lost begins anew with another birth, which no entry and no ticket has.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::codec::{Reader, Writer};
use crate::{
    TagDigest, Timestamp,
    backend::{BackendError, Entry, ErrorKind, Mode, PrimaryKey, Scope, Tick, Ticket},
};

/// When something was last invalidated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell {
    hard: Tick,
    soft: Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    tick: Tick,
    born: u64,
    /// What an absent cell stands for.
    floor: Cell,
    all_soft: Tick,
    /// The last invalidation of anything.
    last: Tick,
    keys: BTreeMap<PrimaryKey, Cell>,
    tags: BTreeMap<TagDigest, Cell>,
}

/// What the rule says about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Invalid,
    Valid,
    /// Stale from this time on.
    Stale(Timestamp),
}

/// Whether a ticket is good for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    Good,
    /// Something that it carries was invalidated.
    Invalidated,
    /// Something may have been: the cell was forgotten.
    Unsure,
    /// Another clock.
    ClockLost,
}

/// The most cells of each sort; a value takes at most about 24 KiB.
const MAX_CELLS: usize = 512;
/// Numbers are below this, so that they are exact as doubles, which stored entries use.
const LIMIT: u64 = 1 << 53;

impl Bucket {
    /// # Errors
    /// If the operating system has no random bytes.
    pub(super) fn new(now: Timestamp) -> Result<Self, BackendError> {
        Ok(Self {
            tick: now.as_micros().clamp(1, LIMIT / 2),
            born: random()?,
            floor: Cell::default(),
            all_soft: 0,
            last: 0,
            keys: BTreeMap::new(),
            tags: BTreeMap::new(),
        })
    }

    pub(super) fn ticket(&self) -> Ticket {
        Ticket { tick: self.tick, born: self.born }
    }

    /// A fill may be joined if its tick is at least this.
    pub(super) fn last_invalidation(&self) -> Tick {
        self.last
    }

    /// Moves the clock on and returns the ticket, younger than every one before.
    pub(super) fn advance(&mut self, now: Timestamp) -> Ticket {
        self.tick = (self.tick + 1).max(now.as_micros().min(LIMIT / 2));
        self.ticket()
    }

    /// Makes the clock younger than an entry with this tick; `false` if it is already.
    pub(super) fn pass(&mut self, tick: Tick) -> bool {
        let behind = self.tick <= tick;
        if behind {
            self.tick = tick + 1;
        }
        behind
    }

    /// # Errors
    /// As [`Bucket::new`].
    pub(super) fn invalidate(&mut self, scope: Scope<'_>, mode: Mode, now: Timestamp) -> Result<(), BackendError> {
        let tick = self.advance(now).tick;
        self.last = tick;
        match (scope, mode) {
            (Scope::All, Mode::Hard) => self.born = random()?,
            (Scope::All, Mode::Soft) => self.all_soft = tick,
            (Scope::Keys(keys), _) => {
                for key in keys {
                    raise(&mut self.keys, key, self.floor, mode, tick);
                }
                shrink(&mut self.keys, &mut self.floor);
            }
            (Scope::Tags(tags), _) => {
                for tag in tags {
                    raise(&mut self.tags, tag, self.floor, mode, tick);
                }
                shrink(&mut self.tags, &mut self.floor);
            }
        }
        Ok(())
    }

    /// Whether an answer that was asked for on this ticket may be stored.
    pub(super) fn judge_fill(&self, ticket: Ticket, key: &PrimaryKey, tags: &[TagDigest]) -> Fill {
        if !self.issued(ticket) {
            return Fill::ClockLost;
        }
        let cells = tags.iter().map(|tag| self.tags.get(tag)).chain([self.keys.get(key)]);
        let mut fill = Fill::Good;
        for cell in cells {
            match cell {
                Some(cell) if ticket.tick < cell.hard => return Fill::Invalidated,
                None if ticket.tick < self.floor.hard => fill = Fill::Unsure,
                _ => {}
            }
        }
        fill
    }

    /// Whether an entry may be handed out.
    pub(super) fn judge(&self, entry: &Entry, key: &PrimaryKey) -> Verdict {
        if self.judge_fill(entry.ticket(), key, entry.tags()) != Fill::Good {
            return Verdict::Invalid;
        }
        let tick = entry.ticket().tick;
        let cells = entry.tags().iter().map(|tag| self.tags.get(tag)).chain([self.keys.get(key)]);
        let softs = cells.map(|cell| cell.unwrap_or(&self.floor).soft).chain([self.all_soft]);
        match softs.filter(|soft| tick < *soft).min() {
            None => Verdict::Valid,
            Some(since) => Verdict::Stale(Timestamp::from_micros(since)),
        }
    }

    /// Whether this clock, in this life, has issued the ticket.
    pub(super) fn issued(&self, ticket: Ticket) -> bool {
        ticket.born == self.born && ticket.tick <= self.tick
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        for number in [self.tick, self.born, self.floor.hard, self.floor.soft, self.all_soft, self.last] {
            writer.u64(number);
        }
        writer.u64(self.keys.len() as u64);
        for (key, cell) in &self.keys {
            writer.array(key.as_bytes());
            writer.u64(cell.hard);
            writer.u64(cell.soft);
        }
        writer.u64(self.tags.len() as u64);
        for (tag, cell) in &self.tags {
            writer.array(tag.as_bytes());
            writer.u64(cell.hard);
            writer.u64(cell.soft);
        }
        writer.finish()
    }

    /// `None` for what is none: the bucket begins anew, and with it everything in it.
    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value)?;
        let reader = &mut reader;
        let (tick, born) = (reader.u64()?, reader.u64()?);
        let floor = Cell { hard: reader.u64()?, soft: reader.u64()? };
        let (all_soft, last) = (reader.u64()?, reader.u64()?);
        let keys = reader.many(|reader| Some((PrimaryKey::from_bytes(reader.array()?), cell(reader)?)))?;
        let tags = reader.many(|reader| Some((TagDigest::from_bytes(reader.array()?), cell(reader)?)))?;
        let (keys, tags) = (keys.into_iter().collect(), tags.into_iter().collect());
        (tick < LIMIT).then_some(Self { tick, born, floor, all_soft, last, keys, tags })
    }
}

fn cell(reader: &mut Reader<'_>) -> Option<Cell> {
    Some(Cell { hard: reader.u64()?, soft: reader.u64()? })
}

fn raise<K: Copy + Ord>(cells: &mut BTreeMap<K, Cell>, name: &K, floor: Cell, mode: Mode, tick: Tick) {
    let cell = cells.entry(*name).or_insert(floor);
    match mode {
        Mode::Hard => cell.hard = tick,
        Mode::Soft => cell.soft = tick,
    }
}

/// Forgets a quarter of the cells where there are too many, those invalidated longest ago.
fn shrink<K: Copy + Ord>(cells: &mut BTreeMap<K, Cell>, floor: &mut Cell) {
    if cells.len() <= MAX_CELLS {
        return;
    }
    let mut oldest: Vec<_> = cells.iter().map(|(name, cell)| (cell.hard.max(cell.soft), *name)).collect();
    oldest.sort_unstable();
    for (_, name) in oldest.into_iter().take(cells.len() - MAX_CELLS * 3 / 4) {
        if let Some(cell) = cells.remove(&name) {
            floor.hard = floor.hard.max(cell.hard);
            floor.soft = floor.soft.max(cell.soft);
        }
    }
}

/// A birth: chance alone keeps them apart, no clock.
fn random() -> Result<u64, BackendError> {
    let failed = |error| BackendError::with_source(ErrorKind::Unavailable, "there are no random bytes", error);
    getrandom::u64().map(|random| random % (LIMIT - 1) + 1).map_err(failed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: PrimaryKey = PrimaryKey::from_bytes([1; 16]);

    fn now(n: u64) -> Timestamp {
        Timestamp::from_micros(n)
    }

    fn tag(n: u64) -> TagDigest {
        TagDigest::from_bytes(n.to_be_bytes())
    }

    #[test]
    fn an_entry_is_judged_by_its_key_its_tags_and_the_life_of_the_clock() {
        let mut bucket = Bucket::new(now(1000)).unwrap();
        let entry = Entry::builder(bucket.ticket()).tags([tag(1)]).build();
        assert_eq!(bucket.judge(&entry, &KEY), Verdict::Valid);
        bucket.invalidate(Scope::Tags(&[tag(2)]), Mode::Hard, now(1)).unwrap();
        assert_eq!(bucket.judge(&entry, &KEY), Verdict::Valid);
        bucket.invalidate(Scope::Tags(&[tag(1)]), Mode::Soft, now(2000)).unwrap();
        assert_eq!(bucket.judge(&entry, &KEY), Verdict::Stale(now(2000)));
        bucket.invalidate(Scope::Keys(&[KEY]), Mode::Hard, now(1)).unwrap();
        assert_eq!(bucket.judge(&entry, &KEY), Verdict::Invalid);
        let entry = Entry::builder(bucket.ticket()).tags([tag(1)]).build();
        assert_eq!(bucket.judge(&entry, &KEY), Verdict::Valid, "what was asked for afterwards");
        bucket.invalidate(Scope::All, Mode::Hard, now(1)).unwrap();
        assert_eq!(bucket.judge(&entry, &KEY), Verdict::Invalid);
        assert_eq!(bucket.judge_fill(entry.ticket(), &KEY, &[]), Fill::ClockLost);
    }

    #[test]
    fn the_clock_moves_on_when_time_stands_still_or_goes_back() {
        let mut bucket = Bucket::new(now(1000)).unwrap();
        let before = bucket.ticket().tick;
        assert!(bucket.advance(now(1)).tick > before);
        let tick = bucket.ticket().tick;
        assert!(bucket.pass(tick) && !bucket.pass(tick));
    }

    #[test]
    fn cells_are_bounded_and_what_is_forgotten_stays_invalidated() {
        let mut bucket = Bucket::new(now(1)).unwrap();
        let old = bucket.ticket();
        for n in 0..10_000 {
            bucket.invalidate(Scope::Tags(&[tag(n)]), Mode::Hard, now(1)).unwrap();
        }
        assert!(bucket.tags.len() <= MAX_CELLS && bucket.encode().len() < 32 << 10);
        for n in 0..10_000 {
            assert_ne!(bucket.judge_fill(old, &KEY, &[tag(n)]), Fill::Good, "{n}");
        }
        assert_eq!(bucket.judge_fill(bucket.ticket(), &KEY, &[tag(1)]), Fill::Good);
        // All at once, too.
        let many: Vec<_> = (0..5000).map(tag).collect();
        let before = bucket.ticket();
        bucket.invalidate(Scope::Tags(&many), Mode::Hard, now(1)).unwrap();
        assert!(bucket.tags.len() <= MAX_CELLS);
        assert!(many.iter().all(|tag| bucket.judge_fill(before, &KEY, &[*tag]) != Fill::Good));
    }

    proptest! {
        #[test]
        fn a_bucket_is_read_as_it_was_written(names in proptest::collection::vec((any::<bool>(), any::<u64>()), 0..50)) {
            let mut bucket = Bucket::new(now(7)).unwrap();
            for (hard, name) in names {
                let mode = if hard { Mode::Hard } else { Mode::Soft };
                bucket.invalidate(Scope::Tags(&[tag(name)]), mode, now(7)).unwrap();
                let key = PrimaryKey::from_bytes(u128::from(name).to_be_bytes());
                bucket.invalidate(Scope::Keys(&[key]), mode, now(7)).unwrap();
            }
            prop_assert_eq!(Bucket::decode(&bucket.encode()), Some(bucket));
        }
    }
}
