//! Each fault, and the test that shows what it does and does not do.
//!
//! **Load** of the tests of this binary (`load.rs`, `kept.rs`): three processes of the gateway example on real servers,
//! nine readers of eight pages, three writers who have them invalidated, a customer who adds to a cart, a visitor who logs
//! in, is shown to all gateways, logs out, and is shown again, and a session that lasts from the beginning to the end. In
//! the middle of it the **fault** happens, and these are counted and printed, for each row:
//!
//! - **errors**: answers that the origin would not have given, or none: zero in all rows;
//! - **stale** answers, older than an invalidation that had returned before they were asked for, and sessions that live on
//!   after their logout: zero in all rows (rows of failovers with `--wait-for-replicas`);
//! - **lost**: additions to the cart that were acknowledged and are not there, and sessions: zero, but for the rows that
//!   say otherwise:
//!
//! | rows | lost |
//! |---|---|
//! | killed and restarted (1, 6), flushed (10) | all that was acknowledged before: these servers save nothing; nothing that was acknowledged afterwards |
//! | a master lost or replaced under Sentinel (1, 2, 5), a node of a Cluster killed (7) | nothing that the replicas had when the fault began, nothing afterwards; what was acknowledged in between may be |
//! | all others, with the failover that a Cluster agrees on | nothing |
//!
//! Tests of other binaries stand here for what they show besides. `backend::conformance` runs on memory, on the
//! compare-and-set adapter over memory and over Redis, and on Redis: one server, Sentinel, Cluster, and with look-ups at
//! replicas.
//!
//! | # | fault | test, with what it shows besides |
//! |---|---|---|
//! | 1 | Redis killed | `standalone::redis_is_killed_and_restarted` (slowest answer bounded), `failover::the_master_is_killed`, `cluster::a_node_is_killed`; breaker: `backend::redis_faults` |
//! | 2 | Redis frozen | `standalone::redis_is_frozen`, `failover::the_master_is_frozen`; one timeout, then next to nothing, no queue: `backend::redis_faults` |
//! | 3 | slow, or takes everything and answers nothing | `standalone::redis_is_slow_or_takes_everything_and_answers_nothing` |
//! | 4 | memory full | `standalone::redis_is_full`; hits go on, nothing is stored: `backend::redis_faults::a_full_server_…` |
//! | 5 | READONLY after a failover | `standalone::redis_becomes_read_only`, `failover::a_failover_is_asked_for`, `cluster::a_failover_is_agreed` |
//! | 6 | scripts flushed, restart | `standalone::scripts_are_flushed`, `standalone::redis_is_killed_and_restarted` |
//! | 7 | Cluster: slot migrating, moved, node lost | `cluster::slots_are_moved`, `cluster::a_node_is_killed`, `backend::redis_cluster_faults` |
//! | 8 | values damaged, cut, of another type | `standalone::values_are_damaged`; each bit: `blob` (unit), limits: `rate_limit::whatever_is_found_at_a_key_…` |
//! | 9 | bookkeeping evicted | `standalone::bookkeeping_is_evicted`, `stress`, the conformance kit (`loss`) |
//! | 10 | FLUSHALL in the middle of a fill | `standalone::everything_is_flushed` |
//! | 11 | clocks | `clocks::the_clocks_of_gateways_are_an_hour_off`, `clocks::the_clock_of_redis_is_set_back_by_an_hour` (limits heal); `lua` (chaos with a clock that jumps), `server_clock` and `meter` (unit) |
//! | 12 | leader killed | `processes::a_gateway_that_fetches_for_the_fleet_is_killed` (one more request to the origin), `herd::a_leader_that_is_killed_is_replaced_within_one_lease` |
//! | 13 | leader paused beyond its lease | `processes::a_gateway_that_fetches_for_the_fleet_is_frozen_beyond_its_lease`, `herd::a_leader_that_was_frozen_beyond_its_lease_…` |
//! | 14 | leader's client leaves; follower leaves | `herd::the_leaders_client_leaves_and_nobody_fetches_again`, `herd::a_follower_that_leaves_takes_nobody_with_it` |
//! | 15 | wake-up lost | `standalone::connections_are_cut`, `backend::redis_faults::wake_ups_are_heard_again_…` |
//! | 16 | 1,000 followers of an uncacheable answer | `herd::a_thousand_requests_for_what_cannot_be_shared_go_on_in_parallel` |
//! | 17 | leader gets 503 | `herd::those_who_wait_share_an_error_and_those_who_come_later_try_again`, `herd::an_origin_that_is_down_…` |
//! | 18 | invalidation at every step of a fill | the conformance kit (`invalidation`, `model`), `stress` |
//! | 19 | one bucket unreachable while invalidating | `cluster::a_node_is_killed`, `backend::redis_cluster_faults::an_invalidation_that_did_not_reach_…`, `herd::in_a_cluster_…` |
//! | 20 | origin truncates, resets, wrong length | `cache::what_is_cut_short_or_of_another_length_…`, `gateway::content_that_breaks_off_…` |
//! | 21 | large heads, 10,000 tags, Vary storm, large and endless bodies | `cache::over_the_limits_nothing_is_stored`, `cache::a_storm_of_variants_…`, `cache::what_is_too_large_streams_through`, `cache::what_is_not_stored_passes_…`, `gateway::sixty_four_kilobytes_…` |
//! | 22 | slow reader | `cache::a_client_that_does_not_read_…`, `herd::a_hundred_stopped_readers_…` |
//! | 23 | panic in the handler | `herd::a_handler_that_panics_…`, `model` |
//! | 24 | `concurrency_limit`, `buffer`, `load_shed`, `timeout` inside | `cache::over_services_with_a_readiness_of_their_own_nothing_hangs`, `herd::services_that_are_rarely_ready_…` |
//! | 25 | shutdown during background work | `processes::gateways_are_restarted_one_after_the_other`, `herd::shutdown_…`, `gateway::what_is_under_way_is_finished_…` |
//! | 26 | mixed versions on one Redis | `standalone::another_version_writes_to_the_same_redis` |
//! | 27 | ACL or password wrong | `backend::redis_connect`, `backend::redis_permissions`, `backend::redis_sentinel_faults::what_is_wrong_…` |
//! | 28 | forged tokens, random limit keys | `session::a_hundred_thousand_forged_tokens_…`, `rate_limit::a_million_keys_…` |
//! | 29 | forged `x-session` | `session::a_service_sees_exactly_one_field_…`, `gateway::each_origin_gets_one_field_…` |
//! | 30 | hosts, routers, encodings, header injection | `cache::keys`, `cache::what_may_differ_is_stored_apart`, `key` (unit) |
//! | 31 | one session's answer asked under another | `cache::with_a_default_lifetime_and_collapsing_everybody_gets_their_own`, `session::in_all_orders_nobody_gets_another_s_answer` |
//! | 32 | CLIENT KILL while a limit is taken | `rate_limit::scripts_that_are_flushed_and_clients_that_are_killed_…`, `standalone::connections_are_cut` |
//!
//! What was asked for besides these rows:
//!
//! | what | where |
//! |---|---|
//! | Sentinel, with the conformance kit | `backend::redis_sentinel`, `backend::redis_sentinel_faults` (over TLS, too) |
//! | the compare-and-set adapter, with the kit | `backend::cas`, `backend::cas_redis` |
//! | look-ups at replicas, with the kit | `backend::redis_from_replicas`, `backend::redis_replicas` |
//! | WAIT, and a shortfall that is reported | `backend::redis_replicas::a_shortfall_of_replicas_…` |
//! | failover in the middle of the load | `failover`, `cluster`, and the soak in both |
//! | a long run with a checker, seeds, and what shows that the checker sees | `tests/soak`: no argument, `--long`, `--seed`, `--prove` |
//! | fuzz targets with corpora, property and model tests | `fuzz`, `model`, `rate_limit::trace`, `policy` and `key` (unit) |
//! | dependencies | `deny.toml` |
//! | attacks, the tests that show the defence, honest limits | `tower_gatehouse::guide::security`; `guide.rs` checks that the tests exist |

mod clocks;
mod cluster;
mod counts;
mod failover;
mod fleet;
mod kept;
mod load;
mod processes;
mod proxy;
mod standalone;
#[path = "../support/mod.rs"]
mod support;
