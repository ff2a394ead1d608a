//! One opaque error for all that can go wrong in a store.

use std::{error::Error as StdError, fmt, sync::Arc};

/// An operation on a [`Backend`](super::Backend) failed; says which kind of failure it is, one sentence, and the source.
///
/// Cheap to clone, so that one failure can be told to everybody who waited for it.
#[derive(Clone)]
pub struct BackendError(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store cannot be reached, or was not asked because it could not be reached a moment ago.
    Unavailable,
    /// The store did not answer in time. A write may or may not have happened.
    Timeout,
    /// The store has no room.
    Full,
    /// It is done, but fewer replicas than wanted have acknowledged it: a failover might undo it.
    Unreplicated,
    /// The store takes no writes at present (a replica after a failover).
    ReadOnly,
    /// The store refuses the user, the password or a command.
    Denied,
    /// What was asked for is beyond a limit of the contract.
    TooLarge,
    /// The settings are wrong: the address, the version of the server.
    Config,
    /// The store answered with something unexpected.
    Protocol,
}

impl ErrorKind {
    /// A short name, for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Full => "full",
            Self::Unreplicated => "unreplicated",
            Self::ReadOnly => "read-only",
            Self::Denied => "denied",
            Self::TooLarge => "too-large",
            Self::Config => "config",
            Self::Protocol => "protocol",
        }
    }
}

impl BackendError {
    /// An error of this kind with one sentence about it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), source: None }))
    }

    /// An error of this kind with what caused it.
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), source: Some(source.into()) }))
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the store is out of reach, so that asking again at once is of no use.
    pub fn is_outage(&self) -> bool {
        matches!(self.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
    }
}

impl fmt::Debug for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendError")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for BackendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// An invalidation did not reach every part of the store. Until it is repeated, what was not reached may still be
/// served; repeating is harmless.
#[derive(Clone, Debug)]
pub struct InvalidateError {
    unreached: Vec<(String, BackendError)>,
}

impl InvalidateError {
    /// The parts (buckets, nodes) that were not reached, each with the reason; at least one.
    ///
    /// # Panics
    /// If `unreached` is empty.
    pub fn new(unreached: Vec<(String, BackendError)>) -> Self {
        assert!(!unreached.is_empty(), "an invalidation that reached everything has not failed");
        Self { unreached }
    }

    /// What was not reached, and why.
    pub fn unreached(&self) -> impl ExactSizeIterator<Item = (&str, &BackendError)> {
        self.unreached.iter().map(|(part, error)| (part.as_str(), error))
    }
}

impl From<BackendError> for InvalidateError {
    fn from(error: BackendError) -> Self {
        Self::new(vec![("the store".to_owned(), error)])
    }
}

impl fmt::Display for InvalidateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (part, error) = &self.unreached[0];
        write!(f, "the invalidation did not reach {part}")?;
        if let more @ 1.. = self.unreached.len() - 1 {
            write!(f, " and {more} more")?;
        }
        write!(f, " ({error}); repeat it")
    }
}

impl StdError for InvalidateError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.unreached[0].1)
    }
}
