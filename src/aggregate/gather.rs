//! The fan-out: asks each part as soon as those that it depends on are there.

use std::panic::AssertUnwindSafe;

use futures_util::{
    FutureExt as _,
    stream::{FuturesUnordered, StreamExt},
};
use tokio::time::Instant;

use super::{
    PartContext,
    blueprint::{Blueprint, Piece},
    caching::Caching,
    content::Json,
    context::{Head, Input},
    failure::Failure,
    part::{Answer, Asked},
};
use crate::Timestamp;

/// What came of a part.
pub(super) enum Outcome {
    Answered(Box<Answered>),
    Failed(Failure),
}

/// A part that is there.
pub(super) struct Answered {
    pub(super) json: Json,
    pub(super) status: http::StatusCode,
    /// When its head arrived: its age goes on from there.
    pub(super) received: Instant,
    pub(super) caching: Caching,
}

/// The outcomes in the order of the parts; or that of the required part that failed first, by its index. The others are
/// dropped with this future.
pub(super) async fn gather(blueprint: &Blueprint, head: &Head) -> Result<Vec<Outcome>, (usize, Failure)> {
    let mut outcomes: Vec<Option<Outcome>> = blueprint.pieces.iter().map(|_| None).collect();
    let mut waits = blueprint.plan.waits();
    let mut running = FuturesUnordered::new();
    for index in (0..waits.len()).filter(|&index| waits[index] == 0) {
        running.push(ask(index, &blueprint.pieces[index], head, Vec::new()));
    }
    while let Some((index, outcome)) = running.next().await {
        let mut settled = vec![(index, outcome)];
        while let Some((index, outcome)) = settled.pop() {
            if let (Outcome::Failed(failure), true) = (&outcome, blueprint.pieces[index].required) {
                return Err((index, failure.clone()));
            }
            outcomes[index] = Some(outcome);
            for &next in &blueprint.plan.wanted_by[index] {
                waits[next] -= 1;
                if waits[next] > 0 {
                    continue;
                }
                match inputs(blueprint, next, &outcomes) {
                    Ok(inputs) => running.push(ask(next, &blueprint.pieces[next], head, inputs)),
                    Err(failure) => settled.push((next, Outcome::Failed(failure))),
                }
            }
        }
    }
    // The plan has no cycle, so that each part has had its turn.
    Ok(outcomes.into_iter().flatten().collect())
}

/// The JSON of what a part depends on.
fn inputs(blueprint: &Blueprint, index: usize, outcomes: &[Option<Outcome>]) -> Result<Vec<Input>, Failure> {
    let mut inputs = Vec::new();
    for &needed in &blueprint.plan.needs[index] {
        let piece = &blueprint.pieces[needed];
        let (json, for_one) = match (&outcomes[needed], &piece.fallback) {
            (Some(Outcome::Answered(answered)), _) => {
                (&answered.json, answered.caching.personal || answered.caching.private)
            }
            (Some(Outcome::Failed(_)), Some(fallback)) => (fallback, false),
            (Some(Outcome::Failed(failure)), None) => return Err(failure.of_dependency()),
            (None, _) => continue,
        };
        inputs.extend(json.value.clone().map(|value| Input { name: piece.name.clone(), value, for_one }));
    }
    Ok(inputs)
}

async fn ask(index: usize, piece: &Piece, head: &Head, inputs: Vec<Input>) -> (usize, Outcome) {
    // A part that panics has failed, as one does that cannot be reached; the others go on.
    let asked = AssertUnwindSafe(ask_in_time(piece, head, inputs)).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(part = &*piece.name, "a part of an aggregate panicked");
        Err(Failure::unreachable(&"it panicked".into()))
    });
    let outcome = match asked {
        Ok(answered) => Outcome::Answered(Box::new(answered)),
        Err(failure) => {
            tracing::debug!(part = &*piece.name, kind = %failure.kind(), "a part of an aggregate failed");
            Outcome::Failed(failure)
        }
    };
    (index, outcome)
}

async fn ask_in_time(piece: &Piece, head: &Head, inputs: Vec<Input>) -> Result<Answered, Failure> {
    let requested = Timestamp::system();
    let context = PartContext::new(&piece.name, head, &inputs);
    let Asked { used, personal, answer } =
        piece.source.ask(context, &piece.forward, piece.max_size).map_err(|error| {
            tracing::error!(part = &*piece.name, error = &*error, "the request of a part could not be made");
            Failure::request()
        })?;
    let Answer { head, received, received_at, content } =
        tokio::time::timeout(piece.timeout, answer).await.map_err(|_| Failure::timeout())??;
    let json = if matches!(head.status.as_u16(), 204 | 205) {
        Json::null(piece.wanted)
    } else {
        let text = String::from_utf8(content).map_err(|_| Failure::not_json())?;
        Json::new(text, piece.wanted).map_err(|_| Failure::not_json())?
    };
    let mut caching = Caching::new(&head, &used, requested, received_at);
    // The handler need not have had a layer that says so in the answer.
    caching.personal |= personal.is_marked();
    caching.credential |= personal.is_credential();
    Ok(Answered { json, status: head.status, received, caching })
}
