//! Which faults come, and when: a list that follows from the seed alone.

use std::{fmt, time::Duration};

use crate::random::Random;

/// How many gateways there are.
pub(crate) const GATEWAYS: usize = 4;

/// What the responses are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum World {
    /// One Redis without persistence.
    Standalone,
    /// A master with two replicas that three Sentinels watch.
    Sentinel,
    /// A Cluster of three masters with a replica each.
    Cluster,
}

/// Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A server of the cache is killed, and starts again empty; under Sentinel after another one has taken over.
    KillCache {
        node: usize,
        down: u64,
    },
    /// It neither answers nor closes its connections.
    FreezeCache {
        node: usize,
        down: u64,
    },
    /// Keys of the cache vanish, of all kinds, a few dozen a second.
    EvictCells {
        time: u64,
    },
    /// All of them vanish.
    Forget,
    /// No memory for anything new.
    FillCache {
        full: u64,
    },
    /// A replica becomes the master: in a Cluster agreed with the old one, under Sentinel while that one lives on.
    FailOver {
        shard: usize,
    },
    /// Every script is forgotten, on all servers.
    FlushScripts,
    /// Every connection of a client is cut, on all servers.
    CutConnections,
    /// The server of sessions, carts and limits is killed; it has written all that it has acknowledged.
    KillRecords {
        down: u64,
    },
    FreezeRecords {
        down: u64,
    },
    KillGateway {
        gateway: usize,
        down: u64,
    },
    /// Longer than its leases.
    FreezeGateway {
        gateway: usize,
        down: u64,
    },
}

/// A fault, and when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:6.1} s  {:?}", self.at.as_secs_f32(), self.fault)
    }
}

/// One fault every two to three seconds; each kind comes once before one comes again.
pub(crate) fn plan(seed: u64, world: World, length: Duration) -> Vec<Planned> {
    let mut random = Random::new(seed);
    let mut deck: Vec<u64> = Vec::new();
    let mut planned = Vec::new();
    let mut at = Duration::from_secs(1);
    // The last fault is over when the run is.
    while at + Duration::from_secs(4) < length {
        if deck.is_empty() {
            deck = (0..KINDS).collect();
        }
        let mut next = index(&mut random, deck.len());
        if world == World::Sentinel {
            // Until the old master has become a replica, invalidations are refused: so first a time in which they are not,
            // and then a failover, so that a short run has one.
            let fails_over = |kind: u64| kind == FAIL_OVER || kind == KILL_CACHE;
            if at < QUIET {
                while fails_over(deck[next]) {
                    next = (next + 1) % deck.len();
                }
            } else if !planned.iter().any(|planned: &Planned| matches!(planned.fault, Fault::FailOver { .. })) {
                next = deck.iter().position(|kind| *kind == FAIL_OVER).unwrap_or(next);
            }
        }
        let kind = deck.swap_remove(next);
        if let Some(fault) = draw(kind, world, &mut random) {
            planned.push(Planned { at, fault });
            at += Duration::from_millis(2000 + random.below(1000));
        }
    }
    planned
}

const KINDS: u64 = 12;
const KILL_CACHE: u64 = 0;
const FAIL_OVER: u64 = 5;
/// How long there is no failover under Sentinel; shorter than what the other kinds of faults take.
const QUIET: Duration = Duration::from_secs(8);

fn draw(kind: u64, world: World, random: &mut Random) -> Option<Fault> {
    let down = 200 + random.below(1300);
    let nodes = if world == World::Cluster { 3 } else { 1 };
    let node = index(random, nodes);
    Some(match kind {
        KILL_CACHE => Fault::KillCache { node, down },
        1 => Fault::FreezeCache { node, down },
        2 => Fault::EvictCells { time: down },
        3 => Fault::Forget,
        4 => Fault::FillCache { full: down },
        FAIL_OVER if world != World::Standalone => Fault::FailOver { shard: node },
        6 => Fault::FlushScripts,
        7 => Fault::CutConnections,
        8 => Fault::KillRecords { down },
        9 => Fault::FreezeRecords { down },
        10 => Fault::KillGateway { gateway: index(random, GATEWAYS), down },
        11 => Fault::FreezeGateway { gateway: index(random, GATEWAYS), down: down + 1500 },
        _ => return None,
    })
}

fn index(random: &mut Random, len: usize) -> usize {
    usize::try_from(random.below(len as u64)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, mem::discriminant};

    use super::*;

    #[test]
    fn a_seed_reproduces_the_list() {
        for world in [World::Standalone, World::Sentinel, World::Cluster] {
            let list = |seed| plan(seed, world, Duration::from_mins(5));
            assert_eq!(list(1), list(1));
            assert_ne!(list(1), list(2));
        }
    }

    #[test]
    fn every_kind_comes_within_a_minute() {
        for (world, kinds) in [(World::Standalone, 11), (World::Sentinel, 12), (World::Cluster, 12)] {
            let list = plan(7, world, Duration::from_mins(1));
            let seen: HashSet<_> = list.iter().map(|planned| discriminant(&planned.fault)).collect();
            assert_eq!(seen.len(), kinds, "{world:?}");
        }
    }

    #[test]
    fn a_short_run_under_sentinel_has_a_failover_after_some_seconds_without() {
        for seed in 0..100 {
            let list = plan(seed, World::Sentinel, Duration::from_secs(20));
            let is_failover = |fault| matches!(fault, Fault::FailOver { .. } | Fault::KillCache { .. });
            let first = list.iter().find(|planned| is_failover(planned.fault)).expect("a failover");
            assert!(first.at >= QUIET && matches!(first.fault, Fault::FailOver { .. }), "{list:?}");
        }
    }
}
