use std::{borrow::Cow, fmt};

/// A mistake in how an [`Aggregate`](super::Aggregate) is put together, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateError(Cow<'static, str>);

impl AggregateError {
    pub(super) fn new(sentence: impl Into<Cow<'static, str>>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for AggregateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AggregateError {}
