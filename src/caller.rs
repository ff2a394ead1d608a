//! Who sent a request and what the session layer knows of them: the one extension that it leaves in every request.
//!
//! It stands here, and its methods in [`session`](crate::session), because layers that know nothing of sessions find
//! [`Identity`] and [`Personal`] in it: an extension for each of them would cost every request.
//!
//! [`Personal`]: crate::Personal

use std::{any::Any, fmt, future::Future, marker::PhantomData, pin::Pin, sync::Arc};

use serde_json::{Map, Value};

use crate::{
    Identity, Personal,
    backend::BackendError,
    exchange::{Mark, Marked},
};

/// The session of a request, seen as a `T`.
///
/// It is a cheap clone in the extensions of every request that went through a [`SessionLayer`](crate::session::SessionLayer),
/// as `Session` (seen as a map); with the feature `axum` it is also an extractor. Nothing is loaded before it is asked
/// for, and nothing is stored before a handler changes something. Changes are stored before the head of the response
/// goes out, whatever its status: only fields that changed, and only if the session still exists.
///
/// `T` is a struct that serde turns into a JSON object; each of its fields is stored on its own, so that requests that
/// change different fields do not undo each other, and several types (an application's, a login crate's) share a
/// session. Fields that are not there come from `T::default()`. At most 256 fields, 4 KiB a field, 16 KiB in all.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tower_gatehouse::session::{Session, SessionError};
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Shop {
///     theme: String,
///     visits: u32,
/// }
///
/// async fn handler(request: http::Request<()>) -> Result<u32, SessionError> {
///     let session = Session::<Shop>::of(&request)?;
///     session.update(|shop| shop.visits += 1).await?;
///     Ok(session.load().await?.visits)
/// }
/// ```
///
/// All methods are cancel safe: a dropped future has changed the session wholly or not at all, and if it has given it
/// another token, then the response brings it. What was to be saved is stored with the response then.
pub struct Session<T = Map<String, Value>> {
    caller: Arc<dyn Caller>,
    as_type: PhantomData<fn() -> T>,
}

/// What a session layer knows of whoever sent a request.
pub(crate) trait Caller: Any + Marked {
    /// Whether who it is has to be looked up; if not, it is nobody.
    fn needs_lookup(&self) -> bool;

    /// Who it is. The same every time, without another look-up.
    fn identity(&self) -> Pin<Box<dyn Future<Output = Result<Identity, BackendError>> + Send + '_>>;
}

/// A caller with another mark than its own; without one, a layer knows by itself who it is.
pub(crate) struct Apart {
    pub(crate) caller: Option<Arc<dyn Caller>>,
    pub(crate) personal: Personal,
}

impl Marked for Apart {
    fn mark(&self) -> &Mark {
        self.personal.own()
    }
}

impl Caller for Apart {
    fn needs_lookup(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.needs_lookup())
    }

    fn identity(&self) -> Pin<Box<dyn Future<Output = Result<Identity, BackendError>> + Send + '_>> {
        match &self.caller {
            Some(caller) => caller.identity(),
            None => Box::pin(async { Ok(Identity::anonymous()) }),
        }
    }
}

impl<T> Session<T> {
    pub(crate) fn new(caller: Arc<dyn Caller>) -> Self {
        Self { caller, as_type: PhantomData }
    }

    pub(crate) fn caller(&self) -> &Arc<dyn Caller> {
        &self.caller
    }

    /// The same session, seen as another type.
    pub fn view<U>(&self) -> Session<U> {
        Session::new(self.caller.clone())
    }
}

impl<T> Clone for Session<T> {
    fn clone(&self) -> Self {
        self.view()
    }
}

impl<T> fmt::Debug for Session<T> {
    /// Neither token nor data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}
