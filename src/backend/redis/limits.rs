//! Limits: one script for a take, or for many takes of the same moment; where the keys of one lie in several buckets,
//! one for each and what is needed to give back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes};
use fred::types::Value;

use super::{RedisBackend, client::Client, keys::Bucket, names::hex, rates::Rates, reply::Reply, script::Script};
use crate::{
    Timestamp,
    backend::{
        Ask, BackendError, Level, Levels, Limit, LimitKey, Limits, Settle, Take, Taken, Verdict,
        limits::Rule,
        several::{Answer, EachKey, take_several},
    },
};

static LIMIT: Script = Script::new("limit", include_str!("lua/limit.lua"));

impl Limits for RedisBackend {
    async fn take(&self, takes: &[Take<'_>]) -> Result<Taken, BackendError> {
        if let Some(denied) = self.denials.recall_any(takes) {
            return Ok(denied);
        }
        let bucket = |take: &Take<'_>| bucket_of(&self.client, &take.key);
        let Some(first) = takes.first().map(bucket) else {
            return Ok(Taken { admitted: true, at: self.client.now(), levels: Levels::default() });
        };
        if takes.iter().all(|take| bucket(take) == first) {
            let asked = Instant::now();
            let (admitted, at, levels) = take_in(&self.rates, first, takes).await?;
            if !admitted {
                self.remember(takes, &levels, at, asked);
            }
            return Ok(Taken { admitted, at, levels: levels.into_iter().map(Some).collect() });
        }
        take_several(self.rates.clone(), takes, Arc::clone(&self.denials)).await
    }

    fn take_now(&self, takes: &[Take<'_>]) -> Option<Taken> {
        self.denials.recall_any(takes)
    }

    async fn settle(&self, settle: Settle<'_>) -> Result<(), BackendError> {
        self.denials.settling(&settle);
        let settled = settle_in(&self.client, settle).await;
        // What was denied meanwhile.
        self.denials.settling(&settle);
        settled
    }
}

impl RedisBackend {
    fn remember(&self, takes: &[Take<'_>], levels: &[Level], at: Timestamp, asked: Instant) {
        let mut rest = levels;
        for take in takes {
            let (own, others) = rest.split_at(take.asks.len().min(rest.len()));
            self.denials.remember(take, own, at, asked);
            rest = others;
        }
    }
}

fn bucket_of(client: &Client, key: &LimitKey) -> Bucket {
    let mut hash = [0; 8];
    hash.copy_from_slice(&key.as_bytes()[..8]);
    client.keys().bucket(hash)
}

fn name(client: &Client, key: &LimitKey) -> Bytes {
    client.keys().key(bucket_of(client, key), "n", &[&hex(*key.as_bytes())])
}

/// Takes in one step. All keys lie in the bucket.
async fn take_in(rates: &Rates, bucket: Bucket, takes: &[Take<'_>]) -> Answer {
    let client = rates.client();
    if let [Take { key, asks: [ask @ Ask { limit: Limit(Rule::Rate { .. }), .. }] }] = takes {
        return rates.take(bucket, name(client, key), *ask).await;
    }
    let keys = takes.iter().map(|take| name(client, &take.key).into()).collect();
    let counters = takes.iter().map(|take| take.asks.len()).sum::<usize>();
    let mut numbers = Numbers::new(Mode::Take, counters);
    for take in takes {
        numbers.key(take.asks.len());
        take.asks.iter().for_each(|ask| numbers.counter(ask.limit, ask.cost.into()));
    }
    let asked = Instant::now();
    let reply = client.eval(&LIMIT, bucket, keys, numbers.into_args(), client.limit_timeout()).await?;
    let reply = reply.into_bytes().unwrap_or_default();
    let (admitted, at, levels) = parse(&reply, counters).ok_or_else(|| Reply::unexpected(LIMIT.name()))?;
    client.learn_time(at, asked);
    Ok((admitted, at, levels))
}

impl EachKey for Rates {
    async fn take(&self, take: Take<'_>) -> Answer {
        take_in(self, bucket_of(self.client(), &take.key), &[take]).await
    }

    async fn settle(&self, settle: Settle<'_>) -> Result<(), BackendError> {
        settle_in(self.client(), settle).await
    }
}

async fn settle_in(client: &Client, settle: Settle<'_>) -> Result<(), BackendError> {
    let mut numbers = Numbers::new(Mode::Settle { taken: settle.taken }, settle.changes.len());
    numbers.key(settle.changes.len());
    settle.changes.iter().for_each(|change| numbers.counter(change.limit, change.units));
    let keys = vec![name(client, &settle.key).into()];
    let bucket = bucket_of(client, &settle.key);
    client.eval(&LIMIT, bucket, keys, numbers.into_args(), client.limit_timeout()).await.map(drop)
}

/// What the scripts take, packed: it is one argument, whatever is asked for.
pub(super) struct Numbers(Vec<u8>);

#[derive(Clone, Copy)]
pub(super) enum Mode {
    Take,
    Settle { taken: Timestamp },
}

impl Numbers {
    pub(super) fn new(mode: Mode, counters: usize) -> Self {
        let mut numbers = Vec::with_capacity(17 + counters * 35);
        let (mode, taken) = match mode {
            Mode::Take => (1, Timestamp::EPOCH),
            Mode::Settle { taken } => (2, taken),
        };
        numbers.put_u8(mode);
        numbers.put_f64_le(taken.as_micros() as f64);
        numbers.put_f64_le(-1.0); // the server's time
        Self(numbers)
    }

    pub(super) fn key(&mut self, counters: usize) {
        // With more than 65,535 policies for one key, the script fails.
        self.0.put_u16_le(counters.try_into().unwrap_or(u16::MAX));
    }

    pub(super) fn counter(&mut self, limit: Limit, units: i64) {
        let (kind, a, b, c) = match limit.0 {
            Rule::Rate { interval, capacity, ceiling } => (1, interval, capacity, ceiling),
            Rule::Window { limit, length } => (2, limit, length, 0),
        };
        self.0.put_u8(kind);
        for number in [a as f64, b as f64, c as f64, units as f64] {
            self.0.put_f64_le(number);
        }
    }

    pub(super) fn into_args(self) -> Vec<Value> {
        vec![Bytes::from(self.0).into()]
    }
}

pub(super) fn parse(reply: &[u8], counters: usize) -> Option<(bool, Timestamp, Vec<Level>)> {
    let (numbers, []) = reply.as_chunks::<8>() else { return None };
    let &[admitted, at, ref rest @ ..] = numbers else { return None };
    let (admitted, at) = (whole(admitted)? == 1, Timestamp::from_micros(positive(at)?));
    let level = |&[wait, remaining, refilled]: &[[u8; 8]; 3]| {
        Some(Level {
            verdict: match whole(wait)? {
                0 => Verdict::Within,
                -1 => Verdict::Never,
                wait => Verdict::Wait(Duration::from_micros(wait.try_into().ok()?)),
            },
            remaining: positive(remaining)?,
            refilled: Duration::from_micros(positive(refilled)?),
        })
    };
    let (rest, []) = rest.as_chunks::<3>() else { return None };
    let levels = rest.iter().map(level).collect::<Option<Vec<_>>>()?;
    (levels.len() == counters).then_some((admitted, at, levels))
}

/// A whole number below 2⁵³, which is what the scripts calculate with.
#[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
fn whole(number: [u8; 8]) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number = f64::from_le_bytes(number);
    (number.abs() <= EXACT && number.fract() == 0.0).then_some(number as i64)
}

fn positive(number: [u8; 8]) -> Option<u64> {
    whole(number)?.try_into().ok()
}

/// Any value is an answer or none.
#[cfg(fuzzing)]
pub(super) fn fuzz(reply: &[u8]) {
    for counters in 1..4 {
        assert!(parse(reply, counters).is_none_or(|(_, _, levels)| levels.len() == counters));
    }
}
