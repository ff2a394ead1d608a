//! Work that goes on when whoever waits for it has gone.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::FutureExt as _;
use tokio::{runtime::Handle, task::JoinHandle};
use tracing::Instrument as _;

/// Work that was begun. Where it cannot be done at once it goes on in a task of its own, also when this is dropped; it
/// bounds its own time.
pub(crate) enum Unbroken<T> {
    Done(Option<T>),
    Task(JoinHandle<T>),
    /// There is no runtime to go on in.
    Here(Pin<Box<dyn Future<Output = T> + Send>>),
}

impl<T: Send + 'static> Unbroken<T> {
    pub(crate) fn begin(work: impl Future<Output = T> + Send + 'static) -> Self {
        let mut work = Box::pin(work);
        if let Some(done) = work.as_mut().now_or_never() {
            return Self::Done(Some(done));
        }
        match Handle::try_current() {
            Ok(runtime) => Self::Task(runtime.spawn(work.in_current_span())),
            Err(_) => Self::Here(work),
        }
    }

    /// What came of it, once; `None` where the runtime stops, and afterwards.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let done = match self {
            Self::Done(done) => done.take(),
            Self::Task(task) => ready!(Pin::new(task).poll(cx)).ok(),
            Self::Here(work) => Some(ready!(work.as_mut().poll(cx))),
        };
        *self = Self::Done(None);
        Poll::Ready(done)
    }

    /// The same. Cancel safe: whoever waits next gets it.
    pub(crate) async fn end(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| self.poll_end(cx)).await
    }
}

impl<T> fmt::Debug for Unbroken<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unbroken").finish_non_exhaustive()
    }
}
