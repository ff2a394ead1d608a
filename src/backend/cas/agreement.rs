//! The number of buckets, on which all processes of a namespace have to agree: to those with another one an invalidation
//! would say nothing.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    CasStore, Inner, Step,
    codec::{Reader, Writer},
};
use crate::backend::{BackendError, ErrorKind};

/// When it was looked at last, and right.
#[derive(Debug, Default)]
pub(super) struct Agreed(Mutex<Option<Instant>>);

/// The store may lose it, and somebody with another one come first.
const EVERY: Duration = Duration::from_secs(10);

impl Agreed {
    /// Whether the caller has to look; where it was right before, one at a time does.
    fn is_due(&self) -> bool {
        let mut at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if at.is_some_and(|at| at.elapsed() < EVERY) {
            return false;
        }
        *at = at.map(|_| Instant::now());
        true
    }

    fn set(&self, is_right: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = is_right.then(Instant::now);
    }
}

impl<S: CasStore> Inner<S> {
    /// Before responses and leases are touched.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: the namespace is spread over another number of buckets.
    pub(super) async fn agree(&self) -> Result<(), BackendError> {
        if self.agreed.is_due() { self.agree_now().await } else { Ok(()) }
    }

    /// The same, looked at now.
    pub(super) async fn agree_now(&self) -> Result<(), BackendError> {
        let looked = self.look_at_number().await;
        self.agreed.set(looked.is_ok());
        looked
    }

    async fn look_at_number(&self) -> Result<(), BackendError> {
        let ours = self.names.buckets();
        self.change(&self.names.number_of_buckets(), |value| {
            match value.and_then(|value| Reader::new(value)?.array().map(u16::from_le_bytes)) {
                None => {
                    let mut writer = Writer::new();
                    writer.array(&ours.to_le_bytes());
                    Ok(Step::Set(writer.finish(), None, ()))
                }
                Some(there) if there == ours => Ok(Step::Keep(())),
                Some(there) => {
                    let namespace = self.names.namespace();
                    let message = format!(
                        "the namespace {namespace} is spread over {there} buckets, but this process is set up for {ours}"
                    );
                    Err(BackendError::new(ErrorKind::Config, message))
                }
            }
        })
        .await
    }
}
