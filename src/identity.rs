//! Who is asking: what a session layer found, left in the request's extensions for the layers inside.

use std::{fmt, sync::Arc};

use http::{Extensions, request::Parts};

use crate::{
    Personal,
    backend::BackendError,
    caller::{Apart, Caller, Session},
};

/// Who is asking, as an authenticating layer found it.
///
/// **Every** request that went through a `SessionLayer`, or in a service behind a gateway through a
/// `VerifySessionLayer`, has one, also an anonymous one: its absence means that no such layer stands outside. An
/// authenticating layer of one's own leaves one in the extensions of the request:
///
/// ```
/// use tower_gatehouse::Identity;
///
/// let mut request = http::Request::new(());
/// assert_eq!(Identity::of(request.extensions()), None);
/// request.extensions_mut().insert(Identity::anonymous().with_user("u17"));
/// assert_eq!(Identity::of(request.extensions()).unwrap().user(), Some("u17"));
/// ```
///
/// The nearest of such layers is the one that is believed.
///
/// Who it is may cost a look-up, which is made once for a request and only if somebody asks: read it from what
/// [`known`](Self::known) returns. Where a session layer knows it, or a `VerifySessionLayer`, reading it marks the
/// answer as [personal](crate::Personal), as reading the session does.
#[derive(Clone, Default)]
pub struct Identity {
    user: Option<Arc<str>>,
    session: Option<[u8; 16]>,
    /// The layer that knows it.
    caller: Option<Arc<dyn Caller>>,
    needs_lookup: bool,
}

impl Identity {
    /// Nobody is known: neither a user nor a session.
    pub const fn anonymous() -> Self {
        Self { user: None, session: None, caller: None, needs_lookup: false }
    }

    /// Who sends the request with these extensions; `None` if no layer has said so.
    pub fn of(extensions: &Extensions) -> Option<Self> {
        if let Some(known) = extensions.get::<Self>() {
            return Some(known.clone());
        }
        let caller = extensions.get::<Session>()?.caller();
        Some(Self { needs_lookup: caller.needs_lookup(), caller: Some(caller.clone()), ..Self::anonymous() })
    }

    /// Leaves it in a request; reading it marks the answer, also for the layers that the request came through.
    pub(crate) fn leave(mut self, extensions: &mut Extensions) {
        let personal = Personal::of(extensions).unwrap_or_else(|| {
            let own = Personal::default();
            extensions.insert(own.clone());
            own
        });
        self.caller = Some(Arc::new(Apart { caller: None, personal }));
        extensions.insert(self);
    }

    /// Whether who it is has to be looked up.
    pub(crate) fn needs_lookup(&self) -> bool {
        self.needs_lookup
    }

    /// The same for one of several requests that are made for this one, with the mark of its own answer.
    pub(crate) fn apart(mut self) -> (Self, Personal) {
        let personal = Personal::default();
        self.caller = Some(Arc::new(Apart { caller: self.caller.take(), personal: personal.clone() }));
        (self, personal)
    }

    /// The same for layers, which do not change the answer by what they read here: it marks nothing.
    pub(crate) fn unmarked(mut self) -> Self {
        if !self.needs_lookup {
            self.caller = None;
        }
        self
    }

    /// What functions that a layer calls see of a request: what they read of who is asking marks nothing either.
    pub(crate) fn for_layers<T>(parts: &mut Parts, look: impl FnOnce(&Parts) -> T) -> T {
        if let Some(own) = parts.extensions.get_mut::<Self>() {
            // What is still to be looked up marks nothing.
            let marked = if own.needs_lookup { None } else { own.caller.take() };
            let seen = look(parts);
            if marked.is_some()
                && let Some(own) = parts.extensions.get_mut::<Self>()
            {
                own.caller = marked;
            }
            return seen;
        }
        match Self::of(&parts.extensions) {
            Some(of_session) if !of_session.needs_lookup => {
                parts.extensions.insert(of_session.unmarked());
                let seen = look(parts);
                parts.extensions.remove::<Self>();
                seen
            }
            _ => look(parts),
        }
    }

    /// Whether it tells who is asking without marking the answer.
    pub(crate) fn tells_unmarked(&self) -> bool {
        self.caller.is_none() && (self.user.is_some() || self.session.is_some())
    }

    fn marks(&self) {
        // What is not looked up is the same of everybody.
        if let Some(caller) = &self.caller
            && !self.needs_lookup
        {
            caller.mark().set();
        }
    }

    /// Who it is, looked up if that has not been done in this request.
    ///
    /// # Errors
    /// If the store that knows cannot be asked. Whoever treats this as anonymous lets everybody in.
    pub async fn known(&self) -> Result<Self, BackendError> {
        match &self.caller {
            Some(caller) if self.needs_lookup => {
                let known = caller.identity().await?;
                Ok(Self { caller: Some(caller.clone()), ..known })
            }
            _ => Ok(self.clone()),
        }
    }

    /// The user who is logged in, by the application's own id.
    #[must_use]
    pub fn with_user(mut self, id: impl Into<Arc<str>>) -> Self {
        self.user = Some(id.into());
        self
    }

    /// The session, by a handle that is not a credential (a keyed hash of its id, never the token).
    #[must_use]
    pub const fn with_session(mut self, handle: [u8; 16]) -> Self {
        self.session = Some(handle);
        self
    }

    /// The id of the user who is logged in; `None` for an anonymous one.
    pub fn user(&self) -> Option<&str> {
        self.marks();
        self.user.as_deref()
    }

    /// The handle under which the session began; `None` where there is no session. It stays the same when a login gives
    /// the session another token, so it may count and name what goes with a session; the one of now, by which
    /// `Sessions` knows it, is in `SessionInfo`.
    pub fn session(&self) -> Option<&[u8; 16]> {
        self.marks();
        self.session.as_ref()
    }
}

impl PartialEq for Identity {
    /// Compares what is known without a look-up.
    fn eq(&self, other: &Self) -> bool {
        self.marks();
        other.marks();
        (&self.user, self.session) == (&other.user, other.session)
    }
}

impl Eq for Identity {}

/// Tells what is known, not who it is.
#[allow(clippy::missing_fields_in_debug)] // how it is looked up is nobody's business
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("user", &self.user.as_ref().map(|_| "…"))
            .field("session", &self.session.as_ref().map(|_| "…"))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_names_neither_user_nor_session() {
        let shown = format!("{:?}", Identity::anonymous().with_user("alice").with_session([0xab; 16]));
        assert_eq!(shown, r#"Identity { user: Some("…"), session: Some("…") }"#);
    }
}
