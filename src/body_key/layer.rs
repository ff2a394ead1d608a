//! The layer and its settings.

use std::sync::Arc;

use http::Method;
use tower_layer::Layer;

use super::BodyKeyService;
use crate::key::BodyKey;

/// Makes requests with content cacheable; see the [module](crate::body_key).
#[derive(Clone, Debug)]
pub struct BodyKeyLayer {
    pub(super) methods: Arc<[Box<str>]>,
    pub(super) max_bytes: usize,
}

impl BodyKeyLayer {
    /// For QUERY, with content of at most 64 KiB.
    pub fn new() -> Self {
        Self { methods: ["QUERY".into()].into(), max_bytes: 64 * 1024 }
    }

    /// One more method, whose requests change nothing: keyed by their content they are answered from the store, and
    /// invalidate nothing. GET and HEAD are never keyed by content, nor are CONNECT, OPTIONS and TRACE, whose answers are not
    /// for caches, nor those that change what is stored (PUT, PATCH, DELETE, `WebDAV`'s LOCK and its like). For PROPFIND
    /// and REPORT, key by `Depth`, too ([`HttpCache::key_headers`](crate::HttpCache::key_headers)).
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "methods are handed over like this everywhere")]
    pub fn method(mut self, method: Method) -> Self {
        if BodyKey::may_key(&method) {
            self.methods = self.methods.iter().cloned().chain([method.as_str().into()]).collect();
        }
        self
    }

    /// The largest content that is read, in bytes; 64 KiB unless set. Requests with more go on as they are, and are
    /// not cached.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }
}

impl Default for BodyKeyLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for BodyKeyLayer {
    type Service = BodyKeyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BodyKeyService { layer: self.clone(), inner }
    }
}
