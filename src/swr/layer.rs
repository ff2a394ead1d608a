//! The layer.

use std::sync::Arc;

use tower_layer::Layer;

use super::SwrService;
use crate::HttpCache;

/// A shared HTTP cache that answers stale while it revalidates; see the [module](crate::swr).
#[derive(Clone, Debug)]
pub struct SwrLayer {
    cache: Arc<HttpCache>,
}

impl SwrLayer {
    /// A layer over this cache; a `&Backend` is a cache with the defaults.
    pub fn new(cache: impl Into<HttpCache>) -> Self {
        Self { cache: Arc::new(cache.into()) }
    }
}

impl<S> Layer<S> for SwrLayer {
    type Service = SwrService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SwrService { cache: Arc::clone(&self.cache), inner }
    }
}
