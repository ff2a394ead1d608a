//! What can go wrong with a session.

use std::fmt;

use http::{HeaderValue, StatusCode, header};

use crate::{Problem, backend::BackendError};

/// Why a session could not be read or changed.
///
/// As the error of a handler it becomes a [`Problem`] of the status that it names.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SessionError {
    /// The store failed. Answered with 503; a change that fails after the handler has answered becomes a 500.
    Backend(BackendError),
    /// The resolver of foreign tokens failed. 503.
    Resolver(String),
    /// The session was ended meanwhile, as by a logout in another request. 401.
    Ended,
    /// All sessions of the user were revoked while a login was under way. 401.
    Revoked,
    /// Too many requests change the session at the same time; nothing was changed. 409.
    Conflict,
    /// The session is beyond its limits: 256 fields, 4 KiB a field, 16 KiB in all; or the user's name is longer than 256
    /// bytes. 500.
    TooLarge(&'static str),
    /// The data is not what the type expects, or is not a JSON object. 500.
    Data(String),
    /// Who asks is known by a foreign token, and what such a token says cannot be changed. 500.
    Foreign,
    /// The head of the response has gone out already. 500.
    TooLate,
    /// There is no `SessionLayer` around the handler. 500.
    NoLayer,
}

impl SessionError {
    /// The status that a client gets to see.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Backend(_) | Self::Resolver(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Ended | Self::Revoked => StatusCode::UNAUTHORIZED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge(_) | Self::Data(_) | Self::Foreign | Self::TooLate | Self::NoLayer => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }
}

impl From<BackendError> for SessionError {
    fn from(error: BackendError) -> Self {
        if error.kind() == crate::backend::ErrorKind::TooLarge {
            return Self::TooLarge("a session has at most 256 fields, 4 KiB a field and 16 KiB in all");
        }
        Self::Backend(error)
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(error) => write!(f, "the session store failed: {error}"),
            Self::Resolver(error) => write!(f, "the bearer token could not be resolved: {error}"),
            Self::Ended => f.write_str("the session has ended"),
            Self::Revoked => f.write_str("the sessions of the user were revoked while the login was under way"),
            Self::Conflict => f.write_str("the session is being changed by too many requests at once"),
            Self::TooLarge(what) => f.write_str(what),
            Self::Data(error) => write!(f, "the data of the session is not what the type expects: {error}"),
            Self::Foreign => f.write_str("what a foreign token says cannot be changed; keep data in a SharedMap"),
            Self::TooLate => f.write_str("the session cannot be changed after the head of the response has gone out"),
            Self::NoLayer => f.write_str(
                "there is no SessionLayer around this handler; add .layer(SessionLayer::new(&backend, keys))",
            ),
        }
    }
}

impl std::error::Error for SessionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Backend(error) => Some(error),
            _ => None,
        }
    }
}

impl From<SessionError> for Problem {
    /// Says what the client may know: of the store's failures, only that there was one.
    fn from(error: SessionError) -> Self {
        let status = error.status();
        match error {
            SessionError::Backend(_) => Self::new(status, "the session store is not available"),
            SessionError::Resolver(_) => Self::new(status, "the bearer token cannot be checked at present"),
            SessionError::Ended | SessionError::Revoked => {
                let challenge = HeaderValue::from_static(r#"Bearer error="invalid_token""#);
                Self::new(status, error.to_string()).header(header::WWW_AUTHENTICATE, challenge)
            }
            SessionError::Data(_) => Self::new(status, "the data of the session is not what the handler expects"),
            _ => Self::new(status, error.to_string()),
        }
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for SessionError {
    fn into_response(self) -> axum::response::Response {
        match &self {
            // The store says so itself, once.
            Self::Backend(error) if error.is_outage() => tracing::debug!(%error, "a session failed"),
            error if error.status().is_server_error() => tracing::warn!(%error, "a session failed"),
            _ => {}
        }
        Problem::from(self).into_response()
    }
}
