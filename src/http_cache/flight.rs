//! The fills that are under way in this process, and who may follow them.

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    hash::Hash,
    task::{Context, Poll, Waker},
};

use crate::{
    backend::{Lookup, Ticket},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

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
    board: Arc<Board<T>>,
}

/// What is known of a flight, and who waits for news.
struct Board<T>(Mutex<News<T>>);

struct News<T> {
    state: State<T>,
    /// One place for each follower that waits; those who left have left theirs empty.
    waiting: Vec<Option<Waker>>,
}

impl<T> Board<T> {
    fn lock(&self) -> MutexGuard<'_, News<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes those who wait for its outcome, if it has one now.
    fn change(&self, change: impl FnOnce(&mut State<T>)) {
        let mut news = self.lock();
        change(&mut news.state);
        if !news.state.is_settled() {
            return;
        }
        let waiting = std::mem::take(&mut news.waiting);
        // Woken without the lock: who is woken takes it.
        drop(news);
        waiting.into_iter().flatten().for_each(Waker::wake);
    }
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

impl<T> State<T> {
    fn is_settled(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Asked(_))
    }
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
    /// invalidated between: the flight's ticket is of the same clock and not below the look-up's floor. While the store
    /// is out of reach of this process, nobody knows what another one has invalidated: then the next flight takes off
    /// when the last one has come to something, and all who came meanwhile follow that.
    pub(crate) fn join(&self, key: &K, lookup: Option<&Lookup>) -> Join<K, T> {
        let mut map = lock(&self.map);
        let mut last = None;
        if let Some(flight) = map.flights.get(key) {
            let follower = || Follower { board: Arc::clone(&flight.board), place: None };
            match &flight.board.lock().state {
                State::Waiting => return Join::Follow(follower()),
                State::Asked(None) | State::Open(_, None) if lookup.is_none() => last = Some(follower()),
                State::Asked(ticket) | State::Open(_, ticket) if may_follow(*ticket, lookup) => {
                    return Join::Follow(follower());
                }
                _ => {}
            }
        }
        let board = Arc::new(Board(Mutex::new(News { state: State::Waiting, waiting: Vec::new() })));
        let id = map.next_id;
        map.next_id += 1;
        map.flights.insert(key.clone(), Flight { id, board: Arc::clone(&board) });
        Join::Lead(Leader { map: Arc::clone(&self.map), key: key.clone(), id, board, last })
    }

    /// Lets a new flight take off in place of one that takes too long; its followers stay with it.
    pub(crate) fn supersede(&self, key: &K, overdue: &Overdue<T>) {
        let mut map = lock(&self.map);
        if map.flights.get(key).is_some_and(|flight| Arc::ptr_eq(&flight.board, &overdue.0)) {
            map.flights.remove(key);
        }
    }

    /// How many are under way.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        lock(&self.map).flights.len()
    }
}

fn lock<K, T>(map: &Mutex<Map<K, T>>) -> MutexGuard<'_, Map<K, T>> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a request that read the store's clock may have what was asked for on this ticket: whether nothing was
/// invalidated between.
pub(crate) fn may_follow(flight: Option<Ticket>, lookup: Option<&Lookup>) -> bool {
    match (flight, lookup) {
        (Some(flight), Some(lookup)) => {
            lookup.ticket.is_some_and(|own| flight.born == own.born && flight.tick >= lookup.floor)
        }
        // Who has read no clock cannot tell, for it may be out of reach of this process alone.
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
    board: Arc<Board<T>>,
    /// The flight before, where this one is not to take off beside it.
    last: Option<Follower<T>>,
}

impl<K: Eq + Hash + Clone, T: Clone> Leader<K, T> {
    /// Waits until the flight before this one has come to something, if this one is not to take off beside it.
    pub(crate) async fn clearance(&mut self) {
        if let Some(last) = self.last.take() {
            last.outcome().await;
        }
    }

    /// The origin is about to be asked on this ticket.
    pub(crate) fn ask(&self, ticket: Option<Ticket>) {
        self.board.change(|state| *state = State::Asked(ticket));
    }

    /// Tells the followers what has come of it, and lets more come until the leader is dropped.
    pub(crate) fn open(&self, outcome: T) {
        self.board.change(|state| {
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
        self.board.change(|state| *state = State::Closed(outcome));
    }

    /// Whether anybody waits for the outcome.
    pub(crate) fn has_followers(&self) -> bool {
        self.board.lock().waiting.iter().any(Option::is_some)
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
        self.board.change(|state| {
            if !state.is_settled() {
                *state = State::Lost;
            }
        });
    }
}

/// Names a flight that was followed for too long.
pub(crate) struct Overdue<T>(Arc<Board<T>>);

/// Follows a flight.
pub(crate) struct Follower<T> {
    board: Arc<Board<T>>,
    place: Option<usize>,
}

impl<T: Clone> Follower<T> {
    /// The flight, should it take too long.
    pub(crate) fn flight(&self) -> Overdue<T> {
        Overdue(Arc::clone(&self.board))
    }

    /// What it came to; `None` if its leader was lost. Cancel safe.
    pub(crate) async fn outcome(mut self) -> Option<T> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut news = self.board.lock();
        match &news.state {
            State::Open(outcome, _) | State::Closed(outcome) => return Poll::Ready(Some(outcome.clone())),
            State::Lost => return Poll::Ready(None),
            State::Waiting | State::Asked(_) => {}
        }
        let place = *self.place.get_or_insert_with(|| {
            news.waiting.push(None);
            news.waiting.len() - 1
        });
        match &mut news.waiting[place] {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

/// What the first of these comes to, which is taken out; `None` if its leader was lost. Cancel safe.
pub(crate) async fn first_outcome<T: Clone>(followers: &mut Vec<Follower<T>>) -> Option<T> {
    let (at, outcome) = poll_fn(|cx| {
        let settled = followers.iter_mut().enumerate().find_map(|(at, follower)| match follower.poll(cx) {
            Poll::Ready(outcome) => Some((at, outcome)),
            Poll::Pending => None,
        });
        settled.map_or(Poll::Pending, Poll::Ready)
    })
    .await;
    followers.swap_remove(at);
    outcome
}

impl<T> Drop for Follower<T> {
    fn drop(&mut self) {
        // Once there is news, the places are gone.
        if let Some(place) = self.place
            && let Some(waker) = self.board.lock().waiting.get_mut(place)
        {
            *waker = None;
        }
    }
}
