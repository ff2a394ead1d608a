//! Who is asking: the session layer, and the field in which each origin is told.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower::{Layer as _, Service, ServiceExt};
use tower_gatehouse::{
    Backend,
    session::{ForwardSessionLayer, KeyRing, SessionCookie, SessionLayer},
};

use super::{rebox, rebox_response};
use crate::{
    Body, BoxError,
    cli::{Args, Forward},
    upstream::{Upstream, UpstreamError},
};

/// Sets the layer up as the flags say.
pub(super) fn set_up(backend: &Backend, keys: KeyRing, args: &Args) -> Result<SessionLayer, BoxError> {
    let mut layer = SessionLayer::new(backend, keys).sources(args.session.sources.iter().copied());
    if !args.session.required.is_empty() {
        layer = layer.required_with_user();
    }
    for prefix in &args.session.required {
        layer = layer.required_under(&*prefix.0);
    }
    if args.is_demo && args.listen.ip().is_loopback() {
        // The demo is for browsers and curl on this machine, without HTTPS.
        layer = layer.cookie(SessionCookie::builder().insecure_for_localhost().build()?);
    }
    Ok(layer)
}

/// The origins, each with a layer in front that tells it who is asking, in a field that is of no use to the others.
#[derive(Clone)]
pub(super) struct Telling {
    upstream: Upstream,
    /// In the order of the upstream's routes.
    layers: Arc<[ForwardSessionLayer]>,
}

impl Telling {
    pub(super) fn new(upstream: Upstream, keys: &KeyRing, args: &Args) -> Self {
        let layer = |route| {
            let layer = ForwardSessionLayer::new(&args.session.audience(route), keys);
            match args.session.forward {
                Forward::Signed => layer,
                #[cfg(feature = "jwt")]
                Forward::Jwt => layer.hs256_jwt(),
                Forward::Plain => layer.plain_json(),
            }
        };
        Self { layers: upstream.routes().iter().map(layer).collect(), upstream }
    }
}

impl Service<Request<Body>> for Telling {
    type Response = Response<Body>;
    type Error = UpstreamError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, UpstreamError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let Some(at) = self.upstream.routes().iter().position(|route| route.covers(path)) else {
            return self.upstream.call(request);
        };
        let origin = self.upstream.clone().map_request(rebox);
        Box::pin(self.layers[at].layer(origin).map_response(rebox_response).oneshot(request))
    }
}
