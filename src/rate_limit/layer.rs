//! The layer.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, request};
use tower_layer::Layer;

use super::{
    Headers, Key, Policy, Quota, RateLimit, Rejection, config::Config, engine::Engine, hooks::Hooks, outage::Outage,
};
use crate::Backend;

/// Refuses requests that are beyond a limit; see the [module](super).
///
/// Services that are made from one layer share the counters, and so do layers with the same backend and policies;
/// [`Policy`] has what that means.
#[derive(Clone, Debug)]
#[must_use]
pub struct RateLimitLayer {
    /// Shared by all services: axum calls `layer` for each route, or even for each request.
    engine: Arc<Engine>,
}

impl RateLimitLayer {
    /// Limits requests by one policy: a name, who is limited, and to what.
    pub fn new(backend: &Backend, name: impl AsRef<str>, key: impl Into<Key>, quota: Quota) -> Self {
        Self::with_policies(backend, [Policy::new(name, key, quota)])
    }

    /// Limits requests by several policies at once. If one of them denies a request, none of them counts it.
    ///
    /// Policies by the same key are decided in one step; one with [tiers](Policy::quota_by) counts by itself, as if by
    /// another key. In a Redis Cluster, policies by different keys are asked at the same time, and what the others counted
    /// is given back where one denies.
    pub fn with_policies(backend: &Backend, policies: impl IntoIterator<Item = Policy>) -> Self {
        let config = Config {
            backend: backend.clone(),
            groups: Vec::new(),
            headers: Headers::default(),
            hooks: Hooks::default(),
            asks_who: false,
            reads_whole: false,
        };
        let engine = Arc::new(Engine { config, outage: Arc::new(Outage::new()) });
        policies.into_iter().fold(Self { engine }, Self::and)
    }

    /// One more policy.
    pub fn and(mut self, policy: Policy) -> Self {
        self.config().add(policy);
        self
    }

    /// Which header fields tell clients of limits; those of the draft by default.
    pub fn headers(mut self, headers: Headers) -> Self {
        self.config().headers = headers;
        self
    }

    /// Requests that are not limited, such as health checks. CORS preflights never are.
    pub fn exempt(mut self, exempt: impl Fn(&request::Parts) -> bool + Send + Sync + 'static) -> Self {
        let config = self.config();
        config.hooks.exempt = Some(Arc::new(exempt));
        config.reads_whole = true;
        self
    }

    /// Shapes the answer to requests that are refused. The function gets the answer as it would be: 429 or 503 with
    /// problem details, `Retry-After` and the header fields; or a gRPC status.
    pub fn on_reject(
        mut self,
        shape: impl Fn(&Rejection, Response<Bytes>) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.config().hooks.on_reject = Some(Arc::new(shape));
        self
    }

    fn config(&mut self) -> &mut Config {
        &mut Arc::make_mut(&mut self.engine).config
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> RateLimit<S> {
        RateLimit { inner, engine: Arc::clone(&self.engine) }
    }
}
