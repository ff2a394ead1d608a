use std::{fmt, sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::Value;

use super::{
    Aggregate, AggregateError, Part, Parts,
    blueprint::{Blueprint, Piece, Shape},
    content::Json,
    part::Need,
    path::Pattern,
    plan::Plan,
};
use crate::BoxError;

/// Puts an [`Aggregate`] together; made by [`Aggregate::at`].
#[must_use]
pub struct AggregateBuilder {
    pattern: Pattern,
    parts: Vec<(Arc<str>, Part)>,
    shape: Shape,
    timeout: Duration,
    max_parts: usize,
    max_part_size: usize,
}

impl AggregateBuilder {
    pub(super) fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            parts: Vec::new(),
            shape: Shape::Envelope,
            timeout: Aggregate::DEFAULT_TIMEOUT,
            max_parts: Aggregate::DEFAULT_MAX_PARTS,
            max_part_size: Aggregate::DEFAULT_MAX_PART_SIZE,
        }
    }

    /// Adds a part. Its name is its key in the answer.
    pub fn part(mut self, name: &str, part: Part) -> Self {
        self.parts.push((name.into(), part));
        self
    }

    /// Answers with the parts alone, `{"user":{…},"orders":[…]}`. Which of them failed is then not told; that some did
    /// is still in `x-aggregate-complete`.
    pub fn flat(mut self) -> Self {
        self.shape = Shape::Flat;
        self
    }

    /// Answers with what `combine` makes of the parts, as JSON. If it fails, the answer is 500, and the reason is
    /// logged as an error.
    pub fn combine<T, F>(mut self, combine: F) -> Self
    where
        T: Serialize,
        F: Fn(&Parts<'_>) -> Result<T, BoxError> + Send + Sync + 'static,
    {
        self.shape = Shape::Combined(Box::new(move |parts| Ok(serde_json::to_vec(&combine(parts)?)?)));
        self
    }

    /// How long each part may take that does not say otherwise ([`Part::timeout`]). The default is 5 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many parts there may be. The default is 32.
    ///
    /// All parts of an answer are in memory together: at most this many times
    /// [`max_part_size`](Self::max_part_size), and the same again for the answer.
    pub fn max_parts(mut self, parts: usize) -> Self {
        self.max_parts = parts;
        self
    }

    /// How long the content of each part may be that does not say otherwise ([`Part::max_size`]), in bytes. The default
    /// is 1 MiB. A part with more fails with [`PartErrorKind::TooLarge`](super::PartErrorKind::TooLarge).
    ///
    /// A part that another one depends on is also parsed, which takes many times its length: about a hundred times if
    /// it consists of small objects.
    pub fn max_part_size(mut self, bytes: usize) -> Self {
        self.max_part_size = bytes;
        self
    }

    /// Checks it, and makes the service.
    ///
    /// # Errors
    /// There is no part, or more than [`max_parts`](Self::max_parts); two have the same name; one depends on a part
    /// that is not there; some depend on each other in a circle.
    pub fn build(self) -> Result<Aggregate, AggregateError> {
        if self.parts.is_empty() {
            return Err(AggregateError::new("an aggregate needs at least one part"));
        }
        if self.parts.len() > self.max_parts {
            return Err(AggregateError::new(format!(
                "the aggregate has {} parts, but may have {} (see `max_parts`)",
                self.parts.len(),
                self.max_parts
            )));
        }
        let names: Vec<_> = self.parts.iter().map(|(name, part)| (&**name, part.needs())).collect();
        let plan = Plan::new(&names)?;
        let mut pieces = Vec::with_capacity(self.parts.len());
        for (index, (name, part)) in self.parts.into_iter().enumerate() {
            let wanted = !plan.wanted_by[index].is_empty();
            let (required, fallback) = match part.need {
                Need::Required => (true, None),
                Need::Optional => (false, None),
                Need::Default(value) => (false, Some(default_of(&name, &value, wanted)?)),
            };
            pieces.push(Piece {
                key: Value::from(&*name).to_string(),
                name,
                source: part.source,
                required,
                fallback,
                wanted,
                timeout: part.timeout.unwrap_or(self.timeout),
                max_size: part.max_size.unwrap_or(self.max_part_size),
                forward: part.forward,
            });
        }
        Ok(Aggregate::new(Blueprint { pattern: self.pattern, pieces, plan, shape: self.shape }))
    }
}

fn default_of(name: &str, value: &Value, wanted: bool) -> Result<Json, AggregateError> {
    Json::new(value.to_string(), wanted)
        .map_err(|error| AggregateError::new(format!("the default of the part `{name}` is not usable: {error}")))
}

impl fmt::Debug for AggregateBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AggregateBuilder")
            .field("pattern", &self.pattern)
            .field("parts", &self.parts)
            .field("shape", &self.shape)
            .field("timeout", &self.timeout)
            .field("max_parts", &self.max_parts)
            .field("max_part_size", &self.max_part_size)
            .finish()
    }
}
