//! The contract [`Responses`] in memory.

use std::sync::Arc;

use super::{
    MemoryBackend, Pages,
    cells::Known,
    lock,
    store::{Record, Stored, weight},
};
use crate::{
    Timestamp,
    backend::{
        BackendError, Commit, Committed, Discarded, Entry, ErrorKind, Found, InvalidateError, Lease, LeaseKey,
        LeaseKind, Lookup, Mode, PrimaryKey, Responses, Scope, Tick, Ticket, Variant, VaryOf,
    },
    metrics,
};

impl Responses for MemoryBackend {
    async fn lookup(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> Result<Lookup, BackendError> {
        Ok(self.0.pages.lookup(key, vary, self.0.clock.now()))
    }

    fn lookup_now(&self, key: &PrimaryKey, vary: &VaryOf<'_>, now: Timestamp) -> Option<Lookup> {
        Some(self.0.pages.lookup(key, vary, now))
    }

    async fn ticket(&self, _: &PrimaryKey) -> Result<Ticket, BackendError> {
        Ok(self.0.pages.clock.ticket())
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<Committed, BackendError> {
        let committed = self.0.pages.commit(&commit, self.0.clock.now());
        metrics::gauge(&metrics::MEMORY_BYTES, ["responses".into()], || self.bytes() as f64);
        committed
    }

    async fn discard(
        &self,
        key: &PrimaryKey,
        variant: Variant,
        ticket: Ticket,
        lease: Option<&Lease>,
    ) -> Result<Discarded, BackendError> {
        Ok(self.0.pages.discard(key, variant, ticket, lease))
    }

    async fn invalidate(&self, scope: Scope<'_>, mode: Mode) -> Result<(), InvalidateError> {
        self.0.pages.invalidate(scope, mode, self.0.clock.now());
        Ok(())
    }
}

impl Pages {
    fn lookup(&self, key: &PrimaryKey, vary: &VaryOf<'_>, now: Timestamp) -> Lookup {
        let ticket = self.clock.ticket();
        let floor = self.clock.invalidated();
        let mut lookup = Lookup { ticket: Some(ticket), variant: Variant(None), found: None, since: 0, floor };
        let Some(record) = self.store.get(key) else {
            lookup.floor = floor.max(self.keys.ticks(key).last());
            return lookup;
        };
        lookup.floor = floor.max(record.invalidated);
        lookup.variant = vary(record.spec());
        let Some(stored) = record.find(lookup.variant) else { return lookup };
        let entry = &stored.entry;
        if entry.ticket().born == ticket.born {
            lookup.since = entry.ticket().tick;
        }
        // The record only points: what the entry itself varies by decides.
        let selects = entry.vary() == record.spec() || vary(entry.vary()) == lookup.variant;
        if selects
            && now < entry.keep_until()
            && let Some(stale) = stored.valid(&record, &self.clock)
        {
            let stale_since = (stale > 0).then_some(Timestamp::from_micros(stale));
            lookup.found = Some(Found { entry: Arc::clone(entry), stale_since });
        }
        lookup
    }

    /// Lookups go on meanwhile; commits, discards and leases of the same key wait.
    fn commit(&self, commit: &Commit<'_>, now: Timestamp) -> Result<Committed, BackendError> {
        let mut leases = lock(self.shard(&commit.key));
        let outcome = self.store(commit, now);
        let ended = commit.lease.filter(|lease| leases.end(lease));
        drop(leases);
        if let Some(lease) = ended {
            self.waits.wake(&lease.key);
        }
        if matches!(outcome, Ok(Committed::Stored | Committed::Refreshed)) {
            let fill = LeaseKey { key: commit.key, variant: commit.variant, kind: LeaseKind::Fill };
            if ended.is_none_or(|lease| lease.key != fill) {
                self.waits.wake(&fill);
            }
        }
        outcome
    }

    /// Decides and stores, under the lock of the key.
    ///
    /// An invalidation may run meanwhile. What it raises before it is read here refuses the commit; what it raises
    /// afterwards makes the entry invalid for every look-up, which reads the same cells.
    fn store(&self, commit: &Commit<'_>, now: Timestamp) -> Result<Committed, BackendError> {
        let Commit { key, variant, ref entry, refresh, .. } = *commit;
        if weight(entry) > self.max_entry_bytes {
            return Err(BackendError::new(
                ErrorKind::TooLarge,
                format!("an entry takes at most {} bytes, this one {}", self.max_entry_bytes, weight(entry)),
            ));
        }
        if entry.tags().len() > Entry::MAX_TAGS {
            return Err(BackendError::new(ErrorKind::TooLarge, "an entry has at most 128 tags"));
        }
        let ticket = entry.ticket();
        let current = self.clock.ticket();
        if ticket.born != current.born || ticket.tick > current.tick {
            return Ok(Committed::ClockLost);
        }

        let record = self.store.peek(&key);
        let there = record.as_ref().and_then(|record| record.find(variant));
        let there = there.filter(|stored| stored.is_there(&self.clock, now)).map(|stored| stored.entry.ticket().tick);
        if there.is_some_and(|tick| tick >= ticket.tick) {
            return Ok(Committed::Superseded);
        }
        if let Some(base) = refresh
            && there != Some(base.ticket().tick)
        {
            return Ok(Committed::Gone);
        }

        let mut verdict = None;
        let mut judge = |hard, exact| {
            if ticket.tick < hard {
                verdict = if exact { Some(Committed::Invalidated) } else { verdict.or(Some(Committed::Unsure)) };
            }
        };
        let of_key = self.keys.ticks(&key);
        judge(of_key.hard, of_key.exact);
        let of_tag = |tag| {
            let Known { cell, exact } = self.tags.known(tag, current.tick);
            judge(cell.hard(), exact);
            cell
        };
        let tags = entry.tags().iter().map(of_tag).collect();
        if let Some(verdict) = verdict {
            // From now on it is known.
            self.keys.known(&key, current.tick);
            return Ok(verdict);
        }

        let mut variants = record.map_or_else(Vec::new, |record| record.keep(|stored| stored.variant != variant));
        variants.push(Stored { variant, entry: Arc::clone(entry), tags });
        let mut record = Record::of(variants, of_key.soft, of_key.last()).expect("one was pushed");
        record.displace(Self::MAX_VARIANTS, self.max_record_bytes);
        self.store.insert(key, Arc::new(record));
        self.clock.step();
        Ok(if refresh.is_some() { Committed::Refreshed } else { Committed::Stored })
    }

    fn discard(&self, key: &PrimaryKey, variant: Variant, ticket: Ticket, lease: Option<&Lease>) -> Discarded {
        let mut leases = lock(self.shard(key));
        let outcome = self.remove(key, variant, ticket);
        let ended = lease.filter(|lease| leases.end(lease));
        drop(leases);
        if let Some(lease) = ended {
            self.waits.wake(&lease.key);
        }
        outcome
    }

    fn remove(&self, key: &PrimaryKey, variant: Variant, ticket: Ticket) -> Discarded {
        let current = self.clock.ticket();
        if ticket.born != current.born || ticket.tick > current.tick {
            return Discarded::ClockLost;
        }
        let Some(record) = self.store.peek(key) else { return Discarded::Dropped };
        let Some(stored) = record.find(variant) else { return Discarded::Dropped };
        if stored.entry.ticket().born == current.born && stored.entry.ticket().tick > ticket.tick {
            return Discarded::Superseded;
        }
        let rest = record.keep(|stored| stored.variant != variant);
        self.replace(key, Record::of(rest, record.soft, record.invalidated));
        Discarded::Dropped
    }

    /// The tick is taken first: a ticket that is read from now on is above it, and rightly so, because what it fetches
    /// is asked for after the invalidation began.
    fn invalidate(&self, scope: Scope<'_>, mode: Mode, now: Timestamp) {
        let tick = self.clock.advance(now);
        match (scope, mode) {
            (Scope::Keys(keys), _) => {
                for key in keys {
                    self.invalidate_key(key, mode, tick);
                }
            }
            (Scope::Tags(tags), _) => {
                for tag in tags {
                    self.tags.raise(tag, mode, tick);
                }
                self.clock.note_invalidation(tick);
            }
            (Scope::All, Mode::Hard) => self.clock.born_again(tick),
            (Scope::All, Mode::Soft) => {
                self.clock.stale_all(tick);
                self.clock.note_invalidation(tick);
            }
        }
    }

    /// Marks the key for what is under way, and takes out what is stored, under the lock of the key: no commit comes
    /// between the two, so look-ups need not ask for the key's cell.
    fn invalidate_key(&self, key: &PrimaryKey, mode: Mode, tick: Tick) {
        let _writes = lock(self.shard(key));
        self.keys.raise(key, mode, tick);
        let Some(record) = self.store.peek(key) else { return };
        let is_younger = |stored: &Stored| stored.entry.ticket().tick >= tick;
        // A later invalidation may have come first.
        let (soft, last) = (record.soft, record.invalidated.max(tick));
        let replaced = match mode {
            Mode::Hard => Record::of(record.keep(is_younger), soft, last),
            Mode::Soft => Record::of(record.keep(|_| true), soft.max(tick), last),
        };
        self.replace(key, replaced);
    }

    fn replace(&self, key: &PrimaryKey, record: Option<Record>) {
        match record {
            Some(record) => self.store.insert(*key, Arc::new(record)),
            None => drop(self.store.remove(key)),
        }
    }
}
