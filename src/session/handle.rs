//! The handle that handlers work with.

use std::{any::Any, fmt, time::Duration};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{Session, SessionError, core::Core, fields, open::Open};
use crate::{
    Timestamp,
    backend::{Epoch, Lifetime, Record, RecordKey, UserKey},
};

/// What is known of a session besides its data.
#[derive(Clone)]
#[non_exhaustive]
pub struct SessionInfo {
    /// The handle: a keyed hash of the id. It is no credential, and may be logged and listed.
    pub handle: RecordKey,
    /// The user who is logged in.
    pub user: Option<Box<str>>,
    /// When it began, or the user logged in.
    pub created: Timestamp,
    /// When it ends unless it is used.
    pub expires: Timestamp,
    /// When it ends in any case.
    pub deadline: Timestamp,
    /// How often it was changed.
    pub version: u64,
}

/// Without the user's name.
impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { handle, user, created, expires, deadline, version } = self;
        f.debug_struct("SessionInfo")
            .field("handle", handle)
            .field("has_user", &user.is_some())
            .field("created", created)
            .field("expires", expires)
            .field("deadline", deadline)
            .field("version", version)
            .finish()
    }
}

/// How often a strict update is tried.
const ATTEMPTS: u32 = 200;

impl Session {
    /// The session in the extensions of a request, as a `U`.
    ///
    /// # Errors
    /// [`SessionError::NoLayer`] if the request did not go through a `SessionLayer`.
    pub(super) fn from_extensions(extensions: &http::Extensions) -> Result<&Self, SessionError> {
        extensions.get::<Self>().ok_or(SessionError::NoLayer)
    }
}

impl<T> Session<T> {
    pub(super) fn core(&self) -> Result<&Core, SessionError> {
        let caller: &dyn Any = &**self.caller();
        // Only session layers leave sessions.
        caller.downcast_ref().ok_or(SessionError::NoLayer)
    }

    /// The session of a request.
    ///
    /// # Errors
    /// [`SessionError::NoLayer`] if the request did not go through a `SessionLayer`.
    pub fn of<B>(request: &http::Request<B>) -> Result<Self, SessionError> {
        Ok(Session::from_extensions(request.extensions())?.view())
    }

    /// What is known of the session; `None` if there is none (yet), or a foreign token says who it is.
    pub async fn info(&self) -> Result<Option<SessionInfo>, SessionError> {
        let open = self.core()?.open().await?;
        Ok(open.live().map(|live| SessionInfo {
            handle: live.key,
            user: live.record.user.clone(),
            created: live.record.created,
            expires: live.record.expires,
            deadline: live.record.deadline,
            version: live.record.version,
        }))
    }

    /// The user who is logged in.
    pub async fn user(&self) -> Result<Option<String>, SessionError> {
        Ok(self.core()?.open().await?.user().map(ToOwned::to_owned))
    }

    /// A value by its key; `None` if it is not there.
    pub async fn get<V: DeserializeOwned>(&self, key: &str) -> Result<Option<V>, SessionError> {
        let field = self.core()?.open().await?.field(key);
        field.map(|json| serde_json::from_slice(&json).map_err(|error| data(&error))).transpose()
    }

    /// Sets a value by its key.
    pub async fn insert(&self, key: &str, value: impl Serialize + Send) -> Result<(), SessionError> {
        let json = serde_json::to_vec(&value).map_err(|error| data(&error))?;
        self.core()?.open().await?.stage([(key.into(), Some(json.into()))])
    }

    /// Removes a value by its key.
    pub async fn remove(&self, key: &str) -> Result<(), SessionError> {
        let mut open = self.core()?.open().await?;
        if open.field(key).is_none() {
            return Ok(());
        }
        open.stage([(key.into(), None)])
    }

    /// Stores the changes now, not only when the response's head is ready.
    ///
    /// # Errors
    /// What the store did not take because it could not be reached stays staged: another call tries again, and so does the
    /// layer when the response's head is ready, unless the store was waited for in vain. If it is not stored then either,
    /// the response becomes a 500; one that is an error of the server already, as this one is, stays as it is.
    pub async fn save(&self) -> Result<(), SessionError> {
        self.core()?.open().await?.save().await
    }

    /// A new token for the session; the old one is dead at once. For a change of privileges.
    pub async fn cycle(&self) -> Result<(), SessionError> {
        self.core()?.open().await?.cycle().await
    }

    /// Ends the session, at once. What is changed afterwards begins a new one.
    pub async fn destroy(&self) -> Result<(), SessionError> {
        self.core()?.destroy().await
    }

    /// Ends all sessions of the user who is logged in, also on other devices, at once, and every login of the user that
    /// is under way; says how many sessions there were. Of an anonymous session only itself. A foreign token stays as
    /// good as its issuer says.
    pub async fn revoke_all(&self) -> Result<u64, SessionError> {
        self.core()?.open().await?.revoke_all().await
    }

    /// Begins a login; to be called **before** the credentials are checked. If all sessions of the user are revoked
    /// between this and [`Login::finish`], then the login fails: whoever got in with a password that was changed
    /// meanwhile does not stay.
    pub async fn begin_login(&self, user: impl Into<Box<str>> + Send) -> Result<Login<T>, SessionError> {
        let core = self.core()?;
        core.mark.set();
        let user = user.into();
        let epoch = core.epoch(&UserKey::of(&user)).await?;
        Ok(Login { session: self.view(), user, epoch, began: core.config.backend.now() })
    }
}

impl<T: Serialize + DeserializeOwned + Default> Session<T> {
    /// The session's data. One round trip in the first call of a request, none without a token.
    pub async fn load(&self) -> Result<T, SessionError> {
        decode(&self.core()?.open().await?)
    }

    /// Changes the data, and says what the closure says. Stored before the response's head goes out: only the fields
    /// that the closure changed.
    ///
    /// Of two requests that change one field at the same time the later one wins; where that matters, use
    /// [`update_strict`](Self::update_strict).
    pub async fn update<R>(&self, change: impl FnOnce(&mut T) -> R + Send) -> Result<R, SessionError> {
        apply(&mut self.core()?.open().await?, change)
    }

    /// Changes the data and stores it at once, only if nobody else has changed the session in between; else it is read
    /// again and the closure called again. For counters and the like.
    ///
    /// # Errors
    /// [`SessionError::Conflict`] if others were faster 200 times.
    pub async fn update_strict<R>(&self, mut change: impl FnMut(&mut T) -> R + Send) -> Result<R, SessionError> {
        let core = self.core()?;
        // What was changed before is no part of this.
        core.open().await?.save().await?;
        for attempt in 0..ATTEMPTS {
            let mut open = core.open().await?;
            open.begin();
            let result = apply(&mut open, &mut change)?;
            match open.save_strictly().await {
                Err(SessionError::Conflict) => open.reload().await?,
                saved => return saved.map(|()| result),
            }
            drop(open);
            tokio::time::sleep(back_off(attempt)).await;
        }
        Err(SessionError::Conflict)
    }

    /// Logs a user in: the session becomes the user's, with the change, under a new token; the token from before is
    /// dead at once. Lives as long as the layer says.
    ///
    /// The data of an anonymous session stays; that of another user's does not. A login that is sent twice makes two
    /// sessions, both with that data.
    ///
    /// The user's name is what [`Key::user()`](crate::rate_limit::Key::user), services behind and shared maps go by: 1
    /// to 256 bytes.
    pub async fn login(
        &self,
        user: impl Into<Box<str>> + Send,
        change: impl FnOnce(&mut T) + Send,
    ) -> Result<(), SessionError> {
        self.begin_login(user).await?.finish(change).await
    }
}

/// A login under way; see [`Session::begin_login`].
pub struct Login<T> {
    session: Session<T>,
    user: Box<str>,
    epoch: Epoch,
    began: Timestamp,
}

impl<T: Serialize + DeserializeOwned + Default> Login<T> {
    /// For how long a login may be under way.
    pub const MAX_AGE: Duration = Duration::from_hours(1);

    /// The credentials were good.
    ///
    /// # Errors
    /// [`SessionError::Revoked`] if all sessions of the user were revoked since the login began, or that was more than
    /// an hour ago.
    pub async fn finish(self, change: impl FnOnce(&mut T) + Send) -> Result<(), SessionError> {
        let lifetime = self.session.core()?.config.user;
        self.finish_for(lifetime, change).await
    }

    /// The same for a session that lives as long as this ("remember me").
    pub async fn finish_for(self, lifetime: Lifetime, change: impl FnOnce(&mut T) + Send) -> Result<(), SessionError> {
        let core = self.session.core()?;
        if core.config.backend.now().since(self.began) > Self::MAX_AGE {
            return Err(SessionError::Revoked);
        }
        let mut open = core.open().await?;
        open.make_way_for(&self.user).await?;
        open.begin();
        apply(&mut open, change)?;
        open.login(&self.user, self.epoch, lifetime).await
    }
}

fn decode<T: Serialize + DeserializeOwned + Default>(open: &Open<'_>) -> Result<T, SessionError> {
    if open.fields().next().is_none() {
        return Ok(T::default());
    }
    if let Some(data) = fields::read(open.fields()) {
        return Ok(data);
    }
    let json = fields::to_json(open.fields());
    let error = match serde_json::from_slice(&json) {
        Ok(data) => return Ok(data),
        Err(error) => error,
    };
    // Fields are missing: they have never been written, or belong to a newer version of the type.
    let mut whole = object(&T::default())?;
    let stored: Map<String, Value> = serde_json::from_slice(&json).map_err(|error| data(&error))?;
    whole.extend(stored);
    serde_json::from_value(Value::Object(whole)).map_err(|_| data(&error))
}

fn apply<T: Serialize + DeserializeOwned + Default, R>(
    open: &mut Open<'_>,
    change: impl FnOnce(&mut T) -> R,
) -> Result<R, SessionError> {
    let mut data: T = decode(open)?;
    let before = object(&data)?;
    let result = change(&mut data);
    let after = object(&data)?;
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.as_str().into(), None));
    let set = after
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .map(|(key, value)| (key.as_str().into(), Some(Bytes::from(value.to_string()))));
    let changes: Vec<_> = gone.chain(set).collect();
    if !changes.is_empty() {
        open.stage(changes)?;
    }
    Ok(result)
}

fn object(value: &impl Serialize) -> Result<Map<String, Value>, SessionError> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(SessionError::Data("the type is not a struct or a map".to_owned())),
        Err(error) => Err(data(&error)),
    }
}

/// Says where and what, not the data itself: serde's messages quote values.
fn data(error: &serde_json::Error) -> SessionError {
    let what = match error.classify() {
        serde_json::error::Category::Data => "a field has another type, or is missing",
        _ => "it is not JSON",
    };
    SessionError::Data(format!("{what} (column {})", error.column()))
}

/// Random, so that those who ran into each other do not do it again.
fn back_off(attempt: u32) -> Duration {
    let mut random = [0; 2];
    // Without random bytes they run into each other more often, no more.
    let _ = getrandom::fill(&mut random);
    Duration::from_micros(u64::from(u16::from_le_bytes(random)) * u64::from(attempt.min(9) + 1) / 20)
}

impl<T> fmt::Debug for Login<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

const _: () = assert!(Record::MAX_USER == 256, "the documentation says so");
