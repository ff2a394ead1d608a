//! Data of a user that several services share: a cart, a wish list, counters.
//!
//! Every change is one atomic step in the store, so that services which work at the same time lose nothing; it costs one
//! round trip, [`take`](SharedMap::take) two. What belongs to an anonymous visitor is [merged](SharedMap::merge_into) into the user's at login.
//!
//! ```
//! use tower_gatehouse::{
//!     Backend,
//!     session::{MapError, SharedData, SharedMap},
//! };
//!
//! struct Cart;
//!
//! impl SharedData for Cart {
//!     const NAME: &'static str = "cart";
//!     type Value = u32;
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! # let backend = Backend::memory();
//! let cart = SharedMap::<Cart>::open(&backend, "ann");
//! assert_eq!(cart.incr("mug", 2, 0..=99).await?, 2);
//! let seen = cart.get_all().await?;
//! cart.incr("mug", 1, 0..=99).await?;
//! // A checkout of what the user has not seen:
//! assert!(matches!(cart.take(seen.version).await, Err(MapError::Conflict { .. })));
//! let order = cart.once("order-17").take(cart.get_all().await?.version).await?;
//! assert_eq!(order.fields["mug"], 3);
//! # Ok::<(), MapError>(())
//! # }).unwrap();
//! ```

mod error;

use std::{
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    ops::{Bound, RangeBounds, RangeInclusive},
    time::Duration,
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

pub use self::error::MapError;
use super::Session;
use crate::{
    Backend,
    backend::{Changes, MapChange, MapChanged, MapKey, MapOp, MapOwner, MapSnapshot, OpId, UserKey},
};

/// A kind of shared data. Services that name and shape it alike share it.
pub trait SharedData: Send + Sync + 'static {
    /// Which one: 1 to 32 ASCII letters, digits, `-` and `_`; checked when the crate is compiled.
    const NAME: &'static str;

    /// How long a map lives after its last change; 30 days by default. That of an anonymous visitor, to which only the
    /// session leads, ends no later than the longest life of a session does ([`Lifetime::absolute`]; 12 hours by
    /// default), unless a service behind changes it, which does not know of that.
    ///
    /// [`Lifetime::absolute`]: crate::backend::Lifetime::absolute
    const TTL: Duration = Duration::from_hours(30 * 24);

    /// What its fields hold, as JSON.
    type Value: Serialize + DeserializeOwned + Send + Sync;
}

/// A map of a user, or of a session while it is anonymous; at most 1,000 fields of at most 4 KiB.
///
/// With the feature `axum` it is an extractor, behind a [`SessionLayer`](super::SessionLayer) as well as behind a
/// [`VerifySessionLayer`](super::VerifySessionLayer) that has a backend.
///
/// All methods are cancel safe: a dropped future has happened wholly or not at all.
pub struct SharedMap<D> {
    whose: Whose,
    once: Option<OpId>,
    data: PhantomData<fn() -> D>,
}

#[derive(Clone)]
enum Whose {
    Known(Backend, MapOwner),
    /// Whoever it is when it is asked.
    Session(Session),
}

/// What a map holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapContent<V> {
    /// For [`SharedMap::take`]; 0 where there is no map. No version comes back.
    pub version: u64,
    /// The values.
    pub fields: BTreeMap<String, V>,
}

/// How long the result of a change that may be repeated is kept.
const KEEP_RESULT: Duration = Duration::from_mins(1);
/// How often a change that depends on what is there is tried.
const ATTEMPTS: u32 = 200;

impl<D: SharedData> SharedMap<D> {
    /// The user's map. For jobs, and for services without extractors.
    pub fn open(backend: &Backend, user: &str) -> Self {
        Self::of_owner(backend, MapOwner::User(UserKey::of(user)))
    }

    /// The map of whoever has this session: of the user, or of the session while it is anonymous. An anonymous visitor
    /// who has no session gets one with the first change.
    pub fn of<T>(session: &Session<T>) -> Self {
        Self::new(Whose::Session(session.view()))
    }

    pub(super) fn of_owner(backend: &Backend, owner: MapOwner) -> Self {
        Self::new(Whose::Known(backend.clone(), owner))
    }

    fn new(whose: Whose) -> Self {
        const { assert!(is_name(D::NAME), "SharedData::NAME: 1 to 32 ASCII letters, digits, - and _") };
        Self { whose, once: None, data: PhantomData }
    }

    /// The same map for one change that may be repeated: with the same id, within a minute, a repetition does nothing
    /// and gets the result of the first. For [`incr`](Self::incr), [`set`](Self::set) or [`remove`](Self::remove), and
    /// [`take`](Self::take), which do not count as repetitions of each other.
    #[must_use]
    pub fn once(&self, id: impl AsRef<[u8]>) -> Self {
        let mut hash = [0; 16];
        let mut hasher = blake3::Hasher::new_derive_key("tower-gatehouse 2026-11-21 an operation on a shared map");
        hasher.update(id.as_ref()).finalize_xof().fill(&mut hash);
        Self { whose: self.whose.clone(), once: Some(OpId(hash)), data: PhantomData }
    }

    /// All that it holds, and its version.
    pub async fn get_all(&self) -> Result<MapContent<D::Value>, MapError> {
        let Some((backend, key)) = self.key_for_reading().await? else {
            return Ok(MapContent { version: 0, fields: BTreeMap::new() });
        };
        content(backend.map(&key).await?)
    }

    /// One of its values. The store hands over the whole map.
    pub async fn get(&self, field: &str) -> Result<Option<D::Value>, MapError> {
        let Some((backend, key)) = self.key_for_reading().await? else { return Ok(None) };
        backend.map(&key).await?.fields.get(field).map(decode).transpose()
    }

    /// Sets a value.
    pub async fn set(&self, field: &str, value: &D::Value) -> Result<(), MapError> {
        let set = [(Box::from(field), encode(value)?)];
        self.put(Changes { set: &set, remove: &[] }, None).await.map(drop)
    }

    /// Removes a value, if it is there.
    pub async fn remove(&self, field: &str) -> Result<(), MapError> {
        self.put(Changes { set: &[], remove: &[field.into()] }, None).await.map(drop)
    }

    /// Changes a value depending on what it is: `None` where it is not there, and to remove it. Tried again if somebody
    /// else changes the map in between, so the closure may be called several times. At least two round trips.
    pub async fn update(
        &self,
        field: &str,
        mut change: impl FnMut(Option<D::Value>) -> Option<D::Value> + Send,
    ) -> Result<(), MapError> {
        for _ in 0..ATTEMPTS {
            let (backend, key) = self.key().await?;
            let MapSnapshot { version, fields } = backend.map(&key).await?;
            let next = change(fields.get(field).map(decode).transpose()?);
            let (mut set, mut remove) = (Vec::new(), Vec::new());
            match next {
                Some(value) => set.push((Box::from(field), encode(&value)?)),
                None => remove.push(Box::from(field)),
            }
            match self.put(Changes { set: &set, remove: &remove }, Some(version)).await {
                Err(MapError::Conflict { .. }) => {}
                done => return done.map(drop),
            }
        }
        Err(MapError::Busy)
    }

    /// Takes the whole map away, if it has this version (that of [`get_all`](Self::get_all)): of all who try, one gets
    /// it. `None` takes whatever is there. Two round trips: what cannot be read as the type says is not taken.
    ///
    /// # Errors
    /// [`MapError::Conflict`] if it has another version, [`MapError::Data`] if it holds something else than the type
    /// says.
    pub async fn take(&self, expected: impl Into<Option<u64>> + Send) -> Result<MapContent<D::Value>, MapError> {
        let expected = expected.into();
        for _ in 0..ATTEMPTS {
            let (backend, key) = self.key().await?;
            let MapContent { version, .. } = content::<D::Value>(backend.map(&key).await?)?;
            match (self.change(MapOp::Take, expected.or(Some(version))).await?, expected) {
                (MapChanged::Taken(map), _) => return content(map),
                (MapChanged::Conflict { .. }, None) => {}
                (other, _) => return Err(MapError::of(&other)),
            }
        }
        Err(MapError::Busy)
    }

    /// Moves what an anonymous visitor has gathered into the user's map; to be called at login, once it is known who it is
    /// and before [`Session::login`] (or [`finish`](super::Login::finish)). If it is called after it, and the client
    /// has left in between, nobody has a session any more that knows the visitor's map. `both` decides about fields that
    /// are in both: it gets the field, the user's value and the visitor's ([`merge`] has the usual ones).
    ///
    /// May be repeated, also after a crash in between: of one user, nothing is moved twice, and nothing is lost. What another
    /// request of the visitor, which was under way, puts in after this is moved by the next call; those that come later
    /// change the user's map.
    ///
    /// Where both do not fit into one map, the answer is [`MapError::TooLarge`]: what the visitor had stays put aside for as
    /// long as the map lives, and a call that succeeds later moves it.
    pub async fn merge_into(
        &self,
        user: &str,
        both: impl Fn(&str, D::Value, D::Value) -> D::Value + Send + Sync,
    ) -> Result<(), MapError> {
        let Some((backend, owner)) = self.anonymous_owner().await? else { return Ok(()) };
        let from = MapKey { owner, name: D::NAME };
        let to = Self::open(&backend, user);
        // What is put into the visitor's map while it is moved is moved too.
        while let Some(parked) = backend.park_map(&from, D::TTL).await? {
            to.absorb(&from, &parked, &both).await?;
            backend.drop_parked(&from, parked.version).await?;
        }
        Ok(())
    }

    async fn absorb(
        &self,
        from: &MapKey,
        parked: &MapSnapshot,
        both: &(impl Fn(&str, D::Value, D::Value) -> D::Value + Send + Sync),
    ) -> Result<(), MapError> {
        // The same for whoever moves this very content.
        let MapOwner::Session(session) = from.owner else { return Ok(()) };
        let this = self.once([&session.as_bytes()[..], &parked.version.to_le_bytes()].concat());
        let (backend, key) = this.key().await?;
        for _ in 0..ATTEMPTS {
            let there = backend.map(&key).await?;
            let mut set = Vec::with_capacity(parked.fields.len());
            for (field, moved) in &parked.fields {
                let value = match there.fields.get(field) {
                    Some(present) => encode(&both(field, decode(present)?, decode(moved)?))?,
                    None => moved.clone(),
                };
                set.push((field.clone(), value));
            }
            let change = MapChange {
                key,
                op: MapOp::Put(Changes { set: &set, remove: &[] }),
                expected: Some(there.version),
                // As long as what was put aside may be found again.
                once: this.once.map(|id| (id, D::TTL)),
                ttl: D::TTL,
            };
            match backend.change_map(change).await? {
                MapChanged::Put { .. } => return Ok(()),
                MapChanged::Conflict { .. } => {}
                other => return Err(MapError::of(&other)),
            }
        }
        Err(MapError::Busy)
    }

    async fn put(&self, changes: Changes<'_>, expected: Option<u64>) -> Result<u64, MapError> {
        match self.change(MapOp::Put(changes), expected).await? {
            MapChanged::Put { version } => Ok(version),
            other => Err(MapError::of(&other)),
        }
    }

    async fn change(&self, op: MapOp<'_>, expected: Option<u64>) -> Result<MapChanged, MapError> {
        let (backend, key) = self.key().await?;
        let ttl = self.ttl(key.owner);
        // One id for different changes is different ids: the result of one is none of the other.
        let kind = match op {
            MapOp::Put(_) => 0,
            MapOp::Add { .. } => 1,
            MapOp::Take => 2,
        };
        let once = self.once.map(|OpId(mut id)| {
            id[0] ^= kind;
            (OpId(id), KEEP_RESULT)
        });
        Ok(backend.change_map(MapChange { key, op, expected, once, ttl }).await?)
    }

    /// What hangs on a session is of no use without it.
    fn ttl(&self, owner: MapOwner) -> Duration {
        match (&self.whose, owner) {
            (Whose::Session(session), MapOwner::Session(_)) => {
                session.core().map_or(D::TTL, |core| D::TTL.min(core.config.longest_life()))
            }
            _ => D::TTL,
        }
    }

    async fn key(&self) -> Result<(Backend, MapKey), MapError> {
        let (backend, owner) = match &self.whose {
            Whose::Known(backend, owner) => (backend.clone(), *owner),
            Whose::Session(session) => {
                let core = session.core()?;
                (core.config.backend.clone(), core.open().await?.owner()?)
            }
        };
        Ok((backend, MapKey { owner, name: D::NAME }))
    }

    /// The same without giving a session to a visitor who has none, and therefore has no map.
    async fn key_for_reading(&self) -> Result<Option<(Backend, MapKey)>, MapError> {
        if let Whose::Session(session) = &self.whose
            && !session.core()?.open().await?.has_owner()
        {
            return Ok(None);
        }
        self.key().await.map(Some)
    }

    async fn anonymous_owner(&self) -> Result<Option<(Backend, MapOwner)>, MapError> {
        Ok(match &self.whose {
            Whose::Known(_, MapOwner::User(_)) => None,
            Whose::Known(backend, owner) => Some((backend.clone(), *owner)),
            Whose::Session(session) => {
                let core = session.core()?;
                let owner = core.open().await?.known_anonymous_owner();
                owner.map(|owner| (core.config.backend.clone(), owner))
            }
        })
    }
}

impl<D: SharedData> SharedMap<D>
where
    D::Value: TryFrom<i64>,
{
    /// Adds to an integer, which is 0 where it is not there, and says what it is then. A field that becomes 0 goes.
    ///
    /// The range ends where the type does: `..=99` of a `u32` is `0..=99`. Types that hold some integers have to hold
    /// those in between.
    ///
    /// # Errors
    /// [`MapError::OutOfRange`] if the sum is not in the range; nothing is changed then.
    pub async fn incr(
        &self,
        field: &str,
        by: impl Into<i64> + Send,
        range: impl RangeBounds<i64> + Send,
    ) -> Result<D::Value, MapError> {
        let (by, range) = (by.into(), held(inclusive(&range), |n| D::Value::try_from(n).is_ok()));
        match self.change(MapOp::Add { field, by, range }, None).await? {
            MapChanged::Added { value, .. } => D::Value::try_from(value).map_err(|_| MapError::Data),
            other => Err(MapError::of(&other)),
        }
    }
}

/// What [`SharedMap::merge_into`] does with fields that both maps have.
pub mod merge {
    /// The user's value stays.
    pub fn keep<V>(_: &str, users: V, _: V) -> V {
        users
    }

    /// The visitor's value, which is newer, replaces the user's.
    pub fn replace<V>(_: &str, _: V, visitors: V) -> V {
        visitors
    }

    /// Both are added.
    ///
    /// # Panics
    /// If the sum overflows and the type's addition says so, as that of integers does in builds with overflow checks; in
    /// others it wraps. A visitor may have set the one and the user the other, so where it is not a
    /// [`Saturating`](std::num::Saturating) or a float, the values should have bounds, as
    /// [`incr`](super::SharedMap::incr) keeps them.
    pub fn sum<V: std::ops::Add<Output = V>>(_: &str, users: V, visitors: V) -> V {
        users + visitors
    }
}

const fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        if !(bytes[i].is_ascii_alphanumeric() || bytes[i] == b'-' || bytes[i] == b'_') {
            return false;
        }
        i += 1;
    }
    !bytes.is_empty() && bytes.len() <= 32
}

fn inclusive(range: &impl RangeBounds<i64>) -> RangeInclusive<i64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => i64::MIN,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => *end,
        Bound::Excluded(end) => end.saturating_sub(1),
        Bound::Unbounded => i64::MAX,
    };
    start..=end
}

/// The part of a range that a type holds; empty if that is none.
fn held(range: RangeInclusive<i64>, holds: impl Fn(i64) -> bool) -> RangeInclusive<i64> {
    let (start, end) = range.into_inner();
    if start > end {
        return start..=end;
    }
    // The nearest to 0, which is what is not there.
    let inside = 0.clamp(start, end);
    if !holds(inside) {
        #[allow(clippy::reversed_empty_ranges)] // nothing is in it
        return 1..=0;
    }
    last(inside, start, &holds)..=last(inside, end, &holds)
}

/// The last that is held on the way from one that is to an edge.
fn last(mut inside: i64, edge: i64, holds: impl Fn(i64) -> bool) -> i64 {
    if holds(edge) {
        return edge;
    }
    let mut outside = edge;
    while inside.abs_diff(outside) > 1 {
        let middle = i64::midpoint(inside, outside);
        if holds(middle) {
            inside = middle;
        } else {
            outside = middle;
        }
    }
    inside
}

fn content<V: DeserializeOwned>(map: MapSnapshot) -> Result<MapContent<V>, MapError> {
    let MapSnapshot { version, fields } = map;
    let decoded = fields.iter().map(|(field, json)| Ok((String::from(&**field), decode(json)?)));
    Ok(MapContent { version, fields: decoded.collect::<Result<_, MapError>>()? })
}

fn decode<V: DeserializeOwned>(json: &Bytes) -> Result<V, MapError> {
    serde_json::from_slice(json).map_err(|_| MapError::Data)
}

fn encode<V: Serialize>(value: &V) -> Result<Bytes, MapError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|_| MapError::Data)
}

impl<D> Clone for SharedMap<D> {
    fn clone(&self) -> Self {
        Self { whose: self.whose.clone(), once: self.once, data: PhantomData }
    }
}

impl<D: SharedData> fmt::Debug for SharedMap<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMap").field("name", &D::NAME).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_where_its_type_does() {
        let of_u8 = |range| held(range, |n| u8::try_from(n).is_ok());
        assert_eq!(of_u8(i64::MIN..=99), 0..=99);
        assert_eq!(of_u8(3..=i64::MAX), 3..=255);
        assert_eq!(of_u8(3..=9), 3..=9);
        assert_eq!(held(i64::MIN..=i64::MAX, |n| i16::try_from(n).is_ok()), -32_768..=32_767);
        assert_eq!(held(i64::MIN..=i64::MAX, |_| true), i64::MIN..=i64::MAX);
        #[allow(clippy::reversed_empty_ranges)]
        for none in [-9..=-1, 300..=999, 5..=3] {
            assert!(of_u8(none).is_empty());
        }
    }
}
