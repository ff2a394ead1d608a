//! Takes from one rate: what limits ask for most. Those of the same moment go to Redis together.
//!
//! A script is written to the socket by itself and answered by itself, and that costs both sides several times what it
//! does. So a take that finds another one of its bucket under way lets the tasks that are ready have their turn first,
//! and goes with all that these ask for: one script, which decides one after the other. What is alone goes at once.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Instant,
};

use bytes::Bytes;
use fred::types::Value;
use futures_util::future;
use tokio::sync::oneshot;

use super::{
    client::Client,
    error::Fault,
    keys::Bucket,
    limits::{Mode, Numbers, parse},
    reply::Reply,
    script::Script,
};
use crate::{
    Timestamp,
    backend::{Ask, BackendError, ErrorKind, Level},
};

static LIMIT_RATE: Script = Script::new("limit_rate", include_str!("lua/limit_rate.lua"));

/// How many go together at most: Redis does nothing else meanwhile.
const MOST: usize = 128;
/// How long the reply is for each.
const ONE: usize = 5 * size_of::<f64>();

/// Takes from rates; cheap to clone.
#[derive(Clone)]
pub(super) struct Rates {
    client: Client,
    /// One for each bucket: what goes together lies in one slot.
    stops: Arc<[Mutex<Stop>]>,
}

/// Where takes wait for each other.
#[derive(Default)]
struct Stop {
    under_way: usize,
    waiting: Vec<Waiting>,
}

struct Waiting {
    name: Bytes,
    ask: Ask,
    answer: oneshot::Sender<Answer>,
}

pub(super) type Answer = Result<(bool, Timestamp, Vec<Level>), BackendError>;

impl Rates {
    pub(super) fn new(client: Client) -> Self {
        let stops = client.keys().buckets().map(|_| Mutex::default()).collect();
        Self { client, stops }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Takes from the counter of this name, which lies in the bucket.
    ///
    /// Cancel safe: the others are asked for, too, when who has gathered them has gone.
    pub(super) async fn take(&self, bucket: Bucket, name: Bytes, ask: Ask) -> Answer {
        let _journey = match self.wait(bucket, &name, ask) {
            None => Journey { rates: self, bucket },
            Some((answer, is_first)) => {
                let is_alone = is_first && Departure { rates: self, bucket }.nobody_joins().await;
                if !is_alone {
                    let stopped = |_| BackendError::new(ErrorKind::Unavailable, "the runtime stops");
                    return answer.await.map_err(stopped)?;
                }
                Journey::begin(self, bucket)
            }
        };
        self.ask_one(bucket, name, ask).await
    }

    /// Waits if there is one under way: for the answer, and whether it is the first who waits. Else this one is.
    fn wait(&self, bucket: Bucket, name: &Bytes, ask: Ask) -> Option<(oneshot::Receiver<Answer>, bool)> {
        let mut stop = self.stop(bucket);
        if stop.under_way == 0 {
            stop.under_way = 1;
            return None;
        }
        let (sender, answer) = oneshot::channel();
        stop.waiting.push(Waiting { name: name.clone(), ask, answer: sender });
        Some((answer, stop.waiting.len() == 1))
    }

    async fn ask_one(&self, bucket: Bucket, name: Bytes, ask: Ask) -> Answer {
        let (asked, timeout) = (Instant::now(), self.client.limit_timeout());
        let (keys, args) = (vec![name.into()], numbers([ask]));
        let reply = self.client.eval(&LIMIT_RATE, bucket, keys, args, timeout).await?;
        self.read(&reply.into_bytes().unwrap_or_default(), asked)
    }

    /// Asks for all of them at once, and tells each what it is told.
    async fn ask_all(self, bucket: Bucket, all: Vec<Waiting>) {
        let _journey = Journey::begin(&self, bucket);
        let (asked, timeout) = (Instant::now(), self.client.limit_timeout());
        let keys: Vec<Value> = all.iter().map(|waiting| Value::Bytes(waiting.name.clone())).collect();
        let args = numbers(all.iter().map(|waiting| waiting.ask));
        match self.client.eval_once(&LIMIT_RATE, bucket, &keys, &args, timeout).await {
            Ok(reply) => {
                let reply = reply.into_bytes().unwrap_or_default();
                let mut each = reply.chunks(ONE);
                for waiting in all {
                    let _ = waiting.answer.send(self.read(each.next().unwrap_or_default(), asked));
                }
            }
            // Some of the keys have moved and some have not. One by one it is known where each is.
            Err(Fault::TryAgain) => {
                let rates = &self;
                let one = |Waiting { name, ask, answer }| async move {
                    let _ = answer.send(rates.ask_one(bucket, name, ask).await);
                };
                future::join_all(all.into_iter().map(one)).await;
            }
            Err(fault) => {
                let error = fault.clone().into_error();
                // To the breaker each of them counts, as if it had gone by itself.
                if let Some(node) = self.client.node(bucket) {
                    let failed = Err(fault);
                    all.iter().skip(1).for_each(|_| node.observe(&failed));
                }
                for waiting in all {
                    let _ = waiting.answer.send(Err(error.clone()));
                }
            }
        }
    }

    fn read(&self, reply: &[u8], asked: Instant) -> Answer {
        let (admitted, at, levels) = parse(reply, 1).ok_or_else(|| Reply::unexpected(LIMIT_RATE.name()))?;
        self.client.learn_time(at, asked);
        Ok((admitted, at, levels))
    }

    fn stop(&self, bucket: Bucket) -> MutexGuard<'_, Stop> {
        self.stops[bucket.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn numbers(asks: impl IntoIterator<Item = Ask, IntoIter: ExactSizeIterator>) -> Vec<Value> {
    let asks = asks.into_iter();
    let mut numbers = Numbers::new(Mode::Take, asks.len());
    for ask in asks {
        numbers.key(1);
        numbers.counter(ask.limit, ask.cost.into());
    }
    numbers.into_args()
}

/// A script that is under way.
struct Journey<'a> {
    rates: &'a Rates,
    bucket: Bucket,
}

impl<'a> Journey<'a> {
    fn begin(rates: &'a Rates, bucket: Bucket) -> Self {
        rates.stop(bucket).under_way += 1;
        Self { rates, bucket }
    }
}

impl Drop for Journey<'_> {
    fn drop(&mut self) {
        self.rates.stop(self.bucket).under_way -= 1;
    }
}

/// Held by the first who waits: all set off when it is dropped.
struct Departure<'a> {
    rates: &'a Rates,
    bucket: Bucket,
}

impl Departure<'_> {
    /// Whether nobody has joined when all that is ready has had its turn. Then nobody waits any more.
    async fn nobody_joins(self) -> bool {
        // Not by way of the driver, as tokio's own.
        let mut yielded = false;
        let yielding = future::poll_fn(|cx| {
            if mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        yielding.await;
        {
            let mut stop = self.rates.stop(self.bucket);
            if stop.waiting.len() > 1 {
                return false;
            }
            stop.waiting.clear();
        }
        // From now on somebody else may be the first.
        mem::forget(self);
        true
    }
}

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        let mut all = mem::take(&mut self.rates.stop(self.bucket).waiting);
        all.retain(|waiting| !waiting.answer.is_closed());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        while !all.is_empty() {
            let rest = all.split_off(all.len().min(MOST));
            let rates = self.rates.clone();
            runtime.spawn(rates.ask_all(self.bucket, mem::replace(&mut all, rest)));
        }
    }
}
