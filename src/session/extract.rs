//! Extractors for axum.

use axum::{extract::FromRequestParts, http::request::Parts};

use super::{Session, SessionError};

impl<S: Sync, T: 'static> FromRequestParts<S> for Session<T> {
    type Rejection = SessionError;

    /// Costs nothing: the session is loaded when it is asked for.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, SessionError> {
        Ok(Session::from_extensions(&parts.extensions)?.view())
    }
}
