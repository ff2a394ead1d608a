//! Which layers stand between the ingress and the origins.

use std::str::FromStr;

use http::{Request, Response};
use tower::util::BoxCloneService;

use crate::{
    Body,
    upstream::{Upstream, UpstreamError},
};

/// The service within: all layers that were asked for, around the origins.
///
/// Its errors are the origins'; cache layers see them, and may answer with what they have.
pub(crate) type Stack = BoxCloneService<Request<Body>, Response<Body>, UpstreamError>;

/// A layer that `--layers` can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    Limit,
    Session,
    Tags,
    Swr,
    Cache,
    Coalesce,
}

impl Layer {
    /// Outermost first.
    const ALL: [(&str, Self); 6] = [
        ("limit", Self::Limit),
        ("session", Self::Session),
        ("tags", Self::Tags),
        ("swr", Self::Swr),
        ("cache", Self::Cache),
        ("coalesce", Self::Coalesce),
    ];

    /// Those of this version, without `--layers`.
    pub(crate) const DEFAULT: [Self; 0] = [];

    pub(crate) fn names() -> String {
        Self::ALL.map(|(name, _)| name).join(", ")
    }
}

impl FromStr for Layer {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, layer)| *layer).ok_or(())
    }
}

/// Builds the stack.
pub(crate) fn stack(upstream: Upstream) -> Stack {
    BoxCloneService::new(upstream)
}
