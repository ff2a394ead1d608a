//! The contract for records: sessions, the sessions of a user, and small maps that processes share.

use std::{collections::BTreeMap, fmt, future::Future, ops::RangeInclusive, sync::Arc, time::Duration};

use bytes::Bytes;

use super::BackendError;
use crate::Timestamp;

/// 16 bytes that name the record of a session.
///
/// The first two bytes are its **home**: what has the same home is kept together and is changed in one step. A
/// session of a user has the home of its [`UserKey`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
// Moved as two words wherever it stands in another type.
#[repr(align(8))]
pub struct RecordKey([u8; 16]);

/// 16 bytes that name a user: a hash of the name by which the application knows it. The first two are the home of all
/// that belongs to the user.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserKey([u8; 16]);

macro_rules! key {
    ($key:ident) => {
        impl $key {
            /// The key that consists of these bytes, which must be spread evenly.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// The first two bytes: what has the same home is changed in one step.
            pub const fn home(&self) -> u16 {
                u16::from_be_bytes([self.0[0], self.0[1]])
            }

            /// Reads the 32 hexadecimal digits that [`Display`](fmt::Display) writes.
            pub fn from_hex(hex: &str) -> Option<Self> {
                let digits = hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
                digits.then(|| u128::from_str_radix(hex, 16).ok().map(|n| Self(n.to_be_bytes())))?
            }
        }

        impl fmt::Display for $key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }

        impl fmt::Debug for $key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($key), "({})"), self)
            }
        }
    };
}

key!(RecordKey);
key!(UserKey);

impl UserKey {
    /// The key of the user whom the application knows by this name.
    pub fn of(name: &str) -> Self {
        let mut key = [0; 16];
        let mut hasher = blake3::Hasher::new_derive_key("tower-gatehouse 2026-11-21 the key of a user");
        hasher.update(name.as_bytes()).finalize_xof().fill(&mut key);
        Self(key)
    }
}

/// Named values; the store does not look into them.
pub type Fields = BTreeMap<Box<str>, Bytes>;

/// The record of a session.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Counts the changes; 1 after the first.
    pub version: u64,
    /// When the session began: when it was created, or at the last login.
    pub created: Timestamp,
    /// When it ends unless it is touched or changed.
    pub expires: Timestamp,
    /// When it ends, whatever happens.
    pub deadline: Timestamp,
    /// How far ahead of now [`Record::expires`] is moved by a touch or a change.
    pub idle: Duration,
    /// The user, as the application names it; at most [`Record::MAX_USER`] bytes.
    pub user: Option<Box<str>>,
    /// The key under which it began, where that is another one by now.
    pub began_as: Option<RecordKey>,
    /// The values.
    pub fields: Fields,
}

impl Record {
    /// The most fields.
    pub const MAX_FIELDS: usize = 256;
    /// The longest field, name and value together, in bytes.
    pub const MAX_FIELD: usize = 4 * 1024;
    /// The most bytes of all fields together.
    pub const MAX_SIZE: usize = 16 * 1024;
    /// The longest name of a user, in bytes.
    pub const MAX_USER: usize = 256;

    /// The bytes of all fields together, which [`Record::MAX_SIZE`] bounds.
    pub fn size(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

impl fmt::Debug for Record {
    /// Without the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("version", &self.version)
            .field("expires", &self.expires)
            .field("deadline", &self.deadline)
            .field("fields", &self.fields.keys())
            .finish_non_exhaustive()
    }
}

/// How long a session lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// From the last touch or change; rounded down to milliseconds.
    pub idle: Duration,
    /// From its beginning; rounded down to milliseconds.
    pub absolute: Duration,
}

/// What to change in a record: first set, then remove.
#[derive(Clone, Copy, Default)]
pub struct Changes<'a> {
    /// New values.
    pub set: &'a [(Box<str>, Bytes)],
    /// Fields to remove, if they are there.
    pub remove: &'a [Box<str>],
}

impl fmt::Debug for Changes<'_> {
    /// Without the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.set.iter().map(|(name, _)| name).collect::<Vec<_>>();
        f.debug_struct("Changes").field("set", &set).field("remove", &self.remove).finish()
    }
}

/// When all sessions of a user were last revoked; compared for equality only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch(pub u64);

/// Makes a record one of a user's.
#[derive(Clone, Copy)]
pub struct Link<'a> {
    /// The user's key; the record's key has the same home.
    pub key: UserKey,
    /// The user's name.
    pub name: &'a str,
    /// Only if this is still the user's epoch: nothing was revoked since it was read.
    pub epoch: Option<Epoch>,
    /// The most sessions of a user, at least 1; one more ends the oldest.
    pub max_sessions: u32,
}

impl fmt::Debug for Link<'_> {
    /// Without the user's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, name: _, epoch, max_sessions } = self;
        f.debug_struct("Link")
            .field("key", key)
            .field("epoch", epoch)
            .field("max_sessions", max_sessions)
            .finish_non_exhaustive()
    }
}

/// A new record.
#[derive(Clone, Copy)]
pub struct Create<'a> {
    /// Its key; nothing must be there.
    pub key: RecordKey,
    /// Its values.
    pub set: &'a [(Box<str>, Bytes)],
    /// How long it lives.
    pub lifetime: Lifetime,
    /// Whose it is.
    pub link: Option<Link<'a>>,
}

impl fmt::Debug for Create<'_> {
    /// Without the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, set, lifetime, link } = self;
        let names: Vec<_> = set.iter().map(|(name, _)| name).collect();
        f.debug_struct("Create")
            .field("key", key)
            .field("set", &names)
            .field("lifetime", lifetime)
            .field("link", link)
            .finish()
    }
}

/// Moves a record to a new key, with changes.
#[derive(Clone, Copy, Debug)]
pub struct Cycle<'a> {
    /// Where it is; nothing is there afterwards.
    pub from: RecordKey,
    /// Where it goes.
    pub to: RecordKey,
    /// What changes on the way.
    pub changes: Changes<'a>,
    /// A new beginning with this lifetime; `None` keeps the old times.
    pub lifetime: Option<Lifetime>,
    /// Whose it is. Needed too where the record is that user's already.
    pub link: Option<Link<'a>>,
}

/// A record after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// See [`Record::version`].
    pub version: u64,
    /// See [`Record::expires`].
    pub expires: Timestamp,
    /// See [`Record::deadline`].
    pub deadline: Timestamp,
}

/// How a change ended. Everything but `Done` means that nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Saved {
    /// It is done.
    Done(Receipt),
    /// There is no such record (any more).
    Gone,
    /// Something is there already.
    Exists,
    /// The record has another version than expected.
    Conflict,
    /// All sessions of the user were revoked after [`Link::epoch`] was read.
    Revoked,
}

/// Whose map it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MapOwner {
    /// An anonymous session.
    Session(RecordKey),
    /// A user.
    User(UserKey),
}

impl MapOwner {
    /// See [`RecordKey::home`].
    pub const fn home(&self) -> u16 {
        match self {
            Self::Session(key) => key.home(),
            Self::User(key) => key.home(),
        }
    }
}

/// Names a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapKey {
    /// Whose it is.
    pub owner: MapOwner,
    /// Which one; 1 to 32 ASCII letters, digits, `-` and `_`.
    pub name: &'static str,
}

/// Names one attempt to change a map and its repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub [u8; 16]);

/// What a map holds at one moment.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MapSnapshot {
    /// Its version: 0 where there is none. Versions grow, and none comes back after the map was taken or expired.
    pub version: u64,
    /// The values.
    pub fields: Fields,
}

/// What to do with a map.
#[derive(Clone, Debug)]
pub enum MapOp<'a> {
    /// Adds to an integer (0 if it is not there), if the result is in the range. A field that becomes 0 goes.
    Add {
        /// Which.
        field: &'a str,
        /// How much.
        by: i64,
        /// What is allowed, within ±(2⁵³ − 1).
        range: RangeInclusive<i64>,
    },
    /// Sets and removes fields.
    Put(Changes<'a>),
    /// Removes the whole map and returns what it held.
    Take,
}

/// A change of a map.
#[derive(Clone, Debug)]
pub struct MapChange<'a> {
    /// Which map.
    pub key: MapKey,
    /// What to do.
    pub op: MapOp<'a>,
    /// Only if the map has this version.
    pub expected: Option<u64>,
    /// With an id, the result is kept for this long; a repetition with the same id does nothing and gets it.
    pub once: Option<(OpId, Duration)>,
    /// How long the map lives from this change on.
    pub ttl: Duration,
}

/// How a change of a map ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapChanged {
    /// Fields were set and removed.
    Put {
        /// The new version.
        version: u64,
    },
    /// An integer was changed.
    Added {
        /// The new version.
        version: u64,
        /// The new value.
        value: i64,
    },
    /// The map is the caller's.
    Taken(MapSnapshot),
    /// The map has this version, not the expected one; nothing was changed.
    Conflict {
        /// The version.
        version: u64,
    },
    /// The sum is out of the range; nothing was changed.
    OutOfRange {
        /// The value as it is.
        value: i64,
    },
    /// The field does not hold an integer; nothing was changed.
    NotAnInteger,
}

impl fmt::Debug for MapSnapshot {
    /// Without the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, fields } = self;
        f.debug_struct("MapSnapshot").field("version", version).field("fields", &fields.keys()).finish()
    }
}

impl MapSnapshot {
    /// The most fields.
    pub const MAX_FIELDS: usize = 1000;
    /// The longest field, name and value together, in bytes.
    pub const MAX_FIELD: usize = 4 * 1024;
    /// Integers are between minus and plus this (2⁵³ − 1).
    pub const MAX_INTEGER: i64 = (1 << 53) - 1;
}

/// Sessions, their users, and shared maps.
///
/// Unlike stored responses, records must not be forgotten before they end: a store without room answers
/// [`ErrorKind::Full`](super::ErrorKind::Full) and keeps what it has. What is beyond the limits of a record or a map
/// answers [`ErrorKind::TooLarge`](super::ErrorKind::TooLarge), and nothing is changed. Times are on the store's clock.
///
/// Each operation is one atomic step, and cancel safe: a dropped future has happened wholly or not at all. Only
/// [`cycle`](Self::cycle) between homes promises less.
pub trait Records {
    /// The record, if it has not ended. One round trip.
    fn load(&self, key: &RecordKey) -> impl Future<Output = Result<Option<Arc<Record>>, BackendError>> + Send;

    /// The same, for stores that live in this process and need not wait for an answer: then a session that is read
    /// takes no future of its own. `None`, which is the default, if it has to be [`load`](Self::load)ed.
    fn load_now(&self, key: &RecordKey) -> Option<Result<Option<Arc<Record>>, BackendError>> {
        let _ = key;
        None
    }

    /// A new record. [`Saved::Exists`] if something is there, [`Saved::Revoked`] by its link.
    fn create(&self, create: Create<'_>) -> impl Future<Output = Result<Saved, BackendError>> + Send;

    /// Changes fields of a record that is there ([`Saved::Gone`] if not), leaves all others as they are, and moves
    /// its end. With a version: only if that is the record's ([`Saved::Conflict`]).
    fn commit(
        &self,
        key: &RecordKey,
        changes: Changes<'_>,
        expected: Option<u64>,
    ) -> impl Future<Output = Result<Saved, BackendError>> + Send;

    /// Moves the end of a record to [`Record::idle`] from now, but not beyond its deadline. Never shortens, never
    /// brings back; `false` if it is gone.
    fn touch(&self, key: &RecordKey) -> impl Future<Output = Result<bool, BackendError>> + Send;

    /// Ends a record; `false` if there was none.
    fn destroy(&self, key: &RecordKey) -> impl Future<Output = Result<bool, BackendError>> + Send;

    /// Moves a record to a new key; from the moment that this returns, the old one is dead.
    ///
    /// One step where both keys have one home. Between homes a store may take several, but commits to the old record
    /// are moved or refused all the same, and whatever the outcome (an error, [`Saved::Revoked`]), the old record is
    /// still there unless the new one is; after an error or a dropped future there may be both for a while, of which
    /// nobody knows the key of the new one.
    fn cycle(&self, cycle: Cycle<'_>) -> impl Future<Output = Result<Saved, BackendError>> + Send;

    /// The user's epoch.
    fn epoch(&self, user: &UserKey) -> impl Future<Output = Result<Epoch, BackendError>> + Send;

    /// Ends all records of a user and moves its epoch on; says how many were ended.
    ///
    /// When it has returned, no record that was linked to the user with an epoch read before lives or will live.
    fn revoke_all(&self, user: &UserKey) -> impl Future<Output = Result<u64, BackendError>> + Send;

    /// The records of a user that have not ended, oldest first.
    fn records_of(&self, user: &UserKey) -> impl Future<Output = Result<Vec<RecordKey>, BackendError>> + Send;

    /// What a map holds.
    fn map(&self, key: &MapKey) -> impl Future<Output = Result<MapSnapshot, BackendError>> + Send;

    /// Changes a map.
    fn change_map(&self, change: MapChange<'_>) -> impl Future<Output = Result<MapChanged, BackendError>> + Send;

    /// Puts a map aside, so that it can be moved: whoever asks gets the same, until it is dropped by
    /// [`drop_parked`](Self::drop_parked). What is written meanwhile begins a new map. `None` if there is nothing to
    /// move.
    fn park_map(
        &self,
        key: &MapKey,
        ttl: Duration,
    ) -> impl Future<Output = Result<Option<MapSnapshot>, BackendError>> + Send;

    /// Drops what was put aside, if it has this version; `false` if not.
    fn drop_parked(&self, key: &MapKey, version: u64) -> impl Future<Output = Result<bool, BackendError>> + Send;
}
