//! Sessions from outside of a request: for an administration, a job, a change of password.

use super::count;
use crate::{
    Backend,
    backend::{BackendError, RecordKey, UserKey},
};

/// The sessions in a store.
///
/// ```
/// use tower_gatehouse::{Backend, session::Sessions};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let sessions = Sessions::new(&Backend::memory());
/// assert_eq!(sessions.revoke_all("ann").await?, 0);
/// # Ok::<(), tower_gatehouse::backend::BackendError>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Sessions(Backend);

impl Sessions {
    /// Those in this store.
    pub fn new(backend: &Backend) -> Self {
        Self(backend.clone())
    }

    /// The handles of a user's sessions, oldest first.
    pub async fn of(&self, user: &str) -> Result<Vec<RecordKey>, BackendError> {
        self.0.records_of(&UserKey::of(user)).await
    }

    /// Ends one session, at once; `false` if there was none.
    pub async fn destroy(&self, handle: &RecordKey) -> Result<bool, BackendError> {
        let destroyed = self.0.destroy(handle).await;
        count::wrote("destroy", destroyed.clone()).ok();
        destroyed
    }

    /// Ends all sessions of a user, at once, and every login of the user that is under way; says how many sessions
    /// there were.
    pub async fn revoke_all(&self, user: &str) -> Result<u64, BackendError> {
        let revoked = self.0.revoke_all(&UserKey::of(user)).await;
        count::wrote("revoke-all", revoked.clone()).ok();
        revoked
    }
}
