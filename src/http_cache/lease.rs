//! A lease that is held: renewed as long as it is needed, given back when it is dropped.

use std::time::Duration;

use tokio::task::AbortHandle;

use super::tasks::Tasks;
use crate::backend::{Backend, Lease, Release};

/// A lease of this process. Renews itself every third of its time; given back when dropped.
#[derive(Debug)]
pub(crate) struct HeldLease {
    backend: Backend,
    /// A shutdown waits until it is given back.
    tasks: Tasks,
    lease: Option<Lease>,
    renewal: AbortHandle,
}

impl HeldLease {
    pub(crate) fn new(backend: &Backend, tasks: &Tasks, lease: Lease, ttl: Duration) -> Self {
        let renewal = {
            let backend = backend.clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(ttl / 3).await;
                    // An outage may end before the lease does.
                    if let Ok(false) = backend.renew(&lease, ttl).await {
                        break;
                    }
                }
            })
            .abort_handle()
        };
        Self { backend: backend.clone(), tasks: tasks.clone(), lease: Some(lease), renewal }
    }

    /// The lease itself, for a commit that ends it; call [`HeldLease::ended`] afterwards.
    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// The lease has been ended by a commit.
    pub(crate) fn ended(mut self) {
        self.lease = None;
    }

    /// Gives it back in this way.
    pub(crate) async fn release(mut self, how: Release) {
        self.renewal.abort();
        if let Some(lease) = self.lease.take() {
            release(&self.backend, &lease, how).await;
        }
    }
}

async fn release(backend: &Backend, lease: &Lease, how: Release) {
    if let Err(error) = backend.release(lease, how).await {
        // It ends by itself.
        tracing::debug!(%error, "a lease could not be given back");
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.renewal.abort();
        if let Some(lease) = self.lease.take() {
            let backend = self.backend.clone();
            self.tasks.spawn_last(async move { release(&backend, &lease, Release::Free).await });
        }
    }
}
