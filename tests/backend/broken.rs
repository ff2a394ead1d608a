//! The kit can see: a store that breaks one rule fails the case for that rule, and the same store without the fault
//! passes it.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt;
use tower_gatehouse::{
    Backend, Timestamp,
    backend::{
        Acquire, Acquired, Ask, BackendError, Change, Commit, Committed, Entry, EntryBuilder, Found, InvalidateError,
        Lease, LeaseKey, Levels, Lookup, Mode, Owner, PrimaryKey, Scope, Settle, Take, Taken, Ticket, Variant, VaryOf,
        WaitMap, Waiter,
        conformance::{self, Facts, Harness, Loss},
    },
};

use super::memory::Memory;
use crate::support::altered::{Alter, Altered};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The ticket is read by the commit instead of before the fetch.
    LateTicket,
    /// An older answer replaces a younger one.
    OldReplacesYoung,
    /// `Ok` is said before it is done.
    LateInvalidation,
    /// Tags are not kept.
    NoTags,
    /// Soft invalidations do nothing.
    NoSoft,
    /// A new head goes on whatever body is there.
    AnyBase,
    /// One variant is handed out for all.
    AnyVariant,
    /// What was lost comes back from a snapshot, and counts as new.
    Snapshot,
    /// The holder's ticket is told although its answer is from before an invalidation.
    OldTicketTold,
    /// Everybody gets the lease.
    ManyLeaders,
    /// A commit does not end the lease.
    LeaseStays,
    /// Nobody is woken.
    NoWake,
    /// Entries live forever.
    NoExpiry,
    /// What was seen once is at hand for ever.
    OldAtHand,
    /// Of several keys, those that have something left are taken from although another one denies.
    TakesInPart,
    /// What is left is read first, and taken later.
    ReadsThenTakes,
    /// What has refilled meanwhile is given back once more.
    GivesBackTwice,
}

/// What was committed.
type Kept = Arc<Mutex<Vec<(PrimaryKey, Variant, Arc<Entry>)>>>;

#[derive(Debug)]
struct Broken {
    inner: Backend,
    fault: Fault,
    kept: Kept,
    told: Mutex<Vec<(LeaseKey, Ticket)>>,
}

impl Broken {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }
}

fn copy(entry: &Entry, ticket: Ticket) -> EntryBuilder {
    Entry::builder(ticket)
        .fresh_until(entry.fresh_until())
        .keep_until(entry.keep_until())
        .vary(entry.vary().clone())
        .tags(entry.tags().iter().copied())
        .head(entry.head().clone())
        .body(entry.body().clone())
}

impl Alter for Broken {
    fn inner(&self) -> &Backend {
        &self.inner
    }

    async fn lookup(&self, key: &PrimaryKey, vary: &VaryOf<'_>) -> Result<Lookup, BackendError> {
        let first = Mutex::new(None);
        let any = |spec: &_| *first.lock().unwrap().get_or_insert_with(|| vary(spec));
        let mut seen = self.inner.lookup(key, if self.is(Fault::AnyVariant) { &any } else { vary }).await?;
        if self.is(Fault::AnyVariant) && seen.found.is_none() {
            let kept = self.kept.lock().unwrap();
            let one = kept.iter().rev().find(|(page, variant, _)| page == key && variant.0.is_some());
            seen.found =
                one.map(|(_, _, entry)| Found { entry: Arc::clone(entry), stale_since: Some(self.inner.now()) });
        }
        Ok(seen)
    }

    fn lookup_now(&self, key: &PrimaryKey, vary: &VaryOf<'_>, now: Timestamp) -> Option<Lookup> {
        let mut seen = self.inner.lookup_now(key, vary, now)?;
        let kept = self.kept.lock().unwrap();
        let one = kept.iter().rev().find(|(page, _, _)| page == key).filter(|_| self.is(Fault::OldAtHand))?;
        seen.found = Some(Found { entry: Arc::clone(&one.2), stale_since: None });
        Some(seen)
    }

    async fn commit(&self, mut commit: Commit<'_>) -> Result<Committed, BackendError> {
        match self.fault {
            Fault::LateTicket => {
                let ticket = self.inner.ticket(&commit.key).await?;
                commit.entry = copy(&commit.entry, ticket).build();
            }
            Fault::NoTags => commit.entry = copy(&commit.entry, commit.entry.ticket()).tags([]).build(),
            Fault::NoExpiry => {
                let end = Timestamp::from_micros(u64::MAX);
                commit.entry = copy(&commit.entry, commit.entry.ticket()).keep_until(end).build();
            }
            Fault::LeaseStays => commit.lease = None,
            Fault::AnyBase if commit.refresh.is_some() => {
                let vary = |_: &_| commit.variant;
                if let Some(found) = self.inner.lookup(&commit.key, &vary).await?.found {
                    let ticket = self.inner.ticket(&commit.key).await?;
                    commit.entry = copy(&commit.entry, ticket).body(found.entry.body().clone()).build();
                    commit.refresh = None;
                }
            }
            _ => {}
        }
        if matches!(self.fault, Fault::Snapshot | Fault::AnyVariant | Fault::OldAtHand) {
            self.kept.lock().unwrap().push((commit.key, commit.variant, Arc::clone(&commit.entry)));
        }
        let outcome = self.inner.commit(commit.clone()).await?;
        if outcome == Committed::Superseded && self.is(Fault::OldReplacesYoung) {
            let ticket = self.inner.ticket(&commit.key).await?;
            commit.entry = copy(&commit.entry, ticket).build();
            commit.refresh = None;
            return self.inner.commit(commit).await;
        }
        Ok(outcome)
    }

    async fn invalidate(&self, scope: Scope<'_>, mode: Mode) -> Result<(), InvalidateError> {
        if self.is(Fault::NoSoft) && mode == Mode::Soft {
            return Ok(());
        }
        if self.is(Fault::LateInvalidation) {
            let (keys, tags) = match scope {
                Scope::Keys(keys) => (Some(keys.to_vec()), None),
                Scope::Tags(tags) => (None, Some(tags.to_vec())),
                _ => (None, None),
            };
            let inner = self.inner.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let scope = match (&keys, &tags) {
                    (Some(keys), _) => Scope::Keys(keys),
                    (_, Some(tags)) => Scope::Tags(tags),
                    _ => Scope::All,
                };
                inner.invalidate(scope, mode).await
            });
            return Ok(());
        }
        self.inner.invalidate(scope, mode).await
    }

    async fn acquire(&self, acquire: Acquire<'_>) -> Result<Acquired, BackendError> {
        let answer = self.inner.acquire(acquire).await?;
        match answer {
            Acquired::Held { .. } if self.is(Fault::ManyLeaders) => {
                let ticket = self.inner.ticket(&acquire.key.key).await?;
                let owner = Owner::random();
                return Ok(Acquired::Granted(Lease { key: acquire.key, owner, ticket }));
            }
            Acquired::Granted(lease) => self.told.lock().unwrap().push((lease.key, lease.ticket)),
            Acquired::Held { left, ticket: None } if self.is(Fault::OldTicketTold) => {
                let told = self.told.lock().unwrap();
                let ticket = told.iter().rev().find(|(key, _)| *key == acquire.key).map(|(_, ticket)| *ticket);
                return Ok(Acquired::Held { left, ticket });
            }
            _ => {}
        }
        Ok(answer)
    }

    fn watch(&self, key: &LeaseKey) -> Waiter {
        if self.is(Fault::NoWake) {
            return WaitMap::default().watch(key);
        }
        self.inner.watch(key)
    }

    async fn take(&self, takes: &[Take<'_>]) -> Result<Taken, BackendError> {
        match self.fault {
            Fault::TakesInPart => {
                let mut all = Taken { admitted: true, at: self.inner.now(), levels: Levels::default() };
                for take in takes {
                    let one = self.inner.take(&[*take]).await?;
                    all.admitted &= one.admitted;
                    all.levels.extend(one.levels.iter().copied());
                }
                Ok(all)
            }
            Fault::ReadsThenTakes => {
                let [take] = takes else { return self.inner.take(takes).await };
                let asks: Vec<_> = take.asks.iter().map(|ask| Ask { cost: 0, ..*ask }).collect();
                let mut seen = self.inner.take(&[Take { asks: &asks, ..*take }]).await?;
                tokio::time::sleep(Duration::from_millis(1)).await;
                let left = seen.levels.iter().flatten().map(|level| level.remaining);
                seen.admitted = left.zip(take.asks).all(|(left, ask)| left >= ask.cost.into());
                if seen.admitted {
                    let change = |ask: &Ask| Change { limit: ask.limit, units: ask.cost.into() };
                    let changes: Vec<_> = take.asks.iter().map(change).collect();
                    self.inner.settle(Settle { key: take.key, taken: seen.at, changes: &changes }).await?;
                }
                Ok(seen)
            }
            _ => self.inner.take(takes).await,
        }
    }

    async fn settle(&self, mut settle: Settle<'_>) -> Result<(), BackendError> {
        if self.is(Fault::GivesBackTwice) {
            settle.taken = self.inner.now();
        }
        self.inner.settle(settle).await
    }
}

struct BrokenHarness {
    memory: Memory,
    fault: Fault,
    kept: Kept,
    backend: Backend,
}

impl BrokenHarness {
    fn new(fault: Fault) -> Self {
        let memory = Memory::new();
        let kept = Kept::default();
        let broken = Broken { inner: memory.backend(), fault, kept: Arc::clone(&kept), told: Mutex::default() };
        Self { memory, fault, kept, backend: Backend::custom(Altered(broken)) }
    }
}

impl Harness for BrokenHarness {
    fn backend(&self) -> Backend {
        self.backend.clone()
    }

    async fn pass(&self, time: Duration) {
        self.memory.pass(time).await;
    }

    async fn lose(&self, what: Loss) {
        self.memory.lose(what).await;
        if self.fault == Fault::Snapshot {
            let kept = self.kept.lock().unwrap().clone();
            let inner = self.memory.backend();
            for (key, variant, entry) in kept {
                let entry = copy(&entry, inner.ticket(&key).await.unwrap()).build();
                let _ = inner.commit(Commit { key, variant, entry, refresh: None, lease: None }).await;
            }
        }
    }

    fn facts(&self) -> Facts {
        Facts::default().effort(Duration::from_millis(if self.fault == Fault::None { 300 } else { 120_000 }))
    }
}

/// One test for each fault: the named cases fail with it, for the given reason, and pass without.
macro_rules! sees {
    ($($test:ident: $fault:ident { $($group:ident :: $case:ident $(says $reason:literal)?),+ $(,)? })*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $test() {
                $(
                    let sound = BrokenHarness::new(Fault::None);
                    conformance::$group::$case(&sound).await;
                    let broken = BrokenHarness::new(Fault::$fault);
                    let outcome = AssertUnwindSafe(conformance::$group::$case(&broken)).catch_unwind().await;
                    assert_failed(outcome, stringify!($case), &[$($reason)?]);
                )+
            }
        )*
    };
}

fn assert_failed(outcome: Result<(), Box<dyn Any + Send>>, case: &str, reasons: &[&str]) {
    let Err(told) = outcome else { panic!("{case} does not see it") };
    let told = told.downcast_ref::<String>().cloned().unwrap_or_default();
    for reason in reasons {
        assert!(told.contains(reason), "{case} failed for another reason: {told}");
    }
}

sees! {
    a_ticket_that_is_read_too_late_is_seen: LateTicket {
        model::nothing_stale_under_random_interleavings says "stale: ",
        invalidation::a_hard_invalidation_between_ticket_and_commit_keeps_the_answer_out,
        tickets::an_older_ticket_does_not_replace_a_younger_entry,
        atomicity::of_64_commits_on_one_ticket_one_is_stored,
    }
    an_old_answer_that_replaces_a_young_one_is_seen: OldReplacesYoung {
        model::nothing_stale_under_random_interleavings says "stale: ",
        tickets::an_older_ticket_does_not_replace_a_younger_entry,
        tickets::a_paused_leader_neither_replaces_nor_shuts_out_its_successor,
    }
    an_invalidation_that_is_not_done_yet_is_seen: LateInvalidation {
        model::nothing_stale_under_random_interleavings says "stale",
        invalidation::a_hard_invalidation_after_the_commit_removes_the_entry,
        invalidation::every_process_sees_an_invalidation_at_once,
    }
    forgotten_tags_are_seen: NoTags {
        model::nothing_stale_under_random_interleavings says "stale",
        invalidation::every_tag_of_an_entry_counts,
        responses::a_look_up_finds_what_was_committed_in_every_field,
    }
    soft_invalidations_without_effect_are_seen: NoSoft {
        model::nothing_stale_under_random_interleavings says "stale as fresh: ",
        invalidation::a_soft_invalidation_after_the_commit_makes_the_entry_stale,
        loss::soft_invalidations_are_not_forgotten_either,
    }
    a_head_on_another_body_is_seen: AnyBase {
        model::nothing_stale_under_random_interleavings,
        tickets::a_refresh_on_a_base_that_was_replaced_changes_nothing,
    }
    a_limit_that_is_taken_in_part_is_seen: TakesInPart {
        limits::nothing_is_taken_where_another_key_denies,
    }
    a_limit_that_is_read_before_it_is_taken_is_seen: ReadsThenTakes {
        limits::of_64_callers_exactly_the_limit_is_admitted,
    }
    a_limit_that_is_given_back_twice_is_seen: GivesBackTwice {
        limits::what_has_refilled_is_not_given_back,
    }
    a_wrong_variant_is_seen: AnyVariant {
        variants::the_specification_committed_last_selects,
        variants::the_seventeenth_displaces_the_one_committed_longest_ago,
        variants::an_entry_whose_own_specification_leads_elsewhere_is_not_handed_out,
    }
    entries_that_come_back_after_a_loss_are_seen: Snapshot {
        model::nothing_stale_under_random_interleavings_and_losses says "stale",
        loss::what_was_invalidated_stays_so_whatever_is_lost_afterwards says "stale after",
        loss::two_losses_in_a_row_do_no_harm says "stale after",
    }
    an_old_hand_over_is_seen: OldTicketTold {
        model::nothing_stale_under_random_interleavings says "by a hand-over",
        leases::the_holder_s_ticket_is_not_told_after_an_invalidation,
    }
    many_leaders_are_seen: ManyLeaders {
        leases::one_is_granted_and_the_others_are_told_who_holds_it,
        atomicity::of_64_callers_one_gets_the_lease,
    }
    a_lease_that_outlives_its_commit_is_seen: LeaseStays {
        leases::a_commit_ends_the_lease,
        leases::a_commit_that_was_refused_ends_the_lease_too,
    }
    entries_that_never_expire_are_seen: NoExpiry {
        responses::an_entry_is_not_handed_out_after_keep_until,
        responses::a_look_up_finds_what_was_committed_in_every_field,
    }
    an_old_entry_at_hand_is_seen: OldAtHand {
        model::nothing_stale_under_random_interleavings says "stale",
        responses::what_is_at_hand_is_what_a_look_up_finds,
    }
    a_missing_wake_is_seen: NoWake {
        leases::a_wake_between_watching_and_waiting_is_not_lost,
    }
}
