//! A request that may change something, whose client may leave.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::{HttpCache, invalidate::Invalidate};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl HttpCache {
    /// Work that goes on in a task when the future that waits for it is dropped, if it `goes_on`: as long as a background
    /// validation may take, and where not too much goes on without a client already.
    ///
    /// What is broken off may have changed something by then, or not: what it `names` becomes stale, so that the origin is
    /// asked.
    pub(crate) fn finish<F>(&self, work: F, names: Option<Invalidate>, goes_on: bool) -> Finishing<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        Finishing {
            work: Some(Box::pin(work)),
            end: Some(End { names, cache: self.clone() }),
            goes_on,
            was_polled: false,
        }
    }
}

/// See [`HttpCache::finish`].
pub(crate) struct Finishing<T: Send + 'static> {
    /// Not there while it is polled, so that what has panicked is not polled again.
    work: Option<Boxed<T>>,
    end: Option<End>,
    goes_on: bool,
    /// What was never polled has not begun.
    was_polled: bool,
}

/// Dropped before the work has ended, it does what has to be done then, whatever is shut down.
struct End {
    names: Option<Invalidate>,
    cache: HttpCache,
}

impl End {
    fn reached(mut self) {
        self.names = None;
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let Some(names) = self.names.take() else { return };
        tracing::debug!("a request that may change something is broken off, because its client has left");
        self.cache.state.tasks.spawn_last(async move {
            if let Err(error) = names.soft().await {
                tracing::debug!(%error, "what it may have changed was not invalidated");
            }
        });
    }
}

impl<T: Send + 'static> Future for Finishing<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.was_polled = true;
        let mut work = self.work.take().expect("polled after it was ready");
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.work = Some(work);
        } else if let Some(end) = self.end.take() {
            end.reached();
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Finishing<T> {
    fn drop(&mut self) {
        let (Some(work), Some(end)) = (self.work.take(), self.end.take()) else { return };
        if !(self.goes_on && self.was_polled) || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let Some(place) = end.cache.background_permit() else { return };
        let (tasks, limit) = (end.cache.state.tasks.clone(), end.cache.config.stale.revalidation_timeout);
        tasks.spawn(async move {
            if tokio::time::timeout(limit, work).await.is_ok() {
                end.reached();
            }
            drop(place);
        });
    }
}
