//! What an aggregate is made of, once it has been checked; shared by all clones of the service.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    Parts,
    content::Json,
    part::{Forward, Source},
    path::Pattern,
    plan::Plan,
};
use crate::BoxError;

pub(super) struct Blueprint {
    pub(super) pattern: Pattern,
    pub(super) pieces: Vec<Piece>,
    pub(super) plan: Plan,
    pub(super) shape: Shape,
}

/// A part.
pub(super) struct Piece {
    pub(super) name: Arc<str>,
    /// The name as JSON.
    pub(super) key: String,
    pub(super) source: Arc<dyn Source>,
    pub(super) required: bool,
    /// What stands in if it fails.
    pub(super) fallback: Option<Json>,
    /// Whether another part depends on it.
    pub(super) wanted: bool,
    pub(super) timeout: Duration,
    /// In bytes.
    pub(super) max_size: usize,
    pub(super) forward: Forward,
}

/// The shape of the answer.
pub(super) enum Shape {
    /// `{"data":{…},"errors":{…}}`.
    Envelope,
    /// The parts alone.
    Flat,
    /// What the user makes of the parts: a JSON text.
    Combined(Combiner),
}

pub(super) type Combiner = Box<dyn Fn(&Parts<'_>) -> Result<Vec<u8>, BoxError> + Send + Sync>;

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Envelope => "Envelope",
            Self::Flat => "Flat",
            Self::Combined(_) => "Combined",
        })
    }
}
