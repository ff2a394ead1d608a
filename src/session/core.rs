//! The session of one request: what was presented, what was loaded, what is to be stored.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::lock::Mutex;
use http::Method;
use tracing::{Instrument as _, field::Empty};

use super::{
    SessionError, config::Config, count, moving::Moving, open::Open, resolver::Resolved, source::Presented,
    token::Token,
};
use crate::{
    backend::{BackendError, Epoch, Receipt, Record, RecordKey, UserKey},
    exchange::Mark,
    span::{debug_span, record},
};

/// Shared by all handles of a request.
pub(super) struct Core {
    pub(super) config: Arc<Config>,
    pub(super) presented: Presented,
    /// Of the request: an answer of the layer's own to a HEAD has no content.
    pub(super) method: Method,
    /// Whether the answer depends on who asks.
    pub(super) mark: Mark,
    /// Whether a layer around looks for the mark in the answer.
    pub(super) is_mark_asked_for: bool,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) loaded: Loaded,
    /// What the handler changed and what is not stored yet; `None` removes.
    pub(super) pending: Pending,
    /// The token of a session that is to be created.
    pub(super) new: Option<Token>,
    /// Something else hangs on that session, as a shared map does.
    pub(super) needed: bool,
    /// How the store failed at what the handler, who knows, has asked of it last.
    pub(super) told: Option<BackendError>,
    /// The session is on its way to a new token, or was when the future was dropped.
    ///
    /// Boxed, so that the others have no room for it.
    pub(super) moving: Option<Box<Moving>>,
    /// What the client has to be told.
    pub(super) credential: Credential,
    /// Its end was moved in this request.
    pub(super) renewed: bool,
    /// The head of the response is about to go out.
    pub(super) closed: bool,
}

pub(super) enum Loaded {
    NotYet,
    /// There is no session; whether the client believes that there is.
    Nothing {
        unknown: bool,
    },
    Live(Live),
    /// A foreign token says who it is.
    Foreign(Arc<Resolved>),
    Failed(SessionError),
}

#[derive(Clone)]
pub(super) struct Live {
    pub(super) key: RecordKey,
    pub(super) record: Arc<Record>,
}

/// Changed fields; `None` removes.
pub(super) type Pending = BTreeMap<Box<str>, Option<Bytes>>;

/// Why changes are not stored when the head of the response is ready.
pub(super) struct Unsaved {
    pub(super) error: SessionError,
    /// If the handler answers with an error, it has met the store's failure itself.
    pub(super) is_known: bool,
}

/// What the response tells the client.
#[derive(Debug)]
pub(super) enum Credential {
    /// Nothing new.
    Keep,
    /// The session has this token now.
    Issue(Token, Receipt),
    /// The token is worth nothing.
    Expire,
}

impl Core {
    pub(super) fn new(
        config: &Arc<Config>,
        presented: Presented,
        method: &Method,
        is_mark_asked_for: bool,
    ) -> Arc<Self> {
        let mark = Mark::default();
        let loaded = match &presented {
            Presented::Token(..) => Loaded::NotYet,
            Presented::Foreign(_) if config.resolver.is_some() => Loaded::NotYet,
            Presented::Nothing => Loaded::Nothing { unknown: false },
            Presented::Bad(_) | Presented::Foreign(_) => Loaded::Nothing { unknown: true },
        };
        count::presented(&presented, config.resolver.is_some());
        let begin = config.begin_at_once && matches!(presented, Presented::Nothing);
        let new = begin.then(|| Token::mint(&config.keys, None));
        Arc::new(Self {
            config: config.clone(),
            presented,
            method: method.clone(),
            mark,
            is_mark_asked_for,
            state: Mutex::new(State {
                loaded,
                pending: BTreeMap::new(),
                new,
                needed: false,
                told: None,
                moving: None,
                credential: Credential::Keep,
                renewed: false,
                closed: false,
            }),
        })
    }

    /// What the handler does from here on depends on who asks.
    pub(super) async fn open(&self) -> Result<Open<'_>, SessionError> {
        self.mark.set();
        self.loaded().await
    }

    /// The same without making the answer personal: for layers that only have to know.
    pub(super) async fn loaded(&self) -> Result<Open<'_>, SessionError> {
        let mut state = match self.state.try_lock() {
            Some(state) => state,
            None => self.state.lock().await,
        };
        self.catch_up(&mut state).await?;
        if matches!(state.loaded, Loaded::NotYet) {
            let session = self.presented.handle().map(tracing::field::display);
            let span = debug_span!("session_load", session, outcome = Empty);
            state.loaded = match span.in_scope(|| self.load_now()) {
                Some(loaded) => loaded,
                // Boxed, so that those that need not wait have no room for it.
                None => Box::pin(self.load()).instrument(span.clone()).await,
            };
            let found = count::loaded(&self.config.loads, &state.loaded);
            record(&span, "outcome", found.as_str());
        }
        match &state.loaded {
            Loaded::Failed(error) => Err(error.clone()),
            _ => Ok(Open::new(self, state)),
        }
    }

    /// Where the answer is known without waiting.
    fn load_now(&self) -> Option<Loaded> {
        let Presented::Token(key, _) = &self.presented else { return None };
        Some(Loaded::of(*key, self.config.backend.load_now(key)?))
    }

    async fn load(&self) -> Loaded {
        match (&self.presented, &self.config.resolver) {
            (Presented::Token(key, _), _) => Loaded::of(*key, self.config.backend.load(key).await),
            (Presented::Foreign(token), Some(authority)) => {
                match authority.resolve(token, self.config.backend.now()).await {
                    Ok(Some(resolved)) => Loaded::Foreign(resolved),
                    Ok(None) => Loaded::Nothing { unknown: true },
                    Err(error) => Loaded::Failed(error),
                }
            }
            _ => Loaded::Nothing { unknown: false },
        }
    }

    /// Ends the session of the request without loading it.
    pub(super) async fn destroy(&self) -> Result<(), SessionError> {
        self.mark.set_credential();
        if let Presented::Foreign(_) = self.presented {
            // Whether it is good, and then cannot be ended here.
            self.loaded().await?;
        }
        let mut state = self.state.lock().await;
        self.catch_up(&mut state).await?;
        let key = match (&state.loaded, &self.presented) {
            (Loaded::Live(live), _) => Some(live.key),
            (Loaded::NotYet | Loaded::Failed(_), Presented::Token(key, _)) => Some(*key),
            (Loaded::Foreign(_), _) => return Err(SessionError::Foreign),
            _ => None,
        };
        if let Some(key) = key {
            let destroyed = count::wrote("destroy", self.config.backend.destroy(&key).await);
            state.heard(destroyed)?;
        }
        state.forget();
        Ok(())
    }

    /// Of a user who is about to log in.
    pub(super) async fn epoch(&self, user: &UserKey) -> Result<Epoch, SessionError> {
        let epoch = self.config.backend.epoch(user).await.map_err(SessionError::from);
        self.state.lock().await.heard(epoch)
    }

    /// At the head of the response, if it is known without waiting that there is nothing to do.
    pub(super) fn close_quietly(&self) -> Option<Credential> {
        let mut state = self.state.try_lock()?;
        if !state.pending.is_empty() || state.new.is_some() || state.moving.is_some() {
            return None;
        }
        Some(self.close(&mut state))
    }

    /// Stores what is not stored yet, before the head of the response goes out.
    pub(super) async fn finish(&self) -> (Credential, Result<(), Unsaved>) {
        let mut state = self.state.lock().await;
        if let Err(error) = self.catch_up(&mut state).await {
            tracing::debug!(%error, "whether a session has moved is not known");
        }
        let mut open = Open::new(self, state);
        let saved = open.save_at_last().await;
        let credential = self.close(open.state_mut());
        (credential, saved)
    }

    fn close(&self, state: &mut State) -> Credential {
        state.closed = true;
        if let (Loaded::Live(live), false) = (&state.loaded, state.renewed)
            && self.config.is_touch_due(&live.record)
        {
            self.touch(live.key);
        }
        let unknown = matches!(state.loaded, Loaded::Nothing { unknown: true });
        match std::mem::replace(&mut state.credential, Credential::Keep) {
            Credential::Keep if unknown => Credential::Expire,
            credential => credential,
        }
    }

    /// Off the response's path. Bounded: the store ends every operation by its own deadline.
    fn touch(&self, key: RecordKey) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let backend = self.config.backend.clone();
        runtime.spawn(async move {
            if let Err(error) = count::wrote("touch", backend.touch(&key).await) {
                tracing::debug!(session = %key, %error, "a session could not be touched");
            }
        });
    }
}

impl Loaded {
    /// What the store says of this record.
    fn of(key: RecordKey, answer: Result<Option<Arc<Record>>, BackendError>) -> Self {
        match answer {
            Ok(Some(record)) => Self::Live(Live { key, record }),
            Ok(None) => Self::Nothing { unknown: true },
            Err(error) => Self::Failed(error.into()),
        }
    }
}

impl State {
    /// Remembers whether the store has failed.
    pub(super) fn heard<T>(&mut self, said: Result<T, SessionError>) -> Result<T, SessionError> {
        self.told = match &said {
            Err(SessionError::Backend(error)) => Some(error.clone()),
            _ => None,
        };
        said
    }

    pub(super) fn forget(&mut self) {
        self.loaded = Loaded::Nothing { unknown: false };
        self.pending.clear();
        self.new = None;
        self.credential = Credential::Expire;
    }
}

impl Live {
    pub(super) fn after(&self, pending: &Pending, receipt: Receipt) -> Self {
        let mut record = Record::clone(&self.record);
        for (name, value) in pending {
            match value {
                Some(value) => drop(record.fields.insert(name.clone(), value.clone())),
                None => drop(record.fields.remove(name)),
            }
        }
        let Receipt { version, expires, deadline } = receipt;
        Self { key: self.key, record: Arc::new(Record { version, expires, deadline, ..record }) }
    }
}
