//! What a service knows about who is asking.

use std::{fmt, sync::Arc};

use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::codec::Payload;
use crate::{
    Backend, Identity, Personal, Problem,
    backend::{BackendError, MapOwner, RecordKey, UserKey},
    session::{SharedData, SharedMap},
};

/// What the gateway says about who is asking; in the extensions of every request that went through a
/// [`VerifySessionLayer`](super::VerifySessionLayer), and with the feature `axum` an extractor.
///
/// Whoever reads of it who is asking makes the answer one for this client alone ([`Personal`]), as reading a session does.
#[derive(Clone)]
pub struct Claims {
    payload: Arc<Payload>,
    backend: Option<Backend>,
    personal: Personal,
}

/// An extractor (feature `axum`) for requests of a user who is logged in; others are answered with 401.
#[derive(Clone)]
#[non_exhaustive]
pub struct Authenticated<T> {
    /// The user.
    pub user: String,
    /// The fields of the session that the gateway shows to this service.
    pub data: T,
    /// All that the gateway says.
    pub claims: Claims,
}

impl<T> fmt::Debug for Authenticated<T> {
    /// Neither user nor data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticated").field("claims", &self.claims).finish_non_exhaustive()
    }
}

/// Why the claims are of no use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClaimsError {
    /// There is no `VerifySessionLayer` around the handler. 500.
    NoLayer,
    /// Nobody is logged in. 401.
    Anonymous,
    /// The data is not what the type expects. 500.
    Data,
    /// The session was too large for a field and has ended since. 401.
    Ended,
    /// The session was too large for a field, and the `VerifySessionLayer` has no backend; or a shared map is asked for
    /// without one. 500.
    NoBackend,
    /// The store failed. 503.
    Backend(BackendError),
}

impl Claims {
    pub(super) fn new(payload: Payload, backend: Option<Backend>) -> Self {
        Self { payload: Arc::new(payload), backend, personal: Personal::default() }
    }

    /// Leaves it in a request, and for layers that know nothing of claims an identity.
    pub(super) fn leave(mut self, extensions: &mut http::Extensions) {
        self.identity().leave(extensions);
        self.personal = Personal::of(extensions).unwrap_or_default();
        extensions.insert(self);
    }

    fn read(&self) -> &Payload {
        self.personal.mark();
        &self.payload
    }

    /// The claims about a request.
    ///
    /// # Errors
    /// [`ClaimsError::NoLayer`] if it did not go through a `VerifySessionLayer`.
    pub fn of<B>(request: &http::Request<B>) -> Result<Self, ClaimsError> {
        Self::from_extensions(request.extensions())
    }

    pub(in crate::session) fn from_extensions(extensions: &http::Extensions) -> Result<Self, ClaimsError> {
        extensions.get().cloned().ok_or(ClaimsError::NoLayer)
    }

    /// The user who is logged in.
    pub fn user(&self) -> Option<&str> {
        self.read().sub.as_deref()
    }

    /// The session's handle, which is no credential.
    pub fn session(&self) -> Option<RecordKey> {
        self.read().session()
    }

    fn identity(&self) -> Identity {
        let mut identity = Identity::anonymous();
        if let Some(user) = self.payload.sub.as_deref() {
            identity = identity.with_user(user);
        }
        match self.payload.began_as() {
            Some(session) => identity.with_session(*session.as_bytes()),
            None => identity,
        }
    }

    /// How often the session has been changed.
    pub fn version(&self) -> Option<u64> {
        self.read().v
    }

    /// The request's id: what its `x-request-id` says (1 to 128 bytes of ASCII), else a new one for each service.
    pub fn request_id(&self) -> &str {
        &self.payload.rid
    }

    /// The fields of the session that the gateway shows to this service. Costs a round trip where they are too large
    /// for a field.
    pub async fn data<T: DeserializeOwned>(&self) -> Result<T, ClaimsError> {
        let mut data = self.read().d.clone();
        if !self.payload.r.is_empty() {
            data.extend(self.referred().await?);
        }
        serde_json::from_value(Value::Object(data)).map_err(|_| ClaimsError::Data)
    }

    async fn referred(&self) -> Result<Map<String, Value>, ClaimsError> {
        let backend = self.backend.as_ref().ok_or(ClaimsError::NoBackend)?;
        let key = self.session().ok_or(ClaimsError::Data)?;
        let record = backend.load(&key).await.map_err(ClaimsError::Backend)?.ok_or(ClaimsError::Ended)?;
        let named = self.payload.r.iter().filter_map(|name| Some((name, record.fields.get(&**name)?)));
        named
            .map(|(name, json)| Ok((name.clone(), serde_json::from_slice(json).map_err(|_| ClaimsError::Data)?)))
            .collect()
    }

    /// Data that services share, of the user or of the anonymous session.
    ///
    /// # Errors
    /// [`ClaimsError::NoBackend`] if the `VerifySessionLayer` has none, [`ClaimsError::Anonymous`] for a visitor who has
    /// no session.
    pub fn shared_map<D: SharedData>(&self) -> Result<SharedMap<D>, ClaimsError> {
        let backend = self.backend.as_ref().ok_or(ClaimsError::NoBackend)?;
        let owner = if let Some(user) = self.user() {
            MapOwner::User(UserKey::of(user))
        } else {
            MapOwner::Session(self.payload.began_as().ok_or(ClaimsError::Anonymous)?)
        };
        Ok(SharedMap::of_owner(backend, owner))
    }
}

impl Payload {
    fn session(&self) -> Option<RecordKey> {
        self.sid.as_deref().and_then(RecordKey::from_hex)
    }

    /// The session as it began: another token does not make it another one.
    fn began_as(&self) -> Option<RecordKey> {
        self.o.as_deref().and_then(RecordKey::from_hex).or_else(|| self.session())
    }
}

impl<T: DeserializeOwned> Authenticated<T> {
    /// The user who is logged in, with the data of the session.
    pub async fn from_claims(claims: Claims) -> Result<Self, ClaimsError> {
        let user = claims.user().ok_or(ClaimsError::Anonymous)?.to_owned();
        Ok(Self { user, data: claims.data().await?, claims })
    }
}

impl fmt::Debug for Claims {
    /// Neither the user nor the data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims")
            .field("session", &self.payload.sid)
            .field("request_id", &self.payload.rid)
            .finish_non_exhaustive()
    }
}

impl ClaimsError {
    /// The status that a client gets to see.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Anonymous | Self::Ended => StatusCode::UNAUTHORIZED,
            Self::Backend(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoLayer | Self::Data | Self::NoBackend => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl fmt::Display for ClaimsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoLayer => {
                "there is no VerifySessionLayer around this handler; add .layer(VerifySessionLayer::new(keys))"
            }
            Self::Anonymous => "log in first",
            Self::Data => "the session's data is not what this service expects",
            Self::Ended => "the session has ended",
            Self::NoBackend => "this needs the session store; add .backend(&backend) to the VerifySessionLayer",
            Self::Backend(_) => "the session store is not available",
        })
    }
}

impl std::error::Error for ClaimsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Backend(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ClaimsError> for Problem {
    fn from(error: ClaimsError) -> Self {
        let problem = Self::new(error.status(), error.to_string());
        if error.status() == StatusCode::UNAUTHORIZED {
            let challenge = http::HeaderValue::from_static("Bearer");
            return problem.header(http::header::WWW_AUTHENTICATE, challenge);
        }
        problem
    }
}
