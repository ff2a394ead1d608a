//! Extractors for axum.

use axum::{extract::FromRequestParts, http::request::Parts};

use serde::de::DeserializeOwned;

use super::{Authenticated, Claims, ClaimsError, Session, SessionError, SharedData, SharedMap};
use crate::Problem;

impl<S: Sync, T: 'static> FromRequestParts<S> for Session<T> {
    type Rejection = SessionError;

    /// Costs nothing: the session is loaded when it is asked for.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, SessionError> {
        Ok(Session::from_extensions(&parts.extensions)?.view())
    }
}

impl<S: Sync, D: SharedData> FromRequestParts<S> for SharedMap<D> {
    type Rejection = Problem;

    /// Behind a `SessionLayer`, or a `VerifySessionLayer` with a backend. Costs nothing.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // The nearest to the handler counts: a service behind a gateway in one process has both.
        match (Claims::from_extensions(&parts.extensions), Session::from_extensions(&parts.extensions)) {
            (Ok(claims), session) => match (claims.shared_map(), session) {
                (Err(ClaimsError::NoBackend), Ok(session)) => Ok(Self::of(session)),
                (map, _) => Ok(map?),
            },
            (Err(_), session) => Ok(Self::of(session?)),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Claims {
    type Rejection = ClaimsError;

    /// Costs nothing.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ClaimsError> {
        Self::from_extensions(&parts.extensions)
    }
}

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Authenticated<T> {
    type Rejection = ClaimsError;

    /// Costs a round trip where the session's data is too large for a field.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ClaimsError> {
        Self::from_claims(Claims::from_extensions(&parts.extensions)?).await
    }
}

impl axum::response::IntoResponse for ClaimsError {
    fn into_response(self) -> axum::response::Response {
        Problem::from(self).into_response()
    }
}
