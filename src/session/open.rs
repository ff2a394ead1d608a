//! Reading and changing a session that is loaded.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::lock::MutexGuard;

use super::{
    SessionError,
    core::{Core, Credential, Live, Loaded, Pending, State, Unsaved},
    count,
    fields::Fields,
    moving::OwnLink,
    token::Token,
};
use crate::backend::{
    Changes, Create, Cycle, Epoch, ErrorKind, Lifetime, Link, MapOwner, Receipt, Record, RecordKey, Saved, UserKey,
};

/// A session that is loaded, held by one handle at a time.
pub(super) struct Open<'a> {
    core: &'a Core,
    state: MutexGuard<'a, State>,
    /// What is pending again if whoever holds this goes away in the middle.
    before: Option<Pending>,
}

impl<'a> Open<'a> {
    pub(super) fn new(core: &'a Core, state: MutexGuard<'a, State>) -> Self {
        Self { core, state, before: None }
    }

    /// What is staged from here on is to be stored in the same future, or not at all.
    pub(super) fn begin(&mut self) {
        self.before = Some(self.state.pending.clone());
    }

    /// Takes what is to be stored; [`answered`](Self::answered) has to follow.
    fn take(&mut self) -> Pending {
        if self.before.is_none() {
            self.begin();
        }
        std::mem::take(&mut self.state.pending)
    }

    /// The store has said what came of it: what it did not take is pending as it was before, unless it never will.
    fn answered<T>(&mut self, result: Result<T, SessionError>) -> Result<T, SessionError> {
        let before = self.before.take();
        if let (Err(SessionError::Backend(_) | SessionError::Revoked | SessionError::Conflict), Some(before)) =
            (&result, before)
        {
            self.state.pending = before;
        }
        self.state.heard(result)
    }

    pub(super) fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    pub(super) fn live(&self) -> Option<&Live> {
        match &self.state.loaded {
            Loaded::Live(live) => Some(live),
            _ => None,
        }
    }

    pub(super) fn user(&self) -> Option<&str> {
        match &self.state.loaded {
            Loaded::Live(live) => live.record.user.as_deref(),
            Loaded::Foreign(resolved) => Some(resolved.name()),
            _ => None,
        }
    }

    /// Whether the request came with a credential that is good, or gets one because every visitor does.
    pub(super) fn is_known(&self) -> bool {
        let begins = self.core.config.begin_at_once && self.state.new.is_some();
        begins || matches!(self.state.loaded, Loaded::Live(_) | Loaded::Foreign(_))
    }

    /// A value as the handler would see it.
    pub(super) fn field(&self, name: &str) -> Option<Bytes> {
        match (self.state.pending.get(name), &self.state.loaded) {
            (Some(pending), _) => pending.clone(),
            (None, Loaded::Live(live)) => live.record.fields.get(name).cloned(),
            (None, Loaded::Foreign(resolved)) => resolved.fields().get(name).cloned(),
            _ => None,
        }
    }

    /// All values as the handler would see them.
    pub(super) fn fields(&self) -> Fields<'_> {
        let stored = match &self.state.loaded {
            Loaded::Live(live) => Some(&live.record.fields),
            Loaded::Foreign(resolved) => Some(resolved.fields()),
            _ => None,
        };
        Fields::new(stored, &self.state.pending)
    }

    /// Changes fields when the response's head is ready.
    pub(super) fn stage(
        &mut self,
        changes: impl IntoIterator<Item = (Box<str>, Option<Bytes>)>,
    ) -> Result<(), SessionError> {
        self.check_writable()?;
        if self.live().is_none() {
            self.brings_credential();
        }
        let before = self.state.pending.clone();
        self.state.pending.extend(changes);
        let checked = self.check_size();
        if checked.is_err() {
            self.state.pending = before;
        }
        checked
    }

    /// The client will be told of a new token, or that its token is dead.
    fn brings_credential(&self) {
        self.core.mark.set_credential();
    }

    fn check_writable(&self) -> Result<(), SessionError> {
        match self.state.loaded {
            _ if self.state.closed => Err(SessionError::TooLate),
            Loaded::Foreign(_) => Err(SessionError::Foreign),
            _ => Ok(()),
        }
    }

    /// The store checks again, with what others have changed.
    fn check_size(&self) -> Result<(), SessionError> {
        let (mut fields, mut size) = (0, 0);
        for (name, value) in self.fields() {
            fields += 1;
            size += name.len() + value.len();
            if name.len() + value.len() > Record::MAX_FIELD {
                return Err(SessionError::TooLarge("a field of a session has at most 4 KiB"));
            }
        }
        if fields > Record::MAX_FIELDS {
            return Err(SessionError::TooLarge("a session has at most 256 fields"));
        }
        if size > Record::MAX_SIZE {
            return Err(SessionError::TooLarge("a session has at most 16 KiB"));
        }
        Ok(())
    }

    /// Stores the changes now; a session that is not there yet is created.
    pub(super) async fn save(&mut self) -> Result<(), SessionError> {
        self.store(None).await
    }

    /// The same, only if nobody else has changed the session since it was loaded.
    pub(super) async fn save_strictly(&mut self) -> Result<(), SessionError> {
        let version = self.live().map(|live| live.record.version);
        self.store(version).await
    }

    async fn store(&mut self, expected: Option<u64>) -> Result<(), SessionError> {
        if self.state.pending.is_empty() && self.state.new.is_none() {
            return Ok(());
        }
        self.check_writable()?;
        let pending = self.take();
        let Some(live) = self.live().cloned() else {
            let created = self.create(&pending, self.core.config.anonymous, None).await;
            return self.answered(created);
        };
        let (set, remove) = split(&pending);
        let changes = Changes { set: &set, remove: &remove };
        let saved = self.core.config.backend.commit_record(&live.key, changes, expected).await;
        let committed = match count::wrote("commit", saved) {
            Ok(Saved::Done(receipt)) => {
                self.state.renewed = true;
                self.state.loaded = Loaded::Live(live.after(&pending, receipt));
                Ok(())
            }
            Ok(Saved::Conflict) => Err(SessionError::Conflict),
            Ok(_) => {
                // The client's cookie stays as it is: it may be a newer one by now.
                self.state.loaded = Loaded::Nothing { unknown: false };
                Err(SessionError::Ended)
            }
            Err(error) => Err(error),
        };
        self.answered(committed)
    }

    /// Stores what is left when the head of the response is ready.
    pub(super) async fn save_at_last(&mut self) -> Result<(), Unsaved> {
        if self.state.pending.is_empty() && self.state.new.is_none() {
            return Ok(());
        }
        let changes_nothing = self.state.pending.is_empty();
        let told = self.state.told.take();
        let saved = match &told {
            // It was waited for once.
            Some(error) if error.kind() == ErrorKind::Timeout => Err(error.clone().into()),
            _ => self.save().await,
        };
        match saved {
            Err(SessionError::Backend(error)) if changes_nothing && !self.state.needed => {
                // The next request begins it.
                if error.is_outage() {
                    tracing::debug!(%error, "a session could not begin");
                } else {
                    tracing::warn!(%error, "a session could not begin");
                }
                Ok(())
            }
            Err(error) => {
                let is_known = matches!(error, SessionError::Backend(_)) && (told.is_some() || changes_nothing);
                Err(Unsaved { error, is_known })
            }
            Ok(()) => Ok(()),
        }
    }

    /// Reads the session again; what is staged stays staged.
    pub(super) async fn reload(&mut self) -> Result<(), SessionError> {
        let Some(live) = self.live() else { return Ok(()) };
        let key = live.key;
        let loaded = self.core.config.backend.load(&key).await.map_err(SessionError::from);
        if let Some(record) = self.state.heard(loaded)? {
            self.state.loaded = Loaded::Live(Live { key, record });
            Ok(())
        } else {
            // It would begin a new session.
            self.state.pending.clear();
            self.state.loaded = Loaded::Nothing { unknown: false };
            Err(SessionError::Ended)
        }
    }

    async fn create(
        &mut self,
        pending: &Pending,
        lifetime: Lifetime,
        link: Option<Link<'_>>,
    ) -> Result<(), SessionError> {
        let home = link.map(|link| link.key.home());
        let backend = &self.core.config.backend;
        let token = match self.state.new.clone() {
            Some(token) if home.is_none() => token,
            _ => Token::mint(&self.core.config.keys, home),
        };
        if home.is_none() {
            self.state.new = Some(token.clone());
        }
        let (key, (set, remove)) = (token.key(), split(pending));
        let saved = if let Some(link) = link {
            let (backend, link) = (backend.clone(), OwnLink::of(&link));
            let work = async move {
                let create = Create { key, set: &set, lifetime, link: Some(link.link()) };
                count::wrote("create", backend.create(create).await)
            };
            self.state.follow(None, &token, work).await
        } else {
            match count::wrote("create", backend.create(Create { key, set: &set, lifetime, link }).await) {
                // A future that was dropped has made it: nobody else has this token.
                Ok(Saved::Exists) => {
                    let changes = Changes { set: &set, remove: &remove };
                    count::wrote("commit", backend.commit_record(&key, changes, None).await)
                }
                saved => saved,
            }
        };
        // Where the store has not answered, the next attempt has the same token.
        let saved = saved?;
        self.state.new = None;
        match saved {
            Saved::Done(receipt) => {
                let now = self.core.config.backend.now();
                let record = Record {
                    version: 0,
                    created: now,
                    expires: receipt.expires,
                    deadline: receipt.deadline,
                    idle: lifetime.idle,
                    user: link.map(|link| link.name.into()),
                    began_as: None,
                    fields: BTreeMap::new(),
                };
                let live = Live { key: token.key(), record: Arc::new(record) };
                self.arrive(live.after(pending, receipt), token, receipt);
                Ok(())
            }
            Saved::Revoked => Err(SessionError::Revoked),
            // Not with 160 random bits.
            _ => Err(SessionError::Conflict),
        }
    }

    fn arrive(&mut self, live: Live, token: Token, receipt: Receipt) {
        self.state.loaded = Loaded::Live(live);
        self.state.renewed = true;
        self.state.credential = Credential::Issue(token, receipt);
    }

    /// Makes sure that nothing of another user's session gets into that of this one.
    pub(super) async fn make_way_for(&mut self, user: &str) -> Result<(), SessionError> {
        self.brings_credential();
        self.check_writable()?;
        if user.is_empty() || user.len() > Record::MAX_USER {
            return Err(SessionError::TooLarge("the name of a user has 1 to 256 bytes"));
        }
        if let Some(live) = self.live()
            && live.record.user.as_deref().is_some_and(|other| other != user)
        {
            let key = live.key;
            let destroyed = count::wrote("destroy", self.core.config.backend.destroy(&key).await);
            self.state.heard(destroyed)?;
            self.state.forget();
        }
        if self.state.new.is_some() {
            // Shared maps may have been written under this key already; the session must know where it began.
            self.save().await?;
        }
        Ok(())
    }

    /// The session becomes the user's, under a new token; the old token is dead.
    pub(super) async fn login(&mut self, user: &str, epoch: Epoch, lifetime: Lifetime) -> Result<(), SessionError> {
        self.check_writable()?;
        let config = &self.core.config;
        let key = UserKey::of(user);
        let link = Link { key, name: user, epoch: Some(epoch), max_sessions: config.max_sessions };
        let pending = self.take();
        let Some(live) = self.live().cloned() else {
            let created = self.create(&pending, lifetime, Some(link)).await;
            return self.answered(created);
        };
        let token = Token::mint(&config.keys, Some(key.home()));
        let moved = match self.move_to(&live, token, &pending, Some(lifetime), Some(link)).await {
            // Two logins at once from one anonymous session: the second gets a session of its own, with the same data.
            Err(SessionError::Ended) => self.create(&whole(&live.record, pending), lifetime, Some(link)).await,
            moved => moved,
        };
        self.answered(moved)
    }

    /// The session gets a new token; the old one is dead.
    pub(super) async fn cycle(&mut self) -> Result<(), SessionError> {
        self.brings_credential();
        self.check_writable()?;
        let Some(live) = self.live().cloned() else { return self.save().await };
        let config = &self.core.config;
        let user = live.record.user.clone();
        let link = user.as_deref().map(|name| Link {
            key: UserKey::of(name),
            name,
            epoch: None,
            max_sessions: config.max_sessions,
        });
        let token = Token::mint(&config.keys, Some(live.key.home()));
        let pending = self.take();
        let moved = self.move_to(&live, token, &pending, None, link).await;
        self.answered(moved)
    }

    async fn move_to(
        &mut self,
        live: &Live,
        token: Token,
        pending: &Pending,
        lifetime: Option<Lifetime>,
        link: Option<Link<'_>>,
    ) -> Result<(), SessionError> {
        let (set, remove) = split(pending);
        let (from, to, backend) = (live.key, token.key(), self.core.config.backend.clone());
        let own = link.as_ref().map(OwnLink::of);
        let work = async move {
            let changes = Changes { set: &set, remove: &remove };
            let cycle = Cycle { from, to, changes, lifetime, link: own.as_ref().map(OwnLink::link) };
            count::wrote("cycle", backend.cycle(cycle).await)
        };
        let saved = self.state.follow(Some(from), &token, work).await?;
        let Saved::Done(receipt) = saved else {
            return Err(match saved {
                // The session is as it was before the request.
                Saved::Revoked => SessionError::Revoked,
                Saved::Gone => {
                    self.state.loaded = Loaded::Nothing { unknown: false };
                    SessionError::Ended
                }
                _ => SessionError::Conflict,
            });
        };
        let mut record = Record::clone(&live.record);
        record.began_as = Some(record.began_as.unwrap_or(live.key));
        if let Some(link) = link {
            record.user = Some(link.name.into());
        }
        if let Some(lifetime) = lifetime {
            (record.created, record.idle) = (self.core.config.backend.now(), lifetime.idle);
        }
        let moved = Live { key: token.key(), record: Arc::new(record) };
        self.arrive(moved.after(pending, receipt), token, receipt);
        Ok(())
    }

    /// Ends all sessions of the user, this one included.
    pub(super) async fn revoke_all(&mut self) -> Result<u64, SessionError> {
        self.brings_credential();
        let backend = &self.core.config.backend;
        let ended = match &self.state.loaded {
            Loaded::Live(Live { record, key }) => match &record.user {
                Some(user) => count::wrote("revoke-all", backend.revoke_all(&UserKey::of(user)).await),
                None => count::wrote("destroy", backend.destroy(key).await).map(u64::from),
            },
            Loaded::Foreign(resolved) => {
                return count::wrote("revoke-all", backend.revoke_all(&UserKey::of(resolved.name())).await);
            }
            _ => Ok(0),
        };
        let ended = self.state.heard(ended)?;
        self.state.forget();
        Ok(ended)
    }

    /// Whose shared maps are meant. An anonymous visitor without a session gets one.
    pub(super) fn owner(&mut self) -> Result<MapOwner, SessionError> {
        if let Some(user) = self.user() {
            return Ok(MapOwner::User(UserKey::of(user)));
        }
        self.anonymous_owner()
    }

    /// Whether somebody is known who may have maps.
    pub(super) fn has_owner(&self) -> bool {
        self.user().is_some() || self.known_anonymous_owner().is_some()
    }

    /// Whose maps were meant before the login.
    pub(super) fn known_anonymous_owner(&self) -> Option<MapOwner> {
        self.maps_of().map(MapOwner::Session)
    }

    /// The key under which the session began, or will begin.
    pub(super) fn maps_of(&self) -> Option<RecordKey> {
        let live = self.live().map(|live| live.record.began_as.unwrap_or(live.key));
        live.or_else(|| self.state.new.as_ref().map(Token::key))
    }

    fn anonymous_owner(&mut self) -> Result<MapOwner, SessionError> {
        if self.live().is_none() {
            self.check_writable()?;
            self.brings_credential();
            self.state.needed = true;
        }
        if let Some(owner) = self.known_anonymous_owner() {
            return Ok(owner);
        }
        let keys = &self.core.config.keys;
        let token = self.state.new.insert(Token::mint(keys, None));
        Ok(MapOwner::Session(token.key()))
    }

    /// Services are told of the session: they may keep maps of it where that is to change something.
    pub(super) fn tell(&mut self) {
        if self.live().is_none() && self.state.new.is_some() {
            self.core.mark.set();
            self.state.needed |= !self.core.method.is_safe();
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            self.state.pending = before;
        }
    }
}

/// All fields of a record with what is to be changed in them.
fn whole(record: &Record, pending: Pending) -> Pending {
    let mut whole: Pending = record.fields.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect();
    whole.extend(pending);
    whole
}

type Split = (Vec<(Box<str>, Bytes)>, Vec<Box<str>>);

fn split(pending: &Pending) -> Split {
    let (mut set, mut remove) = Split::default();
    for (name, value) in pending {
        match value {
            Some(value) => set.push((name.clone(), value.clone())),
            None => remove.push(name.clone()),
        }
    }
    (set, remove)
}
