//! What layers leave for each other in the extensions of requests and responses.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use crate::{Tag, backend::PrimaryKey};

/// Says whether the answer to a request depends on who asks.
///
/// `SessionLayer` leaves it in the extensions of the request, for layers within; the session's handle sets it when a
/// handler reads or writes the session; and the answer carries it too, for layers around. A layer that shares answers
/// looks at it when the head of the answer has come, and does not share what is personal, unless the answer says that
/// it is public. What [brings a credential](Self::is_credential) is not shared whatever it says. Clones share the mark.
#[derive(Clone, Debug, Default)]
pub struct Personal(Arc<AtomicU8>);

const PERSONAL: u8 = 1;
const CREDENTIAL: u8 = 2;

impl Personal {
    /// Marks the answer; for good.
    pub fn mark(&self) {
        self.0.fetch_max(PERSONAL, Ordering::AcqRel);
    }

    /// Marks the answer as one that brings or ends a credential, as that to a login; for good.
    pub fn mark_credential(&self) {
        self.0.fetch_max(CREDENTIAL, Ordering::AcqRel);
    }

    /// Whether the answer is marked.
    pub fn is_marked(&self) -> bool {
        self.0.load(Ordering::Acquire) >= PERSONAL
    }

    /// Whether the answer brings or ends a credential, and therefore is for nobody else even if it says that it is
    /// public: a layer around adds the credential.
    pub fn is_credential(&self) -> bool {
        self.0.load(Ordering::Acquire) >= CREDENTIAL
    }
}

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

/// Left in requests by a layer that will carry out [`InvalidateTags`], so that a cache layer can tell when nobody
/// does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InvalidatesTags;

/// Left in responses by the cache layer that has answered: from the store, or having stored. Layers around it of the
/// same cache (its identity is inside) pass the answer on as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answered(pub(crate) CacheId);

/// Left in responses to unsafe requests whose URLs have been invalidated in a cache (its identity is inside, and the
/// key: a layer within may see another path).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalidated(pub(crate) CacheId, pub(crate) Option<PrimaryKey>);

/// Tells a cache from others: where its state is, and where its settings are, for a clone with others goes by other
/// keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheId(pub(crate) usize, pub(crate) usize);
