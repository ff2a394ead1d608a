//! What can go wrong with a shared map.

use std::fmt;

use http::StatusCode;

use crate::{
    Problem,
    backend::{BackendError, ErrorKind, MapChanged},
    session::SessionError,
};

/// Why a shared map could not be read or changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum MapError {
    /// The map has this version, not the expected one; nothing was changed. 409.
    Conflict {
        /// The version.
        version: u64,
    },
    /// The sum is out of the range; nothing was changed. 409.
    OutOfRange {
        /// The value as it is.
        value: i64,
    },
    /// The map is being changed by too many at once; nothing was changed. 409.
    Busy,
    /// The map would have more than 1,000 fields, or a field more than 4 KiB; nothing was changed. 413.
    TooLarge,
    /// The map holds something else than the type says. 500.
    Data,
    /// The session could not be read. As [`SessionError::status`] says.
    Session(SessionError),
    /// The store failed. 503.
    Backend(BackendError),
}

impl MapError {
    /// The status that a client gets to see.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Conflict { .. } | Self::OutOfRange { .. } | Self::Busy => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Data => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Session(error) => error.status(),
            Self::Backend(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub(super) fn of(changed: &MapChanged) -> Self {
        match changed {
            MapChanged::Conflict { version } => Self::Conflict { version: *version },
            MapChanged::OutOfRange { value } => Self::OutOfRange { value: *value },
            // An id that was used for another operation gets that one's result.
            _ => Self::Data,
        }
    }
}

impl From<SessionError> for MapError {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl From<BackendError> for MapError {
    fn from(error: BackendError) -> Self {
        if error.kind() == ErrorKind::TooLarge { Self::TooLarge } else { Self::Backend(error) }
    }
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { version } => write!(f, "the map was changed meanwhile; its version is {version}"),
            Self::OutOfRange { value } => write!(f, "the value is {value}, and would leave its range"),
            Self::Busy => f.write_str("the map is being changed by too many at once"),
            Self::TooLarge => f.write_str("a shared map has at most 1,000 fields of at most 4 KiB"),
            Self::Data => f.write_str("the map holds something else than its type says"),
            Self::Session(error) => error.fmt(f),
            Self::Backend(error) => write!(f, "the store of shared maps failed: {error}"),
        }
    }
}

impl std::error::Error for MapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Session(error) => Some(error),
            Self::Backend(error) => Some(error),
            _ => None,
        }
    }
}

impl From<MapError> for Problem {
    fn from(error: MapError) -> Self {
        match error {
            MapError::Session(error) => error.into(),
            MapError::Backend(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "the shared data is not available"),
            error => Self::new(error.status(), error.to_string()),
        }
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for MapError {
    fn into_response(self) -> axum::response::Response {
        match &self {
            // The store says so itself, once.
            Self::Backend(error) if error.is_outage() => tracing::debug!(%error, "a shared map failed"),
            error if error.status().is_server_error() => tracing::warn!(%error, "a shared map failed"),
            _ => {}
        }
        Problem::from(self).into_response()
    }
}
