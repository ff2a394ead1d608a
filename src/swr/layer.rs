//! The layer.

use tower_layer::Layer;

use super::SwrService;
use crate::HttpCache;

/// A shared HTTP cache that answers stale while it revalidates; see the [module](crate::swr).
#[derive(Clone, Debug)]
pub struct SwrLayer {
    cache: HttpCache,
}

impl SwrLayer {
    /// A layer over this cache; a `&Backend` is a cache with the defaults.
    pub fn new(cache: impl Into<HttpCache>) -> Self {
        Self { cache: cache.into() }
    }
}

impl<S> Layer<S> for SwrLayer {
    type Service = SwrService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SwrService { cache: self.cache.clone(), inner }
    }
}
