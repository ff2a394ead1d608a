//! Look-up.

use std::sync::{Arc, atomic::Ordering};

use super::{
    RedisBackend,
    cells::{Verdict, judge},
    looks::{Look, Seen},
    names,
    node::Node,
};
use crate::backend::{BackendError, Found, Lookup, PrimaryKey, Tick, Variant, VaryOf, VarySpec};

impl RedisBackend {
    pub(super) async fn find(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> Result<Lookup, BackendError> {
        if self.client.replicas().is_some()
            && let Some(hit) = Box::pin(self.find_nearby(key, vary)).await
        {
            return Ok(hit);
        }
        self.find_at(None, key, vary).await
    }

    /// A fresh hit at a replica that has heard of all invalidations of this process. Whatever else a replica says is
    /// asked of the master, which knows better: so a replica that is behind costs no fills.
    async fn find_nearby(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> Option<Lookup> {
        let bucket = names::bucket(self.client.keys(), key);
        let replica = self.client.nearest_replica(bucket)?;
        // Read first: what this process invalidates from now on was not done when the look-up began.
        let least = self.invalidated[bucket.index()].load(Ordering::SeqCst);
        let hit = self.find_at(Some(&replica), key, vary).await.ok()?;
        let has_heard = hit.ticket.is_some_and(|ticket| ticket.tick >= least);
        let is_fresh = hit
            .found
            .as_ref()
            .is_some_and(|found| found.stale_since.is_none() && self.client.now() < found.entry.fresh_until());
        (has_heard && is_fresh).then_some(hit)
    }

    /// At this replica, or at the master.
    async fn find_at(
        &self,
        replica: Option<&Arc<Node>>,
        key: &PrimaryKey,
        vary: &VaryOf<'_>,
    ) -> Result<Lookup, BackendError> {
        // First everything, for what is known of the key.
        let mut spec = self.hints.vary(key);
        let mut look = self.look_for(key, vary(&spec));
        let mut seen = self.looks.look(replica, &look).await?;

        // Once more if it varies otherwise than was thought: the other variant.
        if let Some(named) = seen.vary.clone().filter(|named| *named != spec) {
            self.hints.learn_vary(key, &named);
            let other = vary(&named);
            spec = named;
            if other != look.variant {
                look = self.look_for(key, other);
                seen = self.looks.look(replica, &look).await?;
            }
        }

        // And again if it has tags that were not read yet.
        if let Some(entry) = seen.entry.clone().filter(|entry| *entry.tags() != *look.tags) {
            let missing = seen.tags.missing(entry.tags());
            if !missing.is_empty() {
                self.looks.look_at_tags(replica, key, Arc::make_mut(&mut seen), &missing).await?;
            }
            self.hints.learn_tags(key, look.variant, entry.tags());
        }

        Ok(Lookup {
            ticket: seen.clock.map(|clock| clock.ticket()),
            variant: look.variant,
            found: self.usable(&seen, |other| *other == spec || vary(other) == look.variant),
            since: seen.since,
            // Without a clock there is no fill that may be joined.
            floor: seen.clock.map_or(Tick::MAX, |clock| clock.floor()),
        })
    }

    fn look_for(&self, key: &PrimaryKey, variant: Variant) -> Look {
        Look { key: *key, variant, tags: self.hints.tags(key, variant).unwrap_or_default() }
    }

    fn usable(&self, seen: &Seen, selects: impl Fn(&VarySpec) -> bool) -> Option<Found> {
        let (clock, entry) = (seen.clock.as_ref()?, seen.entry.as_ref()?);
        let stale_since = match judge(entry, clock, seen.cell, &seen.tags) {
            Verdict::Invalid => return None,
            Verdict::Valid => None,
            Verdict::Stale(since) => Some(since),
        };
        // The primary cell only points to the variant: what the entry says of itself decides.
        if !selects(entry.vary()) || entry.keep_until() <= self.client.now() {
            return None;
        }
        Some(Found { entry: Arc::clone(entry), stale_since })
    }
}
