//! The four cache layers in their documented order, in one.

use tower_layer::Layer;

use crate::{
    HttpCache,
    cache::{CacheLayer, CacheService},
    coalesce::{CoalesceLayer, CoalesceService},
    swr::{SwrLayer, SwrService},
    tag_invalidation::{TagInvalidation, TagInvalidationLayer},
};

/// All cache layers of one [`HttpCache`]: [`TagInvalidationLayer`], [`SwrLayer`], [`CacheLayer`], [`CoalesceLayer`],
/// the outermost first; see [`HttpCache::layers`].
#[derive(Clone, Debug)]
pub struct CacheLayers {
    tags: TagInvalidationLayer,
    swr: SwrLayer,
    cache: CacheLayer,
    coalesce: CoalesceLayer,
}

impl HttpCache {
    /// All cache layers in their documented order. One that needs rules or PURGE on its [`TagInvalidationLayer`]
    /// stacks them one by one.
    ///
    /// ```
    /// # #[cfg(feature = "axum")] fn f() -> axum::Router {
    /// use axum::{Router, routing::get};
    /// use tower_gatehouse::{Backend, HttpCache};
    ///
    /// let cache = HttpCache::new(&Backend::memory()).default_ttl(std::time::Duration::from_secs(60));
    /// Router::new().route("/", get(async || "slow")).layer(cache.layers())
    /// # }
    /// ```
    #[must_use]
    pub fn layers(&self) -> CacheLayers {
        CacheLayers {
            tags: TagInvalidationLayer::new(self),
            swr: SwrLayer::new(self),
            cache: CacheLayer::new(self),
            coalesce: CoalesceLayer::new(self),
        }
    }
}

impl<S> Layer<S> for CacheLayers {
    type Service = TagInvalidation<SwrService<CacheService<CoalesceService<S>>>>;

    fn layer(&self, inner: S) -> Self::Service {
        self.tags.layer(self.swr.layer(self.cache.layer(self.coalesce.layer(inner))))
    }
}
