//! Limits by several keys, where a store decides each by itself.

use std::sync::Arc;

use futures_util::future;

use super::{Ask, BackendError, Change, ErrorKind, Level, Levels, LimitKey, Settle, Take, Taken, denials::Denials};
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
/// A key that has denied a moment ago is asked first, and the others only if it does not deny again: of what they give
/// back, that is missing which was refilled meanwhile, and a client with nothing left would use up what is everybody's.
///
/// In a task of its own, so that what is to be given back is, also when the caller has gone.
pub(super) async fn take_several(
    store: impl EachKey,
    takes: &[Take<'_>],
    denials: Arc<Denials>,
) -> Result<Taken, BackendError> {
    let first = denials.prime_suspect(takes);
    let takes: Vec<Owned> = takes.iter().map(|take| Owned { key: take.key, asks: take.asks.into() }).collect();
    let task = tokio::spawn(async move {
        let answers = ask(&store, &takes, first, &denials).await;
        if !admit(&answers) {
            give_back(&store, &takes, &answers, &denials).await;
        }
        taken(&takes, answers)
    });
    task.await
        .unwrap_or_else(|error| Err(BackendError::with_source(ErrorKind::Unavailable, "the runtime stops", error)))
}

/// A [`Take`] that outlives its caller.
struct Owned {
    key: LimitKey,
    asks: Box<[Ask]>,
}

impl Owned {
    fn take(&self) -> Take<'_> {
        Take { key: self.key, asks: &self.asks }
    }
}

/// What the keys answer; `None` for those that were not asked because the first one denies.
async fn ask(store: &impl EachKey, takes: &[Owned], first: Option<usize>, denials: &Denials) -> Vec<Option<Answer>> {
    let ask = async |n: usize| {
        let answer = store.take(takes[n].take()).await;
        if let Ok((admitted, ..)) = answer {
            denials.suspect(&takes[n].take(), admitted);
        }
        (n, answer)
    };
    let mut answers: Vec<_> = takes.iter().map(|_| None).collect();
    if let Some(first) = first {
        answers[first] = Some(ask(first).await.1);
    }
    if !answers.iter().flatten().any(is_denial) {
        let others = (0..takes.len()).filter(|n| Some(*n) != first);
        for (n, answer) in future::join_all(others.map(ask)).await {
            answers[n] = Some(answer);
        }
    }
    answers
}

fn admit(answers: &[Option<Answer>]) -> bool {
    answers.iter().all(|answer| matches!(answer, Some(Ok((true, ..)))))
}

fn is_denial(answer: &Answer) -> bool {
    matches!(answer, Ok((false, ..)))
}

async fn give_back(store: &impl EachKey, takes: &[Owned], answers: &[Option<Answer>], denials: &Denials) {
    let give_back = async |(take, answer): (&Owned, &Option<Answer>)| {
        if let Some(Ok((true, taken, _))) = answer {
            let change = |ask: &Ask| Change { limit: ask.limit, units: -i64::from(ask.cost) };
            let changes: Vec<_> = take.asks.iter().map(change).collect();
            let settle = Settle { key: take.key, taken: *taken, changes: &changes };
            if let Err(error) = store.settle(settle).await {
                tracing::debug!(%error, "a limit could not be given back");
            }
            // Who was denied because of it may pass.
            denials.settling(&settle);
        }
    };
    future::join_all(takes.iter().zip(answers).map(give_back)).await;
}

/// What the answers amount to.
fn taken(takes: &[Owned], answers: Vec<Option<Answer>>) -> Result<Taken, BackendError> {
    let admitted = admit(&answers);
    let is_denied = answers.iter().flatten().any(is_denial);
    let (mut at, mut levels) = (None::<Timestamp>, Levels::default());
    for (Owned { asks, .. }, answer) in takes.iter().zip(answers) {
        let known = match answer {
            Some(Ok(known)) => Some(known),
            Some(Err(error)) if is_denied => {
                tracing::debug!(%error, "a limit could not be asked, and another one denies");
                None
            }
            Some(Err(error)) => return Err(error),
            None => None,
        };
        let Some((was_there, taken_at, mut known)) = known else {
            levels.extend(asks.iter().map(|_| None));
            continue;
        };
        if was_there && !admitted {
            known.iter_mut().zip(asks).for_each(|(level, ask)| ask.limit.give_back(level, ask.cost));
        }
        // What is corrected later counts as taken at the earliest: nothing is given back that was refilled.
        at = Some(at.map_or(taken_at, |at| at.min(taken_at)));
        levels.extend(known.into_iter().map(Some));
    }
    Ok(Taken { admitted, at: at.unwrap_or(Timestamp::EPOCH), levels })
}
