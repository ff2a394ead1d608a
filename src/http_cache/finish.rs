//! A request that may change something, whose client may leave.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::HttpCache;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl HttpCache {
    /// Work that goes on in a task when the future that waits for it is dropped: as long as a background validation may
    /// take, and where not too much goes on without a client already. What is broken off may have changed something by
    /// then: `broken_off` is done in its place.
    pub(crate) fn finish<F>(
        &self,
        work: F,
        broken_off: impl Future<Output = ()> + Send + 'static,
    ) -> Finishing<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        Finishing { work: Some((Box::pin(work), Box::pin(broken_off))), cache: self.clone() }
    }
}

/// See [`HttpCache::finish`].
pub(crate) struct Finishing<T: Send + 'static> {
    /// Not there while it is polled, so that what has panicked is not polled again.
    work: Option<(Boxed<T>, Boxed<()>)>,
    cache: HttpCache,
}

impl<T: Send + 'static> Future for Finishing<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let (mut work, broken_off) = self.work.take().expect("polled after it was ready");
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.work = Some((work, broken_off));
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Finishing<T> {
    fn drop(&mut self) {
        let Some((work, broken_off)) = self.work.take() else { return };
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let place = self.cache.background_permit();
        if place.is_none() {
            tracing::debug!("a request that may change something is broken off: its client has left, as too many have");
            drop(work);
            return self.cache.state.tasks.spawn(broken_off);
        }
        let limit = self.cache.config.stale.revalidation_timeout;
        self.cache.state.tasks.spawn(async move {
            if tokio::time::timeout(limit, work).await.is_err() {
                broken_off.await;
            }
            drop(place);
        });
    }
}
