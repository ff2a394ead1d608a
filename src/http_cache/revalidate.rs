//! Validation in the background: one at a time in the fleet, within limits, less often after failures.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Method, Request, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{Instrument as _, field::Empty};

use super::{
    HttpCache,
    judge::Stored,
    lease::HeldLease,
    memo::Memo,
    receive::{Asked, Reception},
    serve::{Content, Origin},
    visit::Visit,
};
use crate::{
    backend::{Acquire, Acquired, LeaseKey, LeaseKind, Release},
    body,
    key::Target,
    span::debug_span,
};

/// The background work of one process.
#[derive(Debug, Default)]
pub(crate) struct Revalidations {
    under_way: Mutex<HashSet<LeaseKey>>,
    origins: Mutex<HashMap<Box<str>, usize>>,
    permits: std::sync::OnceLock<Arc<Semaphore>>,
    /// After a failure: for how long nobody tries again.
    backoff: Memo<LeaseKey, Duration>,
}

impl HttpCache {
    /// Validates a stored response in the background, with the request that has found it stale. Does nothing where
    /// somebody does so already, the limits are reached, or the last attempt failed a moment ago.
    pub(crate) fn revalidate<S, B, R>(&self, visit: &Arc<Visit>, stored: &Stored, inner: S, mut request: Request<B>)
    where
        S: Origin<B, R>,
        S::Error: 'static,
        B: Content,
        R: Content,
    {
        let Some(since) = visit.lookup.as_ref().map(|lookup| lookup.since) else { return };
        let key = LeaseKey { key: visit.key, variant: visit.variant(), kind: LeaseKind::Revalidate };
        if self.state.tasks.is_closed() {
            return;
        }
        if self.state.revalidations.backoff.recall(&key).is_some() {
            return self.count_revalidation("backing-off");
        }
        let origin = Target::of(&visit.head.uri, &visit.head.headers).map(|target| target.authority);
        let Some(place) = self.place(key, &origin.unwrap_or_default()) else { return };
        let (cache, stored) = (self.clone(), stored.clone());
        // An answer to HEAD stores nothing.
        let visit = if visit.head.method == Method::HEAD { Arc::new(visit.as_get()) } else { Arc::clone(visit) };
        request.method_mut().clone_from(&visit.head.method);
        let span = debug_span!("revalidate", cache = &*self.config.name, key = %visit.key, outcome = Empty);
        let own = span.clone();
        let work = async move {
            let _place = place;
            let end = |outcome| cache.end_revalidation(&own, outcome);
            let settings = &cache.config;
            let acquire = Acquire { key, ttl: settings.coalesce.lease, since, tags: stored.entry().tags() };
            let lease = match cache.state.backend.acquire(acquire).await {
                Ok(Acquired::Granted(lease)) => lease,
                // Another process has tried in vain.
                Ok(Acquired::Failed { left }) => {
                    end("backing-off");
                    let backoff = &cache.state.revalidations.backoff;
                    let wait = backoff.last(&key).map_or(left, |last| last.max(left));
                    return backoff.remember(key, wait, left);
                }
                // Held: somebody else does it. Filled: it is done.
                Ok(_) => return end("elsewhere"),
                // It could not be stored.
                Err(_) => return end("backend-unavailable"),
            };
            let ticket = lease.ticket;
            let lease = HeldLease::new(&cache.state.backend, &cache.state.tasks, lease, settings.coalesce.lease);
            visit.claim();
            visit.set_answered();
            cache.condition(&visit, request.headers_mut());
            visit.leave_in(request.extensions_mut());
            let asked = Asked { at: cache.state.backend.now(), ticket: Some(ticket), lease: Some(lease) };
            let work = cache.refetch(&visit, key, asked, inner, request);
            match tokio::time::timeout(settings.stale.revalidation_timeout, work).await {
                Ok(Ok(())) => {
                    end("done");
                    cache.state.revalidations.backoff.forget(&key);
                }
                Ok(Err(Failed(lease))) => {
                    end("failed");
                    let wait = cache.back_off(key);
                    if let Some(lease) = lease {
                        // The other processes need not find out by themselves.
                        lease.release(Release::Failed(wait)).await;
                    }
                }
                Err(_) => {
                    end("timeout");
                    cache.back_off(key);
                }
            }
        };
        self.state.tasks.spawn(work.instrument(span));
    }

    /// Asks the origin, and stores what it says.
    async fn refetch<S, B, R>(
        &self,
        visit: &Visit,
        key: LeaseKey,
        mut asked: Asked,
        inner: S,
        request: Request<B>,
    ) -> Result<(), Failed>
    where
        S: Origin<B, R>,
        B: Content,
        R: Content,
    {
        let ticket = asked.ticket;
        let asking = self.ask_inner(visit, request.headers());
        let outcome = self.send(inner, request, &mut asked).instrument(asking.span()).await;
        asking.ended(&outcome);
        let Ok(response) = outcome else {
            tracing::debug!(key = %visit.key, "a background validation failed");
            return Err(Failed(asked.lease));
        };
        // 429 asks for patience as much as a failure does, and says nothing about what is stored.
        if response.status().is_server_error() || response.status() == StatusCode::TOO_MANY_REQUESTS {
            tracing::debug!(key = %visit.key, status = %response.status(), "a background validation failed");
            return Err(Failed(asked.lease));
        }
        let lease = match self.receive(visit, asked, response).await {
            Reception::Untouched { reason, lease, .. } if reason.of_this_request => {
                // The first refusal may be one client's. After the second nobody can say that the origin still answers so.
                let is_first = self.state.revalidations.backoff.last(&key).is_none();
                let Some(ticket) = ticket.filter(|_| !is_first && !visit.credentials.any()) else {
                    return Err(Failed(lease));
                };
                self.remove(&visit.key, visit.variant(), ticket, None).await;
                lease
            }
            Reception::Stored { lease, .. } | Reception::Untouched { lease, .. } => lease,
            Reception::Arriving(mut arriving) => {
                arriving.fill.has_place = true;
                let cap = self.config.max_body;
                let (writer, reader) = body::shared(cap, cap, arriving.fill.length);
                drop(reader);
                self.fill(arriving.body, writer, arriving.fill).await;
                None
            }
        };
        if let Some(lease) = lease {
            lease.release(Release::Free).await;
        }
        Ok(())
    }

    /// For how long nobody tries again.
    fn back_off(&self, key: LeaseKey) -> Duration {
        let (first, longest) = self.config.stale.backoff;
        let backoff = &self.state.revalidations.backoff;
        let wait = backoff.last(&key).map_or(first, |last| (last * 2).min(longest));
        backoff.remember(key, wait, wait);
        wait
    }

    /// A place among the work that goes on without a client; `None` where there is none left.
    pub(crate) fn background_permit(&self) -> Option<OwnedSemaphorePermit> {
        let permits = &self.state.revalidations.permits;
        let permits = permits.get_or_init(|| Arc::new(Semaphore::new(self.config.stale.revalidations)));
        Arc::clone(permits).try_acquire_owned().ok()
    }

    fn place(&self, key: LeaseKey, origin: &str) -> Option<Place> {
        let all = &self.state.revalidations;
        let settings = &self.config.stale;
        let Some(permit) = self.background_permit() else {
            self.count_revalidation("limit");
            return None;
        };
        if !lock(&all.under_way).insert(key) {
            self.count_revalidation("elsewhere");
            return None;
        }
        let mut place = Place { cache: self.clone(), key, origin: None, _permit: permit };
        let mut origins = lock(&all.origins);
        if origins.get(origin).copied().unwrap_or_default() >= settings.revalidations_per_origin {
            drop(origins);
            self.count_revalidation("limit");
            return None;
        }
        *origins.entry(origin.into()).or_default() += 1;
        place.origin = Some(origin.into());
        Some(place)
    }
}

/// The origin has not answered, or with an error of its own.
struct Failed(Option<HeldLease>);

/// One background validation's place among the others.
struct Place {
    cache: HttpCache,
    key: LeaseKey,
    origin: Option<Box<str>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let all = &self.cache.state.revalidations;
        lock(&all.under_way).remove(&self.key);
        if let Some(origin) = &self.origin {
            let mut origins = lock(&all.origins);
            if let Some(count) = origins.get_mut(origin) {
                *count -= 1;
                if *count == 0 {
                    origins.remove(origin);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use super::*;
    use crate::backend::{Backend, PrimaryKey, Variant};

    /// Anybody can send any `Host`.
    #[test]
    fn of_an_origin_that_has_no_place_nothing_is_kept() {
        let cache = HttpCache::new(&Backend::memory()).revalidations(4, 0);
        let key = PrimaryKey::from_bytes([1; 16]);
        let key = LeaseKey { key, variant: Variant::default(), kind: LeaseKind::Revalidate };
        assert!(cache.place(key, "one.example").is_none());
        assert!(lock(&cache.state.revalidations.origins).is_empty());
        assert!(lock(&cache.state.revalidations.under_way).is_empty());
    }
}
