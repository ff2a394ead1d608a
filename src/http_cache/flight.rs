//! The fills that are under way in this process, and who may follow them.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::backend::{Lookup, Ticket};

/// Flights by key. `T` is what a flight comes to.
pub(crate) struct Flights<K, T> {
    map: Arc<Mutex<Map<K, T>>>,
}

struct Map<K, T> {
    flights: HashMap<K, Flight<T>>,
    next_id: u64,
}

struct Flight<T> {
    id: u64,
    state: watch::Receiver<State<T>>,
}

/// Where a flight is.
#[derive(Clone, Debug)]
enum State<T> {
    /// The origin has not been asked yet: whoever comes now came before the request.
    Waiting,
    /// The origin was asked on this ticket (none where the store is out of reach).
    Asked(Option<Ticket>),
    /// It has come to this; those who may follow the ticket may still come.
    Open(T, Option<Ticket>),
    /// It has come to this, and is over.
    Closed(T),
    /// Whoever led it is gone without a word (a panic, a shutdown).
    Lost,
}

/// What a request is to do.
pub(crate) enum Join<K: Eq + Hash + Clone, T: Clone> {
    Lead(Leader<K, T>),
    Follow(Follower<T>),
}

impl<K: Eq + Hash + Clone, T: Clone> Flights<K, T> {
    /// Follows the flight of this key, if the request may have what it brings; leads a new one otherwise.
    ///
    /// A request that read the store's clock may follow a flight whose origin was asked already only if nothing was
    /// invalidated between: the flight's ticket is of the same clock and not below the look-up's floor.
    pub(crate) fn join(&self, key: &K, lookup: Option<&Lookup>) -> Join<K, T> {
        let mut map = lock(&self.map);
        if let Some(flight) = map.flights.get(key) {
            let may = match &*flight.state.borrow() {
                State::Waiting => true,
                State::Asked(ticket) | State::Open(_, ticket) => may_follow(*ticket, lookup),
                State::Closed(_) | State::Lost => false,
            };
            if may {
                return Join::Follow(Follower(flight.state.clone()));
            }
        }
        let (sender, state) = watch::channel(State::Waiting);
        let id = map.next_id;
        map.next_id += 1;
        map.flights.insert(key.clone(), Flight { id, state });
        Join::Lead(Leader { map: Arc::clone(&self.map), key: key.clone(), id, state: sender })
    }
}

fn lock<K, T>(map: &Mutex<Map<K, T>>) -> MutexGuard<'_, Map<K, T>> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

fn may_follow(flight: Option<Ticket>, lookup: Option<&Lookup>) -> bool {
    match (flight, lookup) {
        (Some(flight), Some(lookup)) => {
            lookup.ticket.is_some_and(|own| flight.born == own.born && flight.tick >= lookup.floor)
        }
        // The store is out of reach for both: nobody can invalidate either.
        (None, None) => true,
        _ => false,
    }
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self { map: Arc::new(Mutex::new(Map { flights: HashMap::new(), next_id: 0 })) }
    }
}

impl<K, T> fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

/// Leads a flight. Dropped before it has come to something, it is lost, and the followers know.
pub(crate) struct Leader<K: Eq + Hash + Clone, T: Clone> {
    map: Arc<Mutex<Map<K, T>>>,
    key: K,
    id: u64,
    state: watch::Sender<State<T>>,
}

impl<K: Eq + Hash + Clone, T: Clone> Leader<K, T> {
    /// The origin is about to be asked on this ticket.
    pub(crate) fn ask(&self, ticket: Option<Ticket>) {
        self.state.send_replace(State::Asked(ticket));
    }

    /// Tells the followers what has come of it, and lets more come until the leader is dropped.
    pub(crate) fn open(&self, outcome: T) {
        self.state.send_modify(|state| {
            let ticket = match state {
                State::Asked(ticket) => *ticket,
                _ => None,
            };
            *state = State::Open(outcome, ticket);
        });
    }

    /// Tells the followers what has come of it; new requests do not follow any more.
    pub(crate) fn close(self, outcome: T) {
        self.leave();
        self.state.send_replace(State::Closed(outcome));
    }

    fn leave(&self) {
        let mut map = lock(&self.map);
        if map.flights.get(&self.key).is_some_and(|flight| flight.id == self.id) {
            map.flights.remove(&self.key);
        }
    }
}

impl<K: Eq + Hash + Clone, T: Clone> Drop for Leader<K, T> {
    fn drop(&mut self) {
        self.leave();
        self.state.send_if_modified(|state| {
            let lost = matches!(state, State::Waiting | State::Asked(_));
            if lost {
                *state = State::Lost;
            }
            lost
        });
    }
}

/// Follows a flight.
pub(crate) struct Follower<T>(watch::Receiver<State<T>>);

impl<T: Clone> Follower<T> {
    /// What it came to; `None` if its leader was lost. Cancel safe.
    pub(crate) async fn outcome(mut self) -> Option<T> {
        let settled = |state: &State<T>| !matches!(state, State::Waiting | State::Asked(_));
        match &*self.0.wait_for(settled).await.ok()? {
            State::Open(outcome, _) | State::Closed(outcome) => Some(outcome.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Variant;

    fn lookup(tick: u64, born: u64, floor: u64) -> Lookup {
        Lookup { ticket: Some(Ticket { tick, born }), variant: Variant(None), found: None, since: 0, floor }
    }

    fn lead(flights: &Flights<u8, u8>, lookup: Option<&Lookup>) -> Leader<u8, u8> {
        match flights.join(&1, lookup) {
            Join::Lead(leader) => leader,
            Join::Follow(_) => panic!("there is a flight to follow"),
        }
    }

    fn follow(flights: &Flights<u8, u8>, lookup: Option<&Lookup>) -> Follower<u8> {
        match flights.join(&1, lookup) {
            Join::Follow(follower) => follower,
            Join::Lead(_) => panic!("there is no flight to follow"),
        }
    }

    #[tokio::test]
    async fn all_who_come_before_the_end_follow_one_leader() {
        let flights = Flights::default();
        let at = lookup(5, 1, 3);
        let leader = lead(&flights, Some(&at));
        let early = follow(&flights, Some(&at));
        leader.ask(at.ticket);
        let asked = follow(&flights, Some(&at));
        leader.open(7);
        let late = follow(&flights, Some(&at));
        drop(leader);
        for follower in [early, asked, late] {
            assert_eq!(follower.outcome().await, Some(7));
        }
        assert!(lock(&flights.map).flights.is_empty());
        drop(lead(&flights, Some(&at)));
    }

    #[tokio::test]
    async fn who_came_after_an_invalidation_leads_a_flight_of_its_own() {
        let flights = Flights::default();
        let before = lookup(5, 1, 3);
        let old = lead(&flights, Some(&before));
        old.ask(before.ticket);
        let new = lead(&flights, Some(&lookup(9, 1, 8)));
        let follower = follow(&flights, Some(&lookup(9, 1, 8)));
        old.close(1);
        let more = follow(&flights, Some(&lookup(9, 1, 8)));
        new.close(2);
        assert_eq!(follower.outcome().await, Some(2));
        assert_eq!(more.outcome().await, Some(2), "the end of the old flight does not take the new one away");
        assert!(lock(&flights.map).flights.is_empty());
    }

    #[tokio::test]
    async fn a_flight_of_another_clock_or_without_one_is_not_followed() {
        let flights = Flights::default();
        let leader = lead(&flights, None);
        leader.ask(None);
        follow(&flights, None);
        drop(lead(&flights, Some(&lookup(5, 1, 0))));
        let leader = lead(&flights, Some(&lookup(5, 1, 0)));
        leader.ask(Some(Ticket { tick: 5, born: 1 }));
        drop(lead(&flights, Some(&lookup(5, 2, 0))));
    }

    #[tokio::test]
    async fn followers_of_a_leader_that_panicked_know() {
        let flights = Flights::default();
        let leader = lead(&flights, None);
        let follower = follow(&flights, None);
        let task = tokio::spawn(async move {
            let _leader = leader;
            panic!("on purpose");
        });
        assert_eq!(follower.outcome().await, None);
        assert!(task.await.is_err());
        assert!(lock(&flights.map).flights.is_empty());
    }
}
