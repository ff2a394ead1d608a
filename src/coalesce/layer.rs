//! The layer.

use std::sync::Arc;

use tower_layer::Layer;

use super::CoalesceService;
use crate::HttpCache;

/// Collapses concurrent requests into one; see the [module](crate::coalesce).
#[derive(Clone, Debug)]
pub struct CoalesceLayer {
    cache: Arc<HttpCache>,
}

impl CoalesceLayer {
    /// A layer over this cache; a `&Backend` is a cache with the defaults.
    pub fn new(cache: impl Into<HttpCache>) -> Self {
        Self { cache: Arc::new(cache.into()) }
    }
}

impl<S> Layer<S> for CoalesceLayer {
    type Service = CoalesceService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CoalesceService { cache: Arc::clone(&self.cache), inner }
    }
}
