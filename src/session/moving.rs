//! A session on its way to a new token, and what becomes of it when nobody sees it arrive.

use std::future::Future;

use super::{
    SessionError,
    core::{Core, Credential, Live, Loaded, State},
    count,
    token::Token,
};
use crate::{
    backend::{BackendError, Epoch, ErrorKind, Link, Receipt, RecordKey, Saved, UserKey},
    unbroken::Unbroken,
};

/// A session that is given a new token, and where it was. Nobody else has the token: it is kept here until it is known
/// what came of it, because whoever waits for that may be dropped, and the store's answer may be lost.
pub(super) struct Moving {
    from: Option<RecordKey>,
    token: Token,
    work: Unbroken<Result<Saved, SessionError>>,
}

/// A [`Link`] that borrows nothing.
pub(super) struct OwnLink {
    key: UserKey,
    name: Box<str>,
    epoch: Option<Epoch>,
    max_sessions: u32,
}

impl OwnLink {
    pub(super) fn of(link: &Link<'_>) -> Self {
        let Link { key, name, epoch, max_sessions } = *link;
        Self { key, name: name.into(), epoch, max_sessions }
    }

    pub(super) fn link(&self) -> Link<'_> {
        Link { key: self.key, name: &self.name, epoch: self.epoch, max_sessions: self.max_sessions }
    }
}

impl State {
    /// Has the store give the session this token. Where this is dropped, or fails, it is for [`Core::catch_up`] to see
    /// what came of it.
    pub(super) async fn follow(
        &mut self,
        from: Option<RecordKey>,
        token: &Token,
        work: impl Future<Output = Result<Saved, SessionError>> + Send + 'static,
    ) -> Result<Saved, SessionError> {
        let moving = Box::new(Moving { from, token: token.clone(), work: Unbroken::begin(work) });
        let saved = self.moving.insert(moving).work.end().await;
        let saved = saved.unwrap_or_else(|| Err(BackendError::new(ErrorKind::Unavailable, "the runtime stops").into()));
        if saved.is_ok() {
            self.moving = None;
        }
        saved
    }
}

impl Core {
    /// Sees what came of a move that nobody has seen the end of. Only what is there counts: a session that was ended
    /// meanwhile stays ended.
    pub(super) async fn catch_up(&self, state: &mut State) -> Result<(), SessionError> {
        if state.moving.is_some() {
            // Boxed, so that the others have no room for it.
            let seen = Box::pin(self.see_end(state)).await;
            return state.heard(seen);
        }
        Ok(())
    }

    async fn see_end(&self, state: &mut State) -> Result<(), SessionError> {
        let Some(moving) = &mut state.moving else { return Ok(()) };
        let refused = matches!(moving.work.end().await, Some(Ok(saved)) if !matches!(saved, Saved::Done(_)));
        let (backend, key) = (&self.config.backend, moving.token.key());
        if !refused && let Some(record) = backend.load(&key).await? {
            if let Some(from) = moving.from {
                // A store that failed half-way may have left both.
                count::wrote("destroy", backend.destroy(&from).await)?;
            }
            let receipt = Receipt { version: record.version, expires: record.expires, deadline: record.deadline };
            state.credential = Credential::Issue(moving.token.clone(), receipt);
            state.loaded = Loaded::Live(Live { key, record });
            state.renewed = true;
        }
        state.moving = None;
        Ok(())
    }
}
