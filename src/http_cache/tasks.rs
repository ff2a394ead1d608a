//! Work that goes on without a client, and its end.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};

/// The background tasks of one cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

pin_project! {
    /// A task until it is done, or all of them are stopped. An `async` block would have room for the task twice.
    struct UntilStopped<F> {
        #[pin]
        cancelled: WaitForCancellationFutureOwned,
        #[pin]
        task: F,
    }
}

impl<F: Future<Output = ()>> Future for UntilStopped<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        match this.cancelled.poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => this.task.poll(cx),
        }
    }
}

impl Tasks {
    /// Runs a task that a shutdown waits for and, at its deadline, drops. A task that holds a lease gives it back when
    /// it is dropped.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        use tracing::Instrument as _;
        let cancelled = self.stop.clone().cancelled_owned();
        self.tracker.spawn(UntilStopped { cancelled, task }.in_current_span());
    }

    /// Runs a task that even the deadline of a shutdown does not drop; it bounds its own time. Does nothing where there
    /// is no runtime any more.
    pub(crate) fn spawn_last(&self, task: impl Future<Output = ()> + Send + 'static) {
        use tracing::Instrument as _;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.tracker.spawn_on(task.in_current_span(), &runtime);
        }
    }

    /// Whether tasks are dropped at once: the deadline of a shutdown has passed.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Whether no more background work should begin.
    pub(crate) fn is_closed(&self) -> bool {
        self.tracker.is_closed()
    }

    /// Lets nothing new begin, waits until all is done or the deadline has passed, then drops the rest and waits until
    /// its leases are given back; `true` if nothing had to be dropped.
    pub(crate) async fn shutdown(&self, deadline: Duration) -> bool {
        self.tracker.close();
        let finished = tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok();
        if !finished {
            self.stop.cancel();
            self.tracker.wait().await;
        }
        finished
    }
}
