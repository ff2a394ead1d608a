//! Calls of the same moment go to Redis together.
//!
//! Each command costs both sides much more than what it does. So a call that finds another one of its place under way
//! waits until the tasks that are ready have had their turn, and goes with what these ask for. What is alone goes at
//! once.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    iter,
    marker::PhantomData,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use futures_util::future;
use tokio::sync::oneshot;

use super::keys::Bucket;
use crate::backend::{BackendError, ErrorKind};

/// Where calls wait for each other; cheap to clone.
pub(super) struct Together<P, A, R> {
    /// One for each place.
    stops: Arc<[Mutex<Stop<A, R>>]>,
    places: PhantomData<P>,
}

/// What the calls that go together have in common.
pub(super) trait Place: Copy + Send + 'static {
    fn index(self) -> usize;
}

/// What goes together lies in one slot.
impl Place for Bucket {
    fn index(self) -> usize {
        Bucket::index(self)
    }
}

struct Stop<A, R> {
    under_way: usize,
    waiting: Vec<Call<A, R>>,
}

/// What somebody asks for, and who waits for the answer.
pub(super) struct Call<A, R> {
    pub(super) ask: A,
    pub(super) answer: oneshot::Sender<Result<R, BackendError>>,
}

/// What several ask for alike, and all who wait for the answer.
pub(super) struct Alike<A, R> {
    pub(super) ask: A,
    callers: Vec<oneshot::Sender<Result<R, BackendError>>>,
}

impl<A: Eq + Hash, R: Clone> Alike<A, R> {
    /// Each is asked for once.
    pub(super) fn of(calls: Vec<Call<A, R>>) -> Vec<Self> {
        let mut alike: HashMap<A, Vec<_>> = HashMap::with_capacity(calls.len());
        for Call { ask, answer } in calls {
            alike.entry(ask).or_default().push(answer);
        }
        alike.into_iter().map(|(ask, callers)| Self { ask, callers }).collect()
    }

    /// How many wait.
    pub(super) fn callers(&self) -> usize {
        self.callers.len()
    }

    pub(super) fn tell(self, answer: &Result<R, BackendError>) {
        for caller in self.callers {
            let _ = caller.send(answer.clone());
        }
    }
}

/// In parts of at most so many.
pub(super) fn in_parts<T>(mut all: Vec<T>, most: usize) -> impl Iterator<Item = Vec<T>> {
    iter::from_fn(move || {
        let rest = all.split_off(all.len().min(most));
        Some(mem::replace(&mut all, rest)).filter(|part| !part.is_empty())
    })
}

/// Asks Redis for all of what went together; cheap to clone.
pub(super) trait Carrier: Clone + Send + 'static {
    type Place: Place;
    type Ask: Send + 'static;
    type Answer: Send + 'static;

    /// The calls are in the order in which they came. Answers every one.
    fn carry(self, place: Self::Place, calls: Vec<Call<Self::Ask, Self::Answer>>) -> impl Future<Output = ()> + Send;
}

/// What becomes of a call.
pub(super) enum Turn<P: Place, A, R> {
    /// It goes at once, alone, and holds this until it is answered.
    Now(Journey<P, A, R>),
    /// It goes with others.
    Soon(Answer<R>),
}

/// An answer that is on its way, whoever else of those that wait goes away.
pub(super) struct Answer<R>(oneshot::Receiver<Result<R, BackendError>>);

impl<R> Answer<R> {
    pub(super) async fn get(self) -> Result<R, BackendError> {
        self.0.await.map_err(|_| BackendError::new(ErrorKind::Unavailable, "the runtime stops"))?
    }
}

impl<P: Place, A: Send + 'static, R: Send + 'static> Together<P, A, R> {
    pub(super) fn new(places: usize) -> Self {
        let stop = || Mutex::new(Stop { under_way: 0, waiting: Vec::new() });
        Self { stops: iter::repeat_with(stop).take(places).collect(), places: PhantomData }
    }

    /// A call begins.
    pub(super) fn turn<C>(&self, place: P, ask: impl FnOnce() -> A, carrier: &C) -> Turn<P, A, R>
    where
        C: Carrier<Place = P, Ask = A, Answer = R>,
    {
        let mut stop = self.stop(place);
        if stop.under_way == 0 {
            stop.under_way = 1;
            return Turn::Now(Journey { together: self.clone(), place });
        }
        let (sender, answer) = oneshot::channel();
        stop.waiting.push(Call { ask: ask(), answer: sender });
        let is_first = stop.waiting.len() == 1;
        drop(stop);
        if is_first {
            // In a task of its own: a caller may go away, or not be polled for long.
            let departure = Departure { together: self.clone(), place, has_left: false };
            tokio::spawn(departure.leave(carrier.clone()));
        }
        Turn::Soon(Answer(answer))
    }
}

impl<P: Place, A, R> Together<P, A, R> {
    fn stop(&self, place: P) -> MutexGuard<'_, Stop<A, R>> {
        self.stops[place.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P, A, R> Clone for Together<P, A, R> {
    fn clone(&self) -> Self {
        Self { stops: Arc::clone(&self.stops), places: PhantomData }
    }
}

/// Calls that are under way.
pub(super) struct Journey<P: Place, A, R> {
    together: Together<P, A, R>,
    place: P,
}

impl<P: Place, A, R> Drop for Journey<P, A, R> {
    fn drop(&mut self) {
        self.together.stop(self.place).under_way -= 1;
    }
}

/// Sees to it that those who wait are taken along, or told that they are not where the runtime stops.
struct Departure<P: Place, A, R> {
    together: Together<P, A, R>,
    place: P,
    has_left: bool,
}

impl<P: Place, A: Send + 'static, R: Send + 'static> Departure<P, A, R> {
    async fn leave<C: Carrier<Place = P, Ask = A, Answer = R>>(mut self, carrier: C) {
        all_that_is_ready_has_its_turn().await;
        let (mut calls, _journey) = {
            let mut stop = self.together.stop(self.place);
            self.has_left = true;
            stop.under_way += 1;
            (mem::take(&mut stop.waiting), Journey { together: self.together.clone(), place: self.place })
        };
        calls.retain(|call| !call.answer.is_closed());
        if !calls.is_empty() {
            carrier.carry(self.place, calls).await;
        }
    }
}

impl<P: Place, A, R> Drop for Departure<P, A, R> {
    fn drop(&mut self) {
        if !self.has_left {
            self.together.stop(self.place).waiting.clear();
        }
    }
}

/// Not by way of the driver, as tokio's own.
async fn all_that_is_ready_has_its_turn() {
    let mut yielded = false;
    future::poll_fn(|cx| {
        if mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
