//! The keys of an issuer, fetched and kept.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use tokio::{sync::Mutex, time::Instant};

use crate::session::ResolveError;

/// Where the keys of an issuer come from: whatever fetches the content of its `jwks_uri`.
///
/// A closure that gives a future of the bytes is one. Bound its time.
pub trait JwksSource: Send + Sync + 'static {
    /// The JSON of a JWK Set (RFC 7517).
    fn fetch(&self) -> impl Future<Output = Result<Bytes, ResolveError>> + Send;
}

impl<F, R> JwksSource for F
where
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = Result<Bytes, ResolveError>> + Send,
{
    async fn fetch(&self) -> Result<Bytes, ResolveError> {
        self().await
    }
}

/// The keys as they were fetched last. One request fetches, the others wait for it.
pub(super) struct KeySet {
    source: Box<dyn Erased>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Option<(Arc<JwkSet>, Instant)>,
    /// When it was tried last, and whether that was in vain.
    tried: Option<Instant>,
}

/// After which time keys are fetched again.
const MAX_AGE: Duration = Duration::from_mins(10);
/// For how long they are used while the issuer does not answer.
const MAX_STALE: Duration = Duration::from_hours(24);
/// How often they are fetched at most, whatever key ids tokens name.
const MIN_AGE: Duration = Duration::from_secs(30);
/// How often it is tried while the issuer does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// The largest JWK Set.
const MAX_LEN: usize = 256 * 1024;

impl KeySet {
    pub(super) fn new(source: impl JwksSource) -> Self {
        Self { source: Box::new(source), state: Mutex::default() }
    }

    /// The key of this id; without an id, the only key. `None` if the issuer has no such key.
    pub(super) async fn key(&self, kid: Option<&str>) -> Result<Option<Jwk>, ResolveError> {
        let mut state = self.state.lock().await;
        let known = state.keys.as_ref().and_then(|(keys, _)| find(keys, kid));
        let age = state.keys.as_ref().map(|(_, fetched)| fetched.elapsed());
        let old_enough = if known.is_some() { MAX_AGE } else { MIN_AGE };
        if age.is_some_and(|age| age < old_enough) {
            return Ok(known);
        }
        let usable = age.is_some_and(|age| age < MAX_STALE);
        if state.tried.is_some_and(|tried| tried.elapsed() < RETRY) {
            return if usable { Ok(known) } else { Err("the issuer's keys could not be fetched a moment ago".into()) };
        }
        match self.fetch().await {
            Ok(keys) => {
                let key = find(&keys, kid);
                *state = State { keys: Some((Arc::new(keys), Instant::now())), tried: None };
                Ok(key)
            }
            Err(error) => {
                state.tried = Some(Instant::now());
                tracing::warn!(%error, "the keys of a token issuer could not be fetched");
                // A key that is not known may be a new one: that cannot be said now.
                if usable && known.is_some() { Ok(known) } else { Err(error) }
            }
        }
    }

    async fn fetch(&self) -> Result<JwkSet, ResolveError> {
        let json = self.source.fetch().await?;
        if json.len() > MAX_LEN {
            return Err("the JWK Set is larger than 256 KiB".into());
        }
        serde_json::from_slice(&json).map_err(|_| "the issuer's answer is no JWK Set".into())
    }
}

fn find(keys: &JwkSet, kid: Option<&str>) -> Option<Jwk> {
    match (kid, keys.keys.as_slice()) {
        (Some(kid), _) => keys.find(kid).cloned(),
        (None, [only]) => Some(only.clone()),
        (None, _) => None,
    }
}

type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Bytes, ResolveError>> + Send + 'a>>;

/// The twin of [`JwksSource`] that can be a trait object.
trait Erased: Send + Sync {
    fn fetch(&self) -> Fetching<'_>;
}

impl<S: JwksSource> Erased for S {
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(JwksSource::fetch(self))
    }
}
