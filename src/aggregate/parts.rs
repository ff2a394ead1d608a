use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::PartError;
use crate::BoxError;

/// The parts of an answer, for a combiner of one's own
/// ([`AggregateBuilder::combine`](super::AggregateBuilder::combine)).
pub struct Parts<'a> {
    pub(super) parts: Vec<PartOf<'a>>,
}

/// One part of an answer.
pub(super) struct PartOf<'a> {
    pub(super) name: &'a str,
    /// The name as JSON.
    pub(super) key: &'a str,
    pub(super) content: Option<&'a RawValue>,
    pub(super) error: Option<PartError>,
}

impl<'a> Parts<'a> {
    /// The names of the parts, in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|part| part.name)
    }

    /// The JSON text of a part, as it was answered or as its default; `None` if it failed without a default, or is not
    /// there at all.
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.part(name)?.content
    }

    /// The JSON of a part, in a type of one's own. A part that failed without a default reads as `null`, so for an
    /// optional part take an `Option`.
    ///
    /// # Errors
    /// There is no such part; its JSON is not of that type.
    pub fn parse<T: Deserialize<'a>>(&self, name: &str) -> Result<T, BoxError> {
        let part = self.part(name).ok_or_else(|| format!("there is no part named `{name}`"))?;
        serde_json::from_str(part.content.map_or("null", RawValue::get))
            .map_err(|error| format!("the part `{name}` is not what the combiner expects: {error}").into())
    }

    /// What is wrong with a part: it failed, or it is stale.
    pub fn error(&self, name: &str) -> Option<&PartError> {
        self.part(name)?.error.as_ref()
    }

    /// Whether no part failed.
    pub fn is_complete(&self) -> bool {
        self.parts.iter().all(|part| part.error.as_ref().is_none_or(PartError::is_stale))
    }

    fn part(&self, name: &str) -> Option<&PartOf<'a>> {
        self.parts.iter().find(|part| part.name == name)
    }
}

/// Shows the names and what is wrong, not the content.
impl fmt::Debug for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.parts.iter().map(|part| (part.name, &part.error))).finish()
    }
}
