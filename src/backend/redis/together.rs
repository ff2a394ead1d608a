//! Calls of the same moment go to Redis together.
//!
//! Each command costs both sides much more than what it does. So a call that finds another one of its place under way
//! waits until the tasks that are ready have had their turn, and goes with what these ask for; where [`ENOUGH`] are under
//! way, until one of them is back. What is alone goes at once.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    iter,
    marker::PhantomData,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures_util::future;
use tokio::sync::{Notify, oneshot};

use super::keys::Bucket;
use crate::backend::{BackendError, ErrorKind};

/// So many under way keep a connection busy; what comes meanwhile goes together with more of its kind.
const ENOUGH: usize = 4;
/// How long one of them is waited for: not as long as a server may take that does not answer.
const PATIENCE: Duration = Duration::from_millis(1);

/// How many go together at most.
pub(super) const MOST: usize = 64;
/// About how long their reply is at most, bytes: the first of them waits for the last.
const LONGEST: usize = 256 << 10;

/// About how long what is asked for is.
#[derive(Clone, Default)]
pub(super) struct Typical(Arc<AtomicUsize>);

impl Typical {
    pub(super) fn learn(&self, len: usize) {
        let typical = self.0.load(Ordering::Relaxed);
        self.0.store(typical - typical / 8 + len / 8, Ordering::Relaxed);
    }

    /// How many go together, so that their reply is not too long.
    pub(super) fn most(&self) -> usize {
        (LONGEST / self.0.load(Ordering::Relaxed).max(1)).clamp(1, MOST)
    }
}

/// Where calls wait for each other; cheap to clone.
pub(super) struct Together<P, A, R> {
    /// One for each place.
    stops: Arc<[Stop<A, R>]>,
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
    calls: Mutex<Calls<A, R>>,
    one_is_back: Notify,
}

struct Calls<A, R> {
    under_way: usize,
    waiting: Vec<Call<A, R>>,
}

impl<A, R> Stop<A, R> {
    fn calls(&self) -> MutexGuard<'_, Calls<A, R>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those who wait are one task.
    async fn has_room(&self) {
        while self.calls().under_way >= ENOUGH {
            self.one_is_back.notified().await;
        }
    }
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
        let calls = || Mutex::new(Calls { under_way: 0, waiting: Vec::new() });
        let stop = || Stop { calls: calls(), one_is_back: Notify::new() };
        Self { stops: iter::repeat_with(stop).take(places).collect(), places: PhantomData }
    }

    /// A call begins.
    pub(super) fn turn<C>(&self, place: P, ask: impl FnOnce() -> A, carrier: &C) -> Turn<P, A, R>
    where
        C: Carrier<Place = P, Ask = A, Answer = R>,
    {
        let mut calls = self.stop(place).calls();
        if calls.under_way == 0 {
            calls.under_way = 1;
            return Turn::Now(Journey { together: self.clone(), place });
        }
        let (sender, answer) = oneshot::channel();
        calls.waiting.push(Call { ask: ask(), answer: sender });
        let is_first = calls.waiting.len() == 1;
        drop(calls);
        if is_first {
            // In a task of its own: a caller may go away, or not be polled for long.
            let departure = Departure { together: self.clone(), place, has_left: false };
            tokio::spawn(departure.leave(carrier.clone()));
        }
        Turn::Soon(Answer(answer))
    }
}

impl<P: Place, A, R> Together<P, A, R> {
    fn stop(&self, place: P) -> &Stop<A, R> {
        &self.stops[place.index()]
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
        let stop = self.together.stop(self.place);
        stop.calls().under_way -= 1;
        stop.one_is_back.notify_one();
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
        if self.together.stop(self.place).calls().under_way >= ENOUGH {
            let _ = tokio::time::timeout(PATIENCE, self.together.stop(self.place).has_room()).await;
        }
        let (mut calls, _journey) = {
            let mut calls = self.together.stop(self.place).calls();
            self.has_left = true;
            calls.under_way += 1;
            (mem::take(&mut calls.waiting), Journey { together: self.together.clone(), place: self.place })
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
            self.together.stop(self.place).calls().waiting.clear();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each with how many went together, when it is told to.
    #[derive(Clone)]
    struct Ferry {
        left_with: Arc<Mutex<Vec<usize>>>,
        arrives: Arc<tokio::sync::Semaphore>,
    }

    impl Place for () {
        fn index(self) -> usize {
            0
        }
    }

    impl Carrier for Ferry {
        type Place = ();
        type Ask = ();
        type Answer = usize;

        async fn carry(self, (): (), calls: Vec<Call<(), usize>>) {
            self.left_with.lock().unwrap().push(calls.len());
            self.arrives.acquire().await.unwrap().forget();
            let all = calls.len();
            for call in calls {
                call.answer.send(Ok(all)).unwrap();
            }
        }
    }

    impl Ferry {
        fn new() -> Self {
            Self { left_with: Arc::default(), arrives: Arc::new(tokio::sync::Semaphore::new(0)) }
        }

        fn left_with(&self) -> Vec<usize> {
            self.left_with.lock().unwrap().clone()
        }

        fn is_asked(&self, together: &Together<(), (), usize>, times: usize) -> Vec<Turn<(), (), usize>> {
            (0..times).map(|_| together.turn((), || (), self)).collect()
        }
    }

    async fn every_task_has_its_turn() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    /// As many under way as there may be: one alone, and each of the others with one call.
    async fn enough(ferry: &Ferry, together: &Together<(), (), usize>) -> Vec<Turn<(), (), usize>> {
        let mut turns = Vec::new();
        for _ in 0..ENOUGH {
            turns.extend(ferry.is_asked(together, 1));
            every_task_has_its_turn().await;
        }
        assert!(matches!(turns[0], Turn::Now(_)));
        assert_eq!(ferry.left_with(), [1; ENOUGH - 1]);
        turns
    }

    #[tokio::test(start_paused = true)]
    async fn where_enough_are_under_way_the_others_go_when_one_is_back() {
        let (ferry, together) = (Ferry::new(), Together::new(1));
        let first = enough(&ferry, &together).await;
        let more = ferry.is_asked(&together, 10);
        every_task_has_its_turn().await;
        assert_eq!(ferry.left_with().len(), ENOUGH - 1, "they wait");
        ferry.arrives.add_permits(1);
        every_task_has_its_turn().await;
        assert_eq!(ferry.left_with()[ENOUGH - 1..], [10]);
        ferry.arrives.add_permits(ENOUGH);
        for turn in more {
            let Turn::Soon(answer) = turn else { panic!("nothing is alone") };
            assert_eq!(answer.get().await.unwrap(), 10);
        }
        drop(first);
        every_task_has_its_turn().await;
        assert!(matches!(ferry.is_asked(&together, 1)[..], [Turn::Now(_)]), "what is alone goes at once");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long_for_what_does_not_come_back() {
        let (ferry, together) = (Ferry::new(), Together::new(1));
        let _first = enough(&ferry, &together).await;
        let _more = ferry.is_asked(&together, 10);
        every_task_has_its_turn().await;
        assert_eq!(ferry.left_with().len(), ENOUGH - 1);
        tokio::time::sleep(2 * PATIENCE).await;
        assert_eq!(ferry.left_with()[ENOUGH - 1..], [10]);
    }
}
