//! Bearer tokens that somebody else has made.

mod cache;

use std::{collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Map, Value};

pub(in crate::session) use self::cache::ResolverCache;
use super::{SessionError, source::BearerToken};
use crate::{Timestamp, backend::Fields};

/// Finds out whose a foreign bearer token is (a JWT, an opaque one that an authority knows).
///
/// What it says is remembered for at most 60 seconds, and never past [`Resolved::expires`] or
/// [`refused_for`](Self::refused_for); requests that come meanwhile with the same token wait for one call.
///
/// ```
/// use tower_gatehouse::session::{BearerToken, ResolveError, Resolved, TokenResolver};
///
/// struct Partner;
///
/// impl TokenResolver for Partner {
///     async fn resolve(&self, token: &BearerToken) -> Result<Option<Resolved>, ResolveError> {
///         Ok((token.expose() == "let-me-in").then(|| Resolved::user("partner")))
///     }
/// }
/// ```
pub trait TokenResolver: Send + Sync + 'static {
    /// Whose the token is; `None` if it is not good. An error means that this cannot be said at present: then the
    /// answer is 503, never 401.
    fn resolve(&self, token: &BearerToken) -> impl Future<Output = Result<Option<Resolved>, ResolveError>> + Send;

    /// For how long it is remembered that a token is not good; 60 seconds by default, and at most. Nothing is remembered
    /// with zero, for resolvers that ask nobody.
    fn refused_for(&self) -> Duration {
        Resolved::MAX_AGE
    }
}

/// What a foreign token says. Handlers see it as a session that cannot be changed.
#[derive(Clone)]
pub struct Resolved {
    user: Box<str>,
    expires: Option<Timestamp>,
    fields: Fields,
}

/// The token cannot be resolved at present.
pub type ResolveError = Box<dyn std::error::Error + Send + Sync>;

impl Resolved {
    /// For how long a resolver's answer is remembered at most.
    pub const MAX_AGE: Duration = Duration::from_mins(1);

    /// This user.
    pub fn user(name: impl Into<Box<str>>) -> Self {
        Self { user: name.into(), expires: None, fields: BTreeMap::new() }
    }

    /// When the token ends.
    #[must_use]
    pub fn expires(mut self, at: Timestamp) -> Self {
        self.expires = Some(at);
        self
    }

    /// What else the token says; the data of the session.
    #[must_use]
    pub fn data(mut self, data: Map<String, Value>) -> Self {
        self.fields = data.into_iter().map(|(key, value)| (key.into(), Bytes::from(value.to_string()))).collect();
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.user
    }

    pub(super) fn fields(&self) -> &Fields {
        &self.fields
    }
}

impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolved").field("expires", &self.expires).finish_non_exhaustive()
    }
}

type Resolving<'a> = Pin<Box<dyn Future<Output = Result<Option<Resolved>, ResolveError>> + Send + 'a>>;

/// The twin of [`TokenResolver`] that can be a trait object.
trait Erased: Send + Sync {
    fn resolve<'a>(&'a self, token: &'a BearerToken) -> Resolving<'a>;

    fn refused_for(&self) -> Duration;
}

impl<R: TokenResolver> Erased for R {
    fn resolve<'a>(&'a self, token: &'a BearerToken) -> Resolving<'a> {
        Box::pin(TokenResolver::resolve(self, token))
    }

    fn refused_for(&self) -> Duration {
        TokenResolver::refused_for(self)
    }
}

impl<R: TokenResolver> TokenResolver for Arc<R> {
    async fn resolve(&self, token: &BearerToken) -> Result<Option<Resolved>, ResolveError> {
        R::resolve(self, token).await
    }

    fn refused_for(&self) -> Duration {
        R::refused_for(self)
    }
}
