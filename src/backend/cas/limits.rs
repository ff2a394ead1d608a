//! The contract [`Limits`]: one value for each key.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    CasBackend, CasStore, Inner, Step,
    codec::{Reader, Writer},
};
use crate::{
    Timestamp,
    backend::{
        Ask, BackendError, Levels, Limits, Meter, Settle, Take, Taken,
        several::{Answer, EachKey, take_several},
    },
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
            [] => Ok(Taken { admitted: true, at: self.0.now(), levels: Levels::default() }),
            _ => take_several(Arc::clone(&self.0), takes, Arc::clone(&self.0.denials)).await,
        }
    }

    fn take_now(&self, takes: &[Take<'_>]) -> Option<Taken> {
        self.0.denials.recall_any(takes)
    }

    async fn settle(&self, settle: Settle<'_>) -> Result<(), BackendError> {
        self.0.denials.settling(&settle);
        let settled = self.0.timed(self.0.settle(settle)).await;
        // What was denied meanwhile.
        self.0.denials.settling(&settle);
        settled
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

impl<S: CasStore> EachKey for Arc<Inner<S>> {
    async fn take(&self, take: Take<'_>) -> Answer {
        self.timed(self.take_one(&take)).await
    }

    async fn settle(&self, settle: Settle<'_>) -> Result<(), BackendError> {
        self.timed(Inner::settle(self, settle)).await
    }
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
