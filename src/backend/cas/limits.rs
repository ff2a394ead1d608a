//! The contract [`Limits`]: one value for each key.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future;

use super::{
    CasBackend, CasStore, Inner, Step,
    codec::{Reader, Writer},
};
use crate::{
    Timestamp,
    backend::{Ask, BackendError, Change, ErrorKind, Level, Levels, LimitKey, Limits, Meter, Settle, Take, Taken},
};

impl<S: CasStore> Limits for CasBackend<S> {
    async fn take(&self, takes: &[Take<'_>]) -> Result<Taken, BackendError> {
        if let Some(denied) = self.0.denials.recall_any(takes) {
            return Ok(denied);
        }
        match takes {
            [take] => {
                let asked = Instant::now();
                let (admitted, at, levels) = self.0.timed(self.0.take_one(take)).await?;
                if !admitted {
                    self.0.denials.remember(take, &levels, at, asked);
                }
                Ok(Taken { admitted, at, levels: levels.into_iter().map(Some).collect() })
            }
            _ => take_several(&self.0, takes).await,
        }
    }

    fn take_now(&self, takes: &[Take<'_>]) -> Option<Taken> {
        self.0.denials.recall_any(takes)
    }

    async fn settle(&self, settle: Settle<'_>) -> Result<(), BackendError> {
        self.0.denials.settling(&settle);
        self.0.timed(self.0.settle(settle)).await
    }
}

impl<S: CasStore> Inner<S> {
    async fn take_one(&self, take: &Take<'_>) -> Answer {
        self.change(&self.names.limit(&take.key), |value| {
            let before = meter(value, take.asks.len());
            let at = in_step(self.now(), &before);
            let mut meter = before.clone();
            let admitted = meter.would_admit(take.asks, at);
            if admitted {
                meter.take(take.asks, at);
            } else {
                meter.heal(take.asks.iter().map(|ask| ask.limit), at);
            }
            let then = (admitted, at, meter.report(take.asks, at, admitted).collect());
            Ok(if meter == before { Step::Keep(then) } else { set(&meter, take.asks, at, then) })
        })
        .await
    }

    async fn settle(&self, settle: Settle<'_>) -> Result<(), BackendError> {
        let asks: Vec<_> = settle.changes.iter().map(|change| Ask { limit: change.limit, cost: 0 }).collect();
        self.change(&self.names.limit(&settle.key), |value| {
            let before = meter(value, asks.len());
            let now = in_step(self.now(), &before);
            let mut meter = before.clone();
            meter.settle(settle.changes, settle.taken, now);
            Ok(if meter == before { Step::Keep(()) } else { set(&meter, &asks, now, ()) })
        })
        .await
    }
}

/// Whether it was admitted, when, and the state of the counters.
type Answer = Result<(bool, Timestamp, Vec<Level>), BackendError>;

/// Takes from several keys, and gives back where one has denied or failed. A denial stands, whoever else cannot be
/// asked; the levels of those are not known.
///
/// In a task of its own, so that what is to be given back is, also when the caller has gone.
async fn take_several<S: CasStore>(inner: &Arc<Inner<S>>, takes: &[Take<'_>]) -> Result<Taken, BackendError> {
    let inner = Arc::clone(inner);
    let takes: Vec<(LimitKey, Box<[Ask]>)> = takes.iter().map(|take| (take.key, take.asks.into())).collect();
    let task = tokio::spawn(async move {
        let each = takes.iter().map(async |(key, asks)| inner.timed(inner.take_one(&Take { key: *key, asks })).await);
        let answers = future::join_all(each).await;
        let all_admitted = answers.iter().all(|answer| matches!(answer, Ok((true, ..))));
        let is_denied = answers.iter().any(|answer| matches!(answer, Ok((false, ..))));
        if !all_admitted {
            let give_back = async |((key, asks), answer): (&(LimitKey, Box<[Ask]>), &Answer)| {
                if let Ok((true, taken, _)) = answer {
                    let change = |ask: &Ask| Change { limit: ask.limit, units: -i64::from(ask.cost) };
                    let changes: Vec<_> = asks.iter().map(change).collect();
                    let settle = Settle { key: *key, taken: *taken, changes: &changes };
                    if let Err(error) = inner.timed(inner.settle(settle)).await {
                        tracing::debug!(%error, "a limit could not be given back");
                    }
                }
            };
            future::join_all(takes.iter().zip(&answers).map(give_back)).await;
        }
        let (mut at, mut levels) = (None::<Timestamp>, Levels::default());
        for ((_, asks), answer) in takes.iter().zip(answers) {
            let (admitted, taken_at, mut known) = match answer {
                Ok(answer) => answer,
                Err(error) if is_denied => {
                    tracing::debug!(%error, "a limit could not be asked, and another one denies");
                    levels.extend(asks.iter().map(|_| None));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if admitted && !all_admitted {
                known.iter_mut().zip(asks).for_each(|(level, ask)| level.remaining += u64::from(ask.cost));
            }
            // What is corrected later counts as taken at the earliest: nothing is given back that was refilled.
            at = Some(at.map_or(taken_at, |at| at.min(taken_at)));
            levels.extend(known.into_iter().map(Some));
        }
        Ok(Taken { admitted: all_admitted, at: at.unwrap_or_else(|| inner.now()), levels })
    });
    task.await
        .unwrap_or_else(|error| Err(BackendError::with_source(ErrorKind::Unavailable, "the runtime stops", error)))
}

/// The counters of a key; such of another number begin anew.
fn meter(value: Option<&Bytes>, counters: usize) -> Meter {
    let decode = |value: &Bytes| {
        let mut reader = Reader::new(value)?;
        Some(Meter::from_parts(reader.time()?, &reader.many(Reader::u64)?))
    };
    value.and_then(decode).filter(|meter| meter.fits(counters)).unwrap_or_else(|| Meter::new(counters))
}

/// Clocks that are kept in step differ by no more.
const STEP: Duration = Duration::from_secs(1);

/// The time for who is a little behind the one who has counted last: no time has passed. Else processes that count in
/// turns would refill what they differ by, each time again. Who is further behind has a clock that was set back.
fn in_step(now: Timestamp, meter: &Meter) -> Timestamp {
    let (last, _) = meter.parts();
    if last.since(now) <= STEP { now.max(last) } else { now }
}

/// Kept until all is refilled, and a second longer for clocks that differ.
fn set<T>(meter: &Meter, asks: &[Ask], now: Timestamp, then: T) -> Step<T> {
    let (at, levels) = meter.parts();
    let mut writer = Writer::new();
    writer.time(at);
    writer.u64(levels.len() as u64);
    for level in levels {
        writer.u64(*level);
    }
    let ends = meter.idle_at(asks.iter().map(|ask| ask.limit), now);
    Step::Set(writer.finish(), Some(ends.since(now) + Duration::from_secs(1)), then)
}
