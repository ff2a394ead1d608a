//! The layer.

use std::sync::Arc;

use tower_layer::Layer;

use super::CacheService;
use crate::HttpCache;

/// A shared HTTP cache; see the [module](crate::cache).
#[derive(Clone, Debug)]
pub struct CacheLayer {
    cache: Arc<HttpCache>,
}

impl CacheLayer {
    /// A layer over this cache; a `&Backend` is a cache with the defaults.
    pub fn new(cache: impl Into<HttpCache>) -> Self {
        Self { cache: Arc::new(cache.into()) }
    }
}

impl<S> Layer<S> for CacheLayer {
    type Service = CacheService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CacheService { cache: Arc::clone(&self.cache), inner }
    }
}
