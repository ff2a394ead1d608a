//! The conformance kit: what every [`CacheBackend`](super::CacheBackend) must do, one case for each promise.
//!
//! Implement [`Harness`] for a store and let [`conformance_tests!`](crate::conformance_tests) make a test of each case
//! (the crate that does needs tokio with `macros` and `rt-multi-thread`). The built-in backends run the same kit.
//!
//! ```no_run
//! use std::time::Duration;
//! use tower_gatehouse::{
//!     Backend, TestClock,
//!     backend::{MemoryBackend, conformance::{Harness, Loss}},
//! };
//!
//! struct Memory {
//!     store: MemoryBackend,
//!     clock: TestClock,
//! }
//!
//! impl Harness for Memory {
//!     fn backend(&self) -> Backend {
//!         self.store.clone().into()
//!     }
//!     async fn pass(&self, time: Duration) {
//!         self.clock.advance(time);
//!     }
//!     async fn lose(&self, what: Loss) {
//!         self.store.lose(what);
//!     }
//! }
//!
//! tower_gatehouse::conformance_tests!(async {
//!     let clock = TestClock::new();
//!     Memory { store: MemoryBackend::builder().clock(&clock).build(), clock }
//! });
//! ```
#![allow(clippy::missing_panics_doc, reason = "a case fails by panicking")]

pub mod atomicity;
pub mod invalidation;
pub mod leases;
pub mod limits;
pub mod loss;
pub mod maps;
pub mod model;
mod prelude;
pub mod records;
pub mod responses;
pub mod tickets;
pub mod variants;

use std::{future::Future, time::Duration};

use super::Backend;

/// How the kit reaches a store: one harness is one empty namespace of its own.
pub trait Harness: Send + Sync + 'static {
    /// The store.
    fn backend(&self) -> Backend;

    /// The same store and namespace as another process would reach it: with a connection and a memory of its own.
    /// Where the store lives in one process, the store.
    fn peer(&self) -> Backend {
        self.backend()
    }

    /// Lets time pass on the store's clock: turns a test clock, or else sleeps a little longer than that.
    fn pass(&self, time: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(time + Duration::from_millis(5))
    }

    /// Loses a part of what the store keeps, for all keys of the namespace. A store that has no such part on its own
    /// loses what contains it.
    fn lose(&self, what: Loss) -> impl Future<Output = ()> + Send;

    /// What is particular about the store.
    fn facts(&self) -> Facts {
        Facts::default()
    }
}

/// What is particular about a store.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Facts {
    /// Whether the end of a lease wakes who waits for it in every process; `true` by default. Otherwise they poll.
    pub wakes: bool,
    /// By how much the time of two handles may differ; one second by default.
    pub clock_tolerance: Duration,
    /// An entry whose head and body have this many bytes is refused with
    /// [`ErrorKind::TooLarge`](super::ErrorKind::TooLarge); `None`, the default, where there is no limit worth a test.
    pub too_large: Option<usize>,
    /// For how long each randomized test runs; three seconds by default.
    pub effort: Duration,
}

impl Default for Facts {
    fn default() -> Self {
        Self { wakes: true, clock_tolerance: Duration::from_secs(1), too_large: None, effort: Duration::from_secs(3) }
    }
}

impl Facts {
    /// Who waits has to poll.
    #[must_use]
    pub fn without_wakes(mut self) -> Self {
        self.wakes = false;
        self
    }

    /// See [`Facts::clock_tolerance`].
    #[must_use]
    pub fn clock_tolerance(mut self, tolerance: Duration) -> Self {
        self.clock_tolerance = tolerance;
        self
    }

    /// See [`Facts::too_large`].
    #[must_use]
    pub fn too_large(mut self, bytes: usize) -> Self {
        self.too_large = Some(bytes);
        self
    }

    /// See [`Facts::effort`].
    #[must_use]
    pub fn effort(mut self, time: Duration) -> Self {
        self.effort = time;
        self
    }
}

/// What a store can lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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

impl Loss {
    /// Each of them.
    pub const ALL: [Self; 7] =
        [Self::Clock, Self::KeyCells, Self::TagCells, Self::Entries, Self::Leases, Self::HandOvers, Self::Everything];
}

/// Makes a `#[tokio::test]` of each case. Takes an expression that gives a future of a fresh
/// [`Harness`](crate::backend::conformance::Harness); it is evaluated for each test.
#[macro_export]
macro_rules! conformance_tests {
    ($harness:expr) => {
        $crate::__conformance_tests! { $harness;
            responses {
                an_empty_store_finds_nothing_and_gives_a_ticket
                a_look_up_finds_what_was_committed_in_every_field
                a_commit_is_visible_to_every_process
                bodies_of_any_bytes_and_of_none_come_back
                an_entry_is_not_handed_out_after_keep_until
                an_entry_is_handed_out_after_fresh_until
                what_is_at_hand_is_what_a_look_up_finds
                an_expired_entry_is_replaced
                keys_do_not_know_of_each_other
                too_many_tags_are_refused
                too_large_entries_are_refused_and_displace_nothing
                time_passes_on_the_store_s_clock
                the_store_answers_a_ping
            }
            variants {
                sixteen_variants_are_kept
                the_seventeenth_displaces_the_one_committed_longest_ago
                a_variant_that_is_committed_again_is_the_youngest
                the_specification_committed_last_selects
                an_entry_whose_own_specification_leads_elsewhere_is_not_handed_out
                a_process_that_remembers_an_older_specification_finds_the_variant
            }
            tickets {
                who_sees_an_entry_has_a_younger_ticket
                an_older_ticket_does_not_replace_a_younger_entry
                of_two_commits_on_one_ticket_the_first_stays
                a_paused_leader_neither_replaces_nor_shuts_out_its_successor
                a_ticket_of_another_clock_is_refused
                a_ticket_from_the_future_is_refused
                a_refresh_changes_the_head_and_keeps_the_body
                a_refresh_whose_head_has_grown_is_stored
                a_refresh_on_a_base_that_was_replaced_changes_nothing
                a_refresh_without_its_base_stores_nothing
                a_refresh_carries_its_new_tags
                a_discard_removes_what_is_as_old_as_its_ticket
                a_discard_leaves_a_younger_entry
                a_discard_of_nothing_is_done
                a_discard_on_a_ticket_of_a_lost_clock_leaves_what_came_later
            }
            invalidation {
                a_hard_invalidation_before_the_ticket_does_not_matter
                a_hard_invalidation_between_ticket_and_commit_keeps_the_answer_out
                a_hard_invalidation_after_the_commit_removes_the_entry
                a_soft_invalidation_before_the_ticket_does_not_matter
                a_soft_invalidation_between_ticket_and_commit_never_leaves_it_fresh
                a_soft_invalidation_after_the_commit_makes_the_entry_stale
                fills_under_a_lease_are_invalidated_too
                a_refresh_in_flight_is_invalidated_too
                all_variants_of_a_key_are_invalidated
                every_tag_of_an_entry_counts
                only_what_carries_the_tag_is_invalidated
                only_the_key_is_invalidated
                many_names_in_one_call
                unknown_names_and_empty_lists_are_fine
                repeating_is_harmless
                after_an_invalidation_the_next_fill_is_stored
                a_commit_that_was_unsure_makes_the_next_one_exact
                every_process_sees_an_invalidation_at_once
                a_process_that_remembers_older_tags_sees_the_new_ones
                a_fill_from_before_an_invalidation_may_not_be_joined_after_it
                since_lets_the_next_lease_be_granted
            }
            loss {
                what_was_invalidated_stays_so_whatever_is_lost_afterwards
                a_late_commit_stays_out_whatever_is_lost_in_between
                soft_invalidations_are_not_forgotten_either
                two_losses_in_a_row_do_no_harm
                the_store_recovers_from_every_loss
                a_refresh_after_a_loss_tears_nothing
                losing_leases_costs_work_only
            }
            leases {
                one_is_granted_and_the_others_are_told_who_holds_it
                a_lease_s_ticket_is_younger_than_every_ticket_before
                the_holder_s_ticket_is_not_told_after_an_invalidation
                a_younger_entry_answers_filled
                a_commit_ends_the_lease
                a_commit_that_was_refused_ends_the_lease_too
                a_commit_without_the_lease_leaves_it_held
                a_discard_ends_the_lease
                uncacheable_lets_everybody_fetch_for_a_while
                failed_lets_nobody_fetch_for_a_while
                a_released_lease_is_free
                a_lease_ends_by_itself
                a_renewed_lease_lasts
                who_lost_a_lease_can_neither_renew_nor_release_it
                kinds_keys_and_variants_do_not_know_of_each_other
                who_waits_is_woken_by_every_end
                a_wake_between_watching_and_waiting_is_not_lost
                a_wait_without_a_wake_ends_in_time
                what_was_handed_over_is_collected_under_its_ticket_only
                what_was_handed_over_is_not_found_by_look_ups
                what_was_handed_over_is_kept_for_seconds_only
                who_lost_a_lease_hands_nothing_over
            }
            limits {
                a_burst_is_admitted_at_once
                what_is_taken_now_counts_once
                all_processes_count_together
                of_64_callers_exactly_the_limit_is_admitted
                nothing_is_taken_where_one_counter_denies
                nothing_is_taken_where_another_key_denies
                a_rate_refills
                a_window_begins_anew
                what_costs_more_than_there_ever_is_is_never_admitted
                a_cost_of_nothing_tells_the_level
                a_cost_is_taken_whole_or_not_at_all
                what_is_given_back_can_be_taken_again
                what_has_refilled_is_not_given_back
                a_charge_counts_beyond_what_is_there
                a_denial_tells_the_wait_for_what_was_asked
                keys_do_not_know_of_each_other
                other_counters_under_a_key_begin_anew
                a_limit_that_was_lowered_heals
                a_store_that_forgets_admits
            }
            atomicity {
                of_64_callers_one_gets_the_lease
                of_64_commits_on_one_ticket_one_is_stored
                of_64_commits_the_youngest_ticket_stays
                of_64_refreshes_on_one_base_all_keep_head_and_body_together
                invalidations_among_64_commits_are_never_missed
                of_64_releases_by_one_holder_one_succeeds
            }
            records {
                a_record_is_loaded_by_every_process_as_it_was_created
                nothing_is_created_over_a_record
                a_commit_changes_the_fields_that_it_names
                what_is_gone_does_not_come_back
                a_strict_commit_needs_the_version
                of_200_commits_to_different_fields_all_survive
                of_64_strict_commits_on_one_version_one_succeeds
                no_commit_survives_a_destroy
                an_unused_record_ends_after_its_idle_time
                no_record_lives_beyond_its_deadline
                what_is_too_large_is_refused_as_a_whole
                a_cycle_moves_the_record_and_the_old_key_is_dead
                commits_that_race_a_cycle_are_moved_or_refused
                the_records_of_a_user_are_listed
                a_user_has_no_more_sessions_than_allowed
                all_records_of_a_user_end_together
                a_login_that_began_before_a_revocation_fails
                no_login_survives_a_revocation_that_it_races
            }
            maps {
                a_map_holds_what_was_put
                maps_of_other_owners_do_not_know_of_each_other
                integers_are_added_within_their_range
                an_old_version_is_refused_always
                of_64_additions_none_is_lost
                of_four_takers_one_gets_the_map
                a_repetition_gets_the_first_result
                what_is_too_large_is_refused_as_a_whole
                a_map_ends_by_itself
                a_map_is_put_aside_to_be_moved
            }
            model {
                nothing_stale_under_random_interleavings
                nothing_stale_under_random_interleavings_and_losses
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($harness:expr; $($group:ident { $($case:ident)* })*) => {
        $(mod $group {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $case() {
                    let harness = $harness.await;
                    $crate::backend::conformance::$group::$case(&harness).await;
                }
            )*
        })*
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_case_is_in_the_list() {
        let list = include_str!("mod.rs");
        let groups = [
            include_str!("atomicity.rs"),
            include_str!("invalidation.rs"),
            include_str!("leases.rs"),
            include_str!("limits.rs"),
            include_str!("loss.rs"),
            include_str!("maps.rs"),
            include_str!("model.rs"),
            include_str!("records.rs"),
            include_str!("responses.rs"),
            include_str!("tickets.rs"),
            include_str!("variants.rs"),
        ];
        let cases: Vec<_> = groups
            .iter()
            .flat_map(|source| source.split("\npub async fn ").skip(1))
            .map(|rest| rest.split(['<', '(']).next().unwrap())
            .collect();
        assert!(cases.len() > 80, "only {} cases found", cases.len());
        for case in cases {
            assert!(list.lines().any(|line| line.trim() == case), "{case} is not run by conformance_tests!");
        }
    }
}
