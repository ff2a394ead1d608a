//! What layers leave for each other in the extensions of requests and responses.

use std::{
    fmt,
    net::SocketAddr,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use http::Extensions;

use crate::{
    Tag,
    backend::{Entry, PrimaryKey},
    caller::Session,
};

/// Says whether the answer to a request depends on who asks.
///
/// `SessionLayer` brings one with every request, for layers and handlers within, who find it with
/// [`Personal::of`], and layers of one's own may leave one in the extensions; the session's handle sets it when a handler
/// reads or writes the session; and the answer carries it too, in its extensions, for layers around that have [asked for
/// it](Self::ask_for). A layer that shares answers looks at it when the head of the answer has come, and does not share
/// what is personal, unless the answer says that it is public. What [brings a credential](Self::is_credential) is not
/// shared whatever it says. It looks again with each piece of the content: what has become personal meanwhile is not
/// stored, and those who read along are cut off. Caches elsewhere know only the head: what writes the content reads the
/// session, or [marks](Self::mark) the answer, before the head is made. Clones share the mark.
#[derive(Clone)]
pub struct Personal {
    marked: Arc<dyn Marked>,
    /// Of other layers that the request went through: it counts as much.
    also: Option<Arc<Self>>,
}

/// A layer around looks for the mark in the answer.
#[derive(Clone, Copy, Debug)]
struct Asked;

/// What is marked when an answer depends on who asks; for good.
#[derive(Default)]
pub(crate) struct Mark {
    personal: AtomicBool,
    credential: AtomicBool,
}

/// What has a mark: a session layer keeps it beside the session.
pub(crate) trait Marked: Send + Sync {
    fn mark(&self) -> &Mark;
}

impl Mark {
    pub(crate) fn set(&self) {
        self.personal.store(true, Ordering::Release);
    }

    pub(crate) fn set_credential(&self) {
        self.credential.store(true, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.personal.load(Ordering::Acquire) || self.is_credential()
    }

    pub(crate) fn is_credential(&self) -> bool {
        self.credential.load(Ordering::Acquire)
    }
}

impl Marked for Mark {
    fn mark(&self) -> &Mark {
        self
    }
}

impl Personal {
    /// The mark of a request: that of its session layer and the one that was left in its extensions as it is; both, if
    /// it has both.
    pub fn of(extensions: &Extensions) -> Option<Self> {
        let of_session = extensions.get::<Session>().map(|session| Self::shared(session.caller().clone()));
        match (of_session, extensions.get::<Self>()) {
            (Some(of_session), Some(left)) => Some(of_session.and(left.clone())),
            (of_session, left) => of_session.or_else(|| left.cloned()),
        }
    }

    /// Both: what one of them says, this one says.
    pub(crate) fn and(self, other: Self) -> Self {
        let other = match self.also {
            Some(also) => also.as_ref().clone().and(other),
            None => other,
        };
        Self { marked: self.marked, also: Some(Arc::new(other)) }
    }

    /// Leaves in a request that a layer around looks for the mark in the extensions of the answer. Most answers go to
    /// nobody who does, and then have none.
    pub fn ask_for(extensions: &mut Extensions) {
        extensions.insert(Asked);
    }

    pub(crate) fn is_asked_for(extensions: &Extensions) -> bool {
        extensions.get::<Asked>().is_some()
    }

    pub(crate) fn shared(marked: Arc<dyn Marked>) -> Self {
        Self { marked, also: None }
    }

    /// Whether both have the same marks.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let alike = match (&self.also, &other.also) {
            (Some(also), Some(others)) => also.is_same(others),
            (also, others) => also.is_none() && others.is_none(),
        };
        alike && ptr::addr_eq(Arc::as_ptr(&self.marked), Arc::as_ptr(&other.marked))
    }

    /// Whether a mark that this one has makes this true.
    fn any(&self, is: impl Fn(&Mark) -> bool) -> bool {
        let mut next = Some(self);
        while let Some(Self { marked, also }) = next {
            if is(marked.mark()) {
                return true;
            }
            next = also.as_deref();
        }
        false
    }

    /// What it marks; that of others it only reads.
    pub(crate) fn own(&self) -> &Mark {
        self.marked.mark()
    }

    /// Marks the answer; for good.
    pub fn mark(&self) {
        self.own().set();
    }

    /// Marks the answer as one that brings or ends a credential, as that to a login; for good.
    pub fn mark_credential(&self) {
        self.own().set_credential();
    }

    /// Marks the answer as this other one is marked by now.
    pub(crate) fn inherit(&self, other: &Self) {
        if other.is_credential() {
            self.mark_credential();
        } else if other.is_marked() {
            self.mark();
        }
    }

    /// Whether the answer is marked.
    pub fn is_marked(&self) -> bool {
        self.any(Mark::is_set)
    }

    /// Whether the answer brings or ends a credential, and therefore is for nobody else even if it says that it is
    /// public: a layer around adds the credential.
    pub fn is_credential(&self) -> bool {
        self.any(Mark::is_credential)
    }
}

impl Default for Personal {
    fn default() -> Self {
        Self::shared(Arc::new(Mark::default()))
    }
}

impl fmt::Debug for Personal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (marked, credential) = (self.is_marked(), self.is_credential());
        f.debug_struct("Personal").field("is_marked", &marked).field("is_credential", &credential).finish()
    }
}

/// Left in the extensions of requests by a server that is not axum's: who is connected.
///
/// With the feature `axum`, axum's own `ConnectInfo<SocketAddr>` does as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);

/// Tags of a response, left by a handler in the response's extensions, besides those in its header fields.
///
/// ```
/// use tower_gatehouse::{CacheTags, Tag};
///
/// let mut response = http::Response::new("…");
/// response.extensions_mut().insert(CacheTags::new([Tag::new("product:17").unwrap()]));
/// ```
#[derive(Clone, Debug, Default)]
pub struct CacheTags(pub(crate) Vec<Tag>);

impl CacheTags {
    /// These tags. More than 64 of a response, and it is not stored.
    pub fn new(tags: impl IntoIterator<Item = Tag>) -> Self {
        Self(tags.into_iter().collect())
    }
}

/// What a handler's success invalidates, left by it in the response's extensions; carried out by
/// `TagInvalidationLayer` before the head goes out.
#[derive(Clone, Debug, Default)]
pub struct InvalidateTags(pub(crate) Vec<Tag>);

impl InvalidateTags {
    /// These tags.
    pub fn new(tags: impl IntoIterator<Item = Tag>) -> Self {
        Self(tags.into_iter().collect())
    }
}

/// With the feature `axum`, handlers return them beside their response: `(CacheTags::new(…), Json(…))`.
#[cfg(feature = "axum")]
mod parts {
    use std::convert::Infallible;

    use axum::response::{IntoResponseParts, ResponseParts};

    use super::{CacheTags, InvalidateTags};

    impl IntoResponseParts for CacheTags {
        type Error = Infallible;

        fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
            parts.extensions_mut().insert(self);
            Ok(parts)
        }
    }

    impl IntoResponseParts for InvalidateTags {
        type Error = Infallible;

        fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
            parts.extensions_mut().insert(self);
            Ok(parts)
        }
    }
}

/// Left in requests with unsafe methods by a layer that will carry out [`InvalidateTags`], so that a cache layer can tell
/// when nobody does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InvalidatesTags;

/// Left in responses by the cache layer that has answered: from the store, or having stored. Layers around it of the
/// same cache (its identity is inside) pass the answer on as it is, if it is to the visit that they have made. To a
/// layer within that has lost it, they are a client like others: its 304 may be to their own conditions.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) by: CacheId,
    pub(crate) visit: Option<VisitId>,
    /// What it is an answer from, or is stored as, if it is as fresh as it looks: with the tags that its fields do not
    /// tell any more. Where there is none, no other layer of the cache stores the answer.
    pub(crate) entry: Option<Arc<Entry>>,
}

/// Tells a request's way through the layers of a cache from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VisitId(u64);

impl VisitId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Left in responses to unsafe requests whose URLs have been invalidated in a cache (its identity is inside, and the
/// key: a layer within may see another path).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalidated(pub(crate) CacheId, pub(crate) Option<PrimaryKey>);

/// Tells a cache from others: where its settings are, for no two caches share them, and a clone with others goes by other
/// keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheId(pub(crate) usize);
