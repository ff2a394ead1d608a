//! The keys of an issuer, fetched and kept.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use jsonwebtoken::{Header, jwk::Jwk};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{sync::watch, time::Instant};

use super::choice::choose;
use crate::session::ResolveError;

/// Where the keys of an issuer come from: whatever fetches the content of its `jwks_uri`.
///
/// A closure that gives a future of the bytes is one. It is polled in a task of its own on tokio's runtime, and dropped
/// after 10 seconds.
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

/// The keys as they were fetched last. One task fetches, whoever goes away meanwhile; only who needs a key that is not
/// known waits for it.
pub(super) struct KeySet(Arc<Shared>);

struct Shared {
    source: Box<dyn Erased>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Option<(Box<[Jwk]>, Instant)>,
    /// When it was tried in vain.
    failed: Option<Instant>,
    /// Closed when the task that fetches has ended.
    fetching: Option<watch::Receiver<()>>,
}

/// What is known of the keys that a token may be signed with.
enum Known {
    /// Which they are, or that there are none.
    Fresh(Vec<Jwk>),
    /// Which they were; they may have been replaced.
    Stale(Vec<Jwk>),
    Nothing,
}

/// After which time keys are fetched again.
const MAX_AGE: Duration = Duration::from_mins(10);
/// For how long they are used while the issuer does not answer.
const MAX_STALE: Duration = Duration::from_hours(24);
/// How often they are fetched at most, whatever key ids tokens name.
const MIN_AGE: Duration = Duration::from_secs(30);
/// How often it is tried while the issuer does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// After which time an answer is not waited for any more.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest JWK Set.
const MAX_LEN: usize = 256 * 1024;

impl KeySet {
    pub(super) fn new(source: impl JwksSource) -> Self {
        Self(Arc::new(Shared { source: Box::new(source), state: Mutex::default() }))
    }

    /// The keys that a token with this header may be signed with; none if the issuer has no such key.
    pub(super) async fn of(&self, header: &Header) -> Result<Vec<Jwk>, ResolveError> {
        let fetching = match self.0.known(header) {
            Known::Fresh(keys) => return Ok(keys),
            Known::Stale(keys) => {
                self.fetch();
                return Ok(keys);
            }
            Known::Nothing => self.fetch(),
        };
        if let Some(mut fetching) = fetching {
            // An error: the task has ended.
            let _ = fetching.changed().await;
        }
        match self.0.known(header) {
            Known::Fresh(keys) | Known::Stale(keys) => Ok(keys),
            // It may be a new one: that cannot be said now.
            Known::Nothing => Err("the issuer's keys cannot be fetched at present".into()),
        }
    }

    /// Has them fetched, unless that was in vain a moment ago; gives what is closed at the end.
    fn fetch(&self) -> Option<watch::Receiver<()>> {
        let mut state = self.0.state();
        if let Some(fetching) = state.fetching.as_ref().filter(|fetching| fetching.has_changed().is_ok()) {
            return Some(fetching.clone());
        }
        if state.failed.is_some_and(|failed| failed.elapsed() < RETRY) {
            return None;
        }
        let (ended, fetching) = watch::channel(());
        state.fetching = Some(fetching.clone());
        let shared = self.0.clone();
        tokio::spawn(async move {
            shared.fetch().await;
            drop(ended);
        });
        Some(fetching)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, header: &Header) -> Known {
        let state = self.state();
        let Some((keys, fetched)) = &state.keys else { return Known::Nothing };
        let (keys, age) = (choose(keys, header.kid.as_deref(), header.alg), fetched.elapsed());
        if age < if keys.is_empty() { MIN_AGE } else { MAX_AGE } {
            Known::Fresh(keys)
        } else if !keys.is_empty() && age < MAX_STALE {
            Known::Stale(keys)
        } else {
            Known::Nothing
        }
    }

    async fn fetch(&self) {
        let fetched = tokio::time::timeout(TIMEOUT, self.source.fetch()).await;
        let keys = match fetched {
            Ok(json) => json.and_then(|json| read(&json)),
            Err(_) => Err("the issuer does not answer".into()),
        };
        let mut state = self.state();
        match keys {
            Ok(keys) => (state.keys, state.failed) = (Some((keys, Instant::now())), None),
            Err(error) => {
                state.failed = Some(Instant::now());
                tracing::warn!(%error, "the keys of a token issuer could not be fetched");
            }
        }
    }
}

/// A JWK Set whose keys are not read yet.
#[derive(Deserialize)]
struct Set<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// The keys that can be read: those that are not understood take nothing from the others (RFC 7517 §5).
fn read(json: &[u8]) -> Result<Box<[Jwk]>, ResolveError> {
    if json.len() > MAX_LEN {
        return Err("the JWK Set is larger than 256 KiB".into());
    }
    let set: Set<'_> = serde_json::from_slice(json).map_err(|_| "the issuer's answer is no JWK Set")?;
    let keys: Box<[Jwk]> = set.keys.iter().filter_map(|key| serde_json::from_str(key.get()).ok()).collect();
    if keys.len() < set.keys.len() {
        tracing::debug!(keys = set.keys.len(), read = keys.len(), "keys of a token issuer cannot be read");
    }
    if keys.is_empty() && !set.keys.is_empty() {
        return Err("the issuer has no key that can be read".into());
    }
    Ok(keys)
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
