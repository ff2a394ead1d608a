//! Values of the application, cached like responses: cache-aside with single flight.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    HttpCache,
    flight::{Join, first_outcome, may_follow},
    receive::NO_TICKET,
    turn::{Turn, TurnRequest},
};
use crate::{
    Problem, Tag, TagDigest,
    backend::{Commit, Entry, LeaseKey, LeaseKind, Lookup, PrimaryKey, Release, Ticket, Variant, VaryOf, VarySpec},
};

/// What a computation came to, for those who followed it.
pub(crate) type Computed = Option<Arc<Entry>>;

impl HttpCache {
    /// A value of the application under a name: taken from the store, or computed by one task of the fleet and
    /// stored.
    ///
    /// The value is stored as JSON. It shares tags with responses, and nothing else: no name is ever a URL.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use tower_gatehouse::{Backend, HttpCache};
    ///
    /// let cache = HttpCache::new(&Backend::memory());
    /// let top = || cache.value("top").ttl(Duration::from_secs(30)).tag("catalogue");
    /// assert_eq!(top().get_or(|| async { vec![1, 2] }).await?, [1, 2]);
    /// assert_eq!(top().get_or(|| async { vec![3] }).await?, [1, 2], "from the store");
    /// cache.invalidate().tag("catalogue").await?;
    /// assert_eq!(top().get_or(|| async { vec![3] }).await?, [3]);
    /// # Ok(()) }
    /// ```
    pub fn value(&self, name: impl AsRef<[u8]>) -> Value {
        let mut hasher = blake3::Hasher::new();
        for field in [b"value".as_slice(), self.config.keys.scope.as_bytes(), name.as_ref()] {
            hasher.update(&(field.len() as u64).to_le_bytes()).update(field);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Value {
            cache: self.clone(),
            key: PrimaryKey::from_bytes(key),
            ttl: Duration::from_mins(1),
            tags: Vec::new(),
            bad_tag: None,
        }
    }
}

/// A value of the application; see [`HttpCache::value`].
#[derive(Debug)]
#[must_use]
pub struct Value {
    cache: HttpCache,
    key: PrimaryKey,
    ttl: Duration,
    tags: Vec<TagDigest>,
    bad_tag: Option<String>,
}

impl Value {
    /// How long it is kept once computed; 60 s unless set.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// A tag by which it is invalidated.
    pub fn tag<T: TryInto<Tag>>(mut self, tag: T) -> Self
    where
        T::Error: fmt::Display,
    {
        match tag.try_into() {
            Ok(tag) => self.tags.push(self.cache.config.keys.scoped(tag.digest())),
            Err(error) => self.bad_tag = Some(error.to_string()),
        }
        self
    }

    /// The value, computed unless it is stored.
    ///
    /// While one task computes, the others of the fleet that want the same value wait for it; each time that it takes
    /// longer than [`HttpCache::wait`](HttpCache::wait), one more of each process computes beside it, and those who wait
    /// have what comes first. A store that is out of reach, or too small, costs a computation for all who wait in this
    /// process, never an error. Dropped while it computes, nothing is stored, and one of those who wait computes.
    pub async fn get_or<T, F>(self, compute: impl FnOnce() -> F) -> Result<T, ValueError>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = T>,
    {
        self.get_or_try(|| async { Ok::<_, ValueError>(compute().await) }).await
    }

    /// Like [`Value::get_or`] for a computation that may fail. Its error goes to the caller that computed; those who
    /// waited compute themselves, one after the other.
    pub async fn get_or_try<T, E, F>(self, compute: impl FnOnce() -> F) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<ValueError>,
        F: Future<Output = Result<T, E>>,
    {
        if let Some(reason) = self.bad_tag {
            return Err(ValueError(reason).into());
        }
        let lease_key = LeaseKey { key: self.key, variant: Variant(None), kind: LeaseKind::Fill };
        let vary: &VaryOf<'_> = &|_| Variant(None);
        let backend = &self.cache.state.backend;
        let wait = self.cache.config.coalesce.wait;
        // Also those that take too long: they may come to something first.
        let mut awaited = Vec::new();
        let mut overdue = false;
        loop {
            let lookup = backend.lookup(&self.key, vary).await.ok();
            if let Some(value) = lookup.as_ref().and_then(|lookup| self.fresh(lookup)) {
                self.cache.count_value("hit");
                return Ok(value);
            }
            // What another process computed may be older than this call.
            let is_current =
                |entry: &Arc<Entry>| entry.ticket() == NO_TICKET || may_follow(Some(entry.ticket()), lookup.as_ref());
            let flights = &self.cache.state.values;
            let mut leader = match flights.join(&self.key, lookup.as_ref()) {
                Join::Lead(leader) => leader,
                Join::Follow(follower) => {
                    let flight = follower.flight();
                    awaited.push(follower);
                    let Ok(outcome) = tokio::time::timeout(wait, first_outcome(&mut awaited)).await else {
                        // One of those who have waited computes.
                        flights.supersede(&self.key, &flight);
                        overdue = true;
                        continue;
                    };
                    if let Some(value) = outcome.flatten().filter(is_current).and_then(|entry| decode(&entry)) {
                        self.cache.count_value("coalesced");
                        return Ok(value);
                    }
                    continue;
                }
            };
            let turn = match &lookup {
                // The store is out of reach: one flight in this process, nothing stored.
                None => {
                    let _ = tokio::time::timeout(wait, leader.clearance()).await;
                    Turn::Ask { ticket: None, lease: None }
                }
                Some(lookup) if overdue => Turn::Ask { ticket: lookup.ticket, lease: None },
                Some(lookup) => {
                    let request = TurnRequest { key: lease_key, lookup, vary, tags: &self.tags };
                    self.cache.turn(request, |again| self.fresh::<T>(again).is_some()).await
                }
            };
            let (ticket, lease) = match turn {
                Turn::Ask { ticket, lease } => (ticket, lease),
                Turn::Found(found) => {
                    let entry = found.found.map(|found| found.entry);
                    let value = entry.as_deref().and_then(decode);
                    leader.close(entry);
                    match value {
                        Some(value) => {
                            self.cache.count_value("coalesced");
                            return Ok(value);
                        }
                        None => continue,
                    }
                }
                // Nothing of the kind is ever left under the key of a value; another version of this crate may.
                Turn::HandedOver(_) | Turn::Everybody | Turn::Failed => {
                    (lookup.as_ref().and_then(|lookup| lookup.ticket), None)
                }
            };
            leader.ask(ticket);
            self.cache.count_value("computed");
            let value = compute().await?;
            let bytes = serde_json::to_vec(&value)
                .map_err(|error| ValueError(format!("the value cannot be written as JSON: {error}")))?;
            let Some(ticket) = ticket else {
                leader.close(Some(self.entry(NO_TICKET, bytes.into())));
                return Ok(value);
            };
            let entry = self.entry(ticket, bytes.into());
            let commit = Commit {
                key: self.key,
                variant: Variant(None),
                entry: Arc::clone(&entry),
                refresh: None,
                lease: lease.as_ref().and_then(|lease| lease.lease()),
            };
            match self.cache.commit(commit).await {
                Ok(_) => {
                    if let Some(lease) = lease {
                        lease.ended();
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a value was not stored");
                    if let Some(lease) = lease {
                        lease.release(Release::Free).await;
                    }
                }
            }
            leader.close(Some(entry));
            return Ok(value);
        }
    }

    fn fresh<T: DeserializeOwned>(&self, lookup: &Lookup) -> Option<T> {
        let found = lookup.found.as_ref().filter(|found| found.stale_since.is_none())?;
        if found.entry.fresh_until() <= self.cache.state.backend.now() {
            return None;
        }
        decode(&found.entry)
    }

    fn entry(&self, ticket: Ticket, body: Bytes) -> Arc<Entry> {
        let end = self.cache.state.backend.now().plus(self.ttl);
        Entry::builder(ticket)
            .fresh_until(end)
            .keep_until(end)
            .vary(VarySpec::none())
            .tags(self.tags.iter().copied())
            .head(Bytes::from_static(HEAD))
            .body(body)
            .build()
    }
}

/// Marks a value, and the version of its encoding.
const HEAD: &[u8] = b"v1";

fn decode<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    if **entry.head() != *HEAD {
        return None;
    }
    serde_json::from_slice(entry.body()).ok()
}

/// A value was not to be had because the request for it was wrong: a tag is malformed, or the value cannot be written
/// as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError(String);

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ValueError {}

impl From<ValueError> for Problem {
    fn from(error: ValueError) -> Self {
        tracing::error!(%error, "a value could not be cached");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "a value could not be computed")
    }
}
