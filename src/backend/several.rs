//! Limits by several keys, where a store decides each by itself.

use futures_util::future;

use super::{Ask, BackendError, Change, ErrorKind, Level, Levels, LimitKey, Settle, Take, Taken};
use crate::Timestamp;

/// Whether one key admits, when, and the state of its counters.
pub(super) type Answer = Result<(bool, Timestamp, Vec<Level>), BackendError>;

/// A store as it is asked for one key.
pub(super) trait EachKey: Send + Sync + 'static {
    fn take(&self, take: Take<'_>) -> impl Future<Output = Answer> + Send;

    fn settle(&self, settle: Settle<'_>) -> impl Future<Output = Result<(), BackendError>> + Send;
}

/// Takes from several keys at the same time, and gives back where one has denied or failed. A denial stands, whoever
/// else cannot be asked; the levels of those are not known.
///
/// In a task of its own, so that what is to be given back is, also when the caller has gone.
pub(super) async fn take_several(store: impl EachKey, takes: &[Take<'_>]) -> Result<Taken, BackendError> {
    let takes: Vec<(LimitKey, Box<[Ask]>)> = takes.iter().map(|take| (take.key, take.asks.into())).collect();
    let task = tokio::spawn(async move {
        let each = takes.iter().map(|(key, asks)| store.take(Take { key: *key, asks }));
        let answers = future::join_all(each).await;
        let all_admitted = answers.iter().all(|answer| matches!(answer, Ok((true, ..))));
        let is_denied = answers.iter().any(|answer| matches!(answer, Ok((false, ..))));
        if !all_admitted {
            let give_back = async |((key, asks), answer): (&(LimitKey, Box<[Ask]>), &Answer)| {
                if let Ok((true, taken, _)) = answer {
                    let change = |ask: &Ask| Change { limit: ask.limit, units: -i64::from(ask.cost) };
                    let changes: Vec<_> = asks.iter().map(change).collect();
                    let settle = Settle { key: *key, taken: *taken, changes: &changes };
                    if let Err(error) = store.settle(settle).await {
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
        Ok(Taken { admitted: all_admitted, at: at.unwrap_or(Timestamp::EPOCH), levels })
    });
    task.await
        .unwrap_or_else(|error| Err(BackendError::with_source(ErrorKind::Unavailable, "the runtime stops", error)))
}
