//! Takes from one rate: what limits ask for most. Those of the same moment are one script, which decides one after the
//! other.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::types::Value;
use futures_util::future;

use super::{
    client::Client,
    error::Fault,
    keys::Bucket,
    limits::{Mode, Numbers, parse},
    reply::Reply,
    script::Script,
    together::{Call, Carrier, Together, Turn, in_parts},
};
use crate::{
    Timestamp,
    backend::{Ask, Level, several::Answer},
};

static LIMIT_RATE: Script = Script::new("limit_rate", include_str!("lua/limit_rate.lua"));

/// How many go together at most: Redis does nothing else meanwhile.
const MOST: usize = 128;
/// How long the reply is for each.
const LEN: usize = 5 * size_of::<f64>();

/// Takes from rates; cheap to clone.
#[derive(Clone)]
pub(super) struct Rates {
    client: Client,
    together: Together<Bucket, One, Taken>,
}

/// From the counter of this name.
#[derive(Clone)]
pub(super) struct One {
    name: Bytes,
    ask: Ask,
}

pub(super) type Taken = (bool, Timestamp, Vec<Level>);

impl Rates {
    pub(super) fn new(client: Client) -> Self {
        let together = Together::new(client.keys().buckets().len());
        Self { client, together }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Takes from the counter of this name, which lies in the bucket.
    ///
    /// Cancel safe: the others are asked for, too, when one of them has gone.
    pub(super) async fn take(&self, bucket: Bucket, name: Bytes, ask: Ask) -> Answer {
        let one = One { name, ask };
        match self.together.turn(bucket, || one.clone(), self) {
            Turn::Soon(answer) => answer.get().await,
            Turn::Now(_journey) => self.ask_one(bucket, one, self.client.limit_timeout()).await,
        }
    }

    async fn ask_one(&self, bucket: Bucket, One { name, ask }: One, timeout: Duration) -> Answer {
        let (asked, keys, args) = (Instant::now(), vec![name.into()], numbers([ask]));
        let reply = self.client.eval(&LIMIT_RATE, bucket, keys, args, timeout).await?;
        self.read(&reply.into_bytes().unwrap_or_default(), asked)
    }

    /// Asks for all of them at once, and tells each what it is told.
    async fn ask_all(&self, bucket: Bucket, all: Vec<Call<One, Taken>>) {
        let (asked, timeout) = (Instant::now(), self.client.limit_timeout());
        let keys: Vec<Value> = all.iter().map(|call| Value::Bytes(call.ask.name.clone())).collect();
        let args = numbers(all.iter().map(|call| call.ask.ask));
        match self.client.eval_once(&LIMIT_RATE, bucket, &keys, &args, timeout).await {
            Ok(reply) => {
                let reply = reply.into_bytes().unwrap_or_default();
                let mut each = reply.chunks(LEN);
                for call in all {
                    let _ = call.answer.send(self.read(each.next().unwrap_or_default(), asked));
                }
            }
            // Some of the keys have moved and some have not. One by one it is known where each is.
            Err(Fault::TryAgain) => {
                let one = |Call { ask, answer }| async move {
                    let left = timeout.saturating_sub(asked.elapsed());
                    let _ = answer.send(self.ask_one(bucket, ask, left).await);
                };
                future::join_all(all.into_iter().map(one)).await;
            }
            Err(fault) => {
                let error = self.client.failed_for(bucket, fault, all.len());
                for call in all {
                    let _ = call.answer.send(Err(error.clone()));
                }
            }
        }
    }

    fn read(&self, reply: &[u8], asked: Instant) -> Answer {
        let (admitted, at, levels) = parse(reply, 1).ok_or_else(|| Reply::unexpected(LIMIT_RATE.name()))?;
        self.client.learn_time(at, asked);
        Ok((admitted, at, levels))
    }
}

impl Carrier for Rates {
    type Place = Bucket;
    type Ask = One;
    type Answer = Taken;

    async fn carry(self, bucket: Bucket, calls: Vec<Call<One, Taken>>) {
        future::join_all(in_parts(calls, MOST).map(|part| self.ask_all(bucket, part))).await;
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
