//! Limits: one script per take; where keys lie in several buckets, one for each and what is needed to give back.

use std::time::{Duration, Instant};

use fred::types::Value;
use futures_util::future;

use super::{RedisBackend, client::Client, keys::Bucket, reply::Reply, script::Script};
use crate::{
    Timestamp,
    backend::{
        Ask, BackendError, Change, ErrorKind, Level, Limit, LimitKey, Limits, Settle, Take, Taken, Verdict,
        limits::Rule,
    },
};

static LIMIT: Script = Script::new("limit", include_str!("lua/limit.lua"));

impl Limits for RedisBackend {
    async fn take(&self, takes: &[Take<'_>]) -> Result<Taken, BackendError> {
        if let Some(denied) = self.recall(takes) {
            return Ok(denied);
        }
        let bucket = |take: &Take<'_>| bucket_of(&self.client, &take.key);
        let Some(first) = takes.first().map(bucket) else {
            return Ok(Taken { admitted: true, at: self.client.now(), levels: Vec::new() });
        };
        if takes.iter().all(|take| bucket(take) == first) {
            let asked = Instant::now();
            let (admitted, at, levels) = take_in(&self.client, first, takes).await?;
            if !admitted {
                self.remember(takes, &levels, at, asked);
            }
            return Ok(Taken { admitted, at, levels: levels.into_iter().map(Some).collect() });
        }
        take_apart(&self.client, takes).await
    }

    fn take_now(&self, takes: &[Take<'_>]) -> Option<Taken> {
        self.recall(takes)
    }

    async fn settle(&self, settle: Settle<'_>) -> Result<(), BackendError> {
        if settle.changes.iter().any(|change| change.units < 0) {
            self.denials.forget(&settle.key);
        }
        settle_in(&self.client, settle).await
    }
}

impl RedisBackend {
    /// What is known to be denied, without a round trip.
    fn recall(&self, takes: &[Take<'_>]) -> Option<Taken> {
        let denied = takes.iter().enumerate().find_map(|(i, take)| Some((i, self.denials.recall(take)?)));
        let (denied, (recalled, at)) = denied?;
        let mut levels = Vec::with_capacity(takes.iter().map(|take| take.asks.len()).sum());
        for (i, take) in takes.iter().enumerate() {
            if i == denied {
                levels.extend(recalled.iter().copied().map(Some));
            } else {
                levels.extend(take.asks.iter().map(|_| None));
            }
        }
        Some(Taken { admitted: false, at, levels })
    }

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

fn name(client: &Client, key: &LimitKey) -> Value {
    client.keys().key(bucket_of(client, key), "n", &[key.to_string().as_bytes()]).into()
}

/// Takes in one step. All keys lie in the bucket.
async fn take_in(
    client: &Client,
    bucket: Bucket,
    takes: &[Take<'_>],
) -> Result<(bool, Timestamp, Vec<Level>), BackendError> {
    let keys = takes.iter().map(|take| name(client, &take.key)).collect();
    let mut args = vec!["take".into(), 0.into(), "".into()];
    for take in takes {
        args.push(integer(take.asks.len() as u64));
        take.asks.iter().for_each(|ask| push_counter(&mut args, ask.limit, ask.cost.into()));
    }
    let asked = Instant::now();
    let reply = client.eval(&LIMIT, bucket, keys, args, client.limit_timeout()).await?;
    let reply = reply.into_array().unwrap_or_default();
    let counters = takes.iter().map(|take| take.asks.len()).sum::<usize>();
    let (admitted, at, levels) = parse(&reply, counters).ok_or_else(|| Reply::unexpected(LIMIT.name()))?;
    client.learn_time(at, asked);
    Ok((admitted, at, levels))
}

/// Takes from several buckets at the same time, and gives back where one has denied or failed.
///
/// In a task of its own, so that what is to be given back is, also when the caller has gone.
async fn take_apart(client: &Client, takes: &[Take<'_>]) -> Result<Taken, BackendError> {
    let client = client.clone();
    let takes: Vec<(LimitKey, Box<[Ask]>)> = takes.iter().map(|take| (take.key, take.asks.into())).collect();
    let task = tokio::spawn(async move {
        let take_one = async |(key, asks): &(LimitKey, Box<[Ask]>)| {
            take_in(&client, bucket_of(&client, key), &[Take { key: *key, asks }]).await
        };
        let answers = future::join_all(takes.iter().map(take_one)).await;
        let all_admitted = answers.iter().all(|answer| matches!(answer, Ok((true, ..))));
        if !all_admitted {
            let give_back = async |((key, asks), answer): (&(LimitKey, Box<[Ask]>), &Result<_, _>)| {
                if let Ok((true, taken, _)) = answer {
                    let change = |ask: &Ask| Change { limit: ask.limit, units: -i64::from(ask.cost) };
                    let changes: Vec<_> = asks.iter().map(change).collect();
                    let settle = Settle { key: *key, taken: *taken, changes: &changes };
                    if let Err(error) = settle_in(&client, settle).await {
                        tracing::debug!(%error, "a limit could not be given back");
                    }
                }
            };
            future::join_all(takes.iter().zip(&answers).map(give_back)).await;
        }
        let (mut at, mut levels) = (Timestamp::EPOCH, Vec::new());
        for ((_, asks), answer) in takes.iter().zip(answers) {
            let (admitted, taken_at, mut known) = answer?;
            if admitted && !all_admitted {
                known.iter_mut().zip(asks).for_each(|(level, ask)| level.remaining += u64::from(ask.cost));
            }
            // What is corrected later counts as taken at the earliest: nothing is given back that was refilled.
            at = if at == Timestamp::EPOCH { taken_at } else { at.min(taken_at) };
            levels.extend(known.into_iter().map(Some));
        }
        Ok(Taken { admitted: all_admitted, at, levels })
    });
    task.await
        .unwrap_or_else(|error| Err(BackendError::with_source(ErrorKind::Unavailable, "the runtime stops", error)))
}

async fn settle_in(client: &Client, settle: Settle<'_>) -> Result<(), BackendError> {
    let mut args = vec!["settle".into(), integer(settle.taken.as_micros()), "".into()];
    args.push(integer(settle.changes.len() as u64));
    settle.changes.iter().for_each(|change| push_counter(&mut args, change.limit, change.units));
    let keys = vec![name(client, &settle.key)];
    let bucket = bucket_of(client, &settle.key);
    client.eval(&LIMIT, bucket, keys, args, client.limit_timeout()).await.map(drop)
}

fn push_counter(args: &mut Vec<Value>, limit: Limit, units: i64) {
    let (kind, a, b, c) = match limit.0 {
        Rule::Rate { interval, capacity, ceiling } => ("r", interval, capacity, ceiling),
        Rule::Window { limit, length } => ("w", limit, length, 0),
    };
    args.extend([kind.into(), integer(a), integer(b), integer(c), units.into()]);
}

fn integer(n: u64) -> Value {
    Value::Integer(i64::try_from(n).unwrap_or(i64::MAX))
}

fn parse(reply: &[Reply], counters: usize) -> Option<(bool, Timestamp, Vec<Level>)> {
    let [admitted, at, rest @ ..] = reply else { return None };
    let (admitted, at) = (admitted.as_int()? == 1, Timestamp::from_micros(at.as_u64()?));
    let level = |counter: &[Reply]| {
        Some(Level {
            verdict: match counter[0].as_int()? {
                0 => Verdict::Within,
                -1 => Verdict::Never,
                wait => Verdict::Wait(Duration::from_micros(wait.try_into().ok()?)),
            },
            remaining: counter[1].as_u64()?,
            refilled: Duration::from_micros(counter[2].as_u64()?),
        })
    };
    let levels = rest.chunks_exact(3).map(level).collect::<Option<Vec<_>>>()?;
    (levels.len() == counters).then_some((admitted, at, levels))
}

/// Any array is an answer or none.
#[cfg(fuzzing)]
pub(super) fn fuzz(reply: &[Reply]) {
    for counters in 1..4 {
        assert!(parse(reply, counters).is_none_or(|(_, _, levels)| levels.len() == counters));
    }
}
