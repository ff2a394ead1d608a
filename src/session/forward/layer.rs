//! The layer in front of an upstream.

use std::sync::Arc;

use tower_layer::Layer;

use super::{audience::AudienceKeys, format::Format, service::ForwardSessionService};
use crate::session::KeyRing;

/// Tells the service behind who is asking, in `x-session`; stands at each upstream, inside of all caches, where it is
/// known which service is asked.
///
/// Every request gets exactly one field, also of an anonymous visitor. What the client sent under such a name is
/// removed, and so are our own cookie and bearer token: services need no credentials. The service gets the body as a
/// [`ForwardedBody`](super::ForwardedBody), because trailers are no way around either. A
/// [`SessionLayer`](crate::session::SessionLayer) has to be around; without one the answer is a 500 that says so.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_gatehouse::session::{ForwardSessionLayer, ForwardedBody, KeyRing};
///
/// let keys = KeyRing::ephemeral();
/// let orders = ServiceBuilder::new()
///     .layer(ForwardSessionLayer::new("orders", &keys).fields(["roles"]))
///     .service_fn(async |_: http::Request<ForwardedBody<String>>| {
///         Ok::<_, std::io::Error>(http::Response::new(String::new()))
///     });
/// ```
/// What is signed is for this method and path: a proxy that strips a prefix does it outside of this layer, not within.
///
/// A service that takes one type of body, as most proxies do, takes it from there:
///
/// ```
/// # #[cfg(feature = "axum")] fn main() {
/// use axum::body::Body;
/// use http::Request;
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_gatehouse::session::{ForwardSessionLayer, ForwardedBody, KeyRing};
///
/// let proxy = tower::service_fn(async |_: Request<Body>| Ok::<_, std::io::Error>(http::Response::new(Body::empty())));
/// let proxy = proxy.map_request(|request: Request<ForwardedBody<Body>>| request.map(Body::new));
/// let orders = ServiceBuilder::new().layer(ForwardSessionLayer::new("orders", &KeyRing::ephemeral())).service(proxy);
/// # drop(orders.oneshot(Request::new(Body::empty())));
/// # }
/// # #[cfg(not(feature = "axum"))] fn main() {}
/// ```
///
/// What the service answers is marked as personal where the request has a credential. What it says to nobody is stored by
/// caches in front as it says: a service that greets those who are logged in says `private` or `no-store` to the others,
/// too.
///
/// What is told of a foreign token, its fields among it, has to fit into 4 KiB: more is a 500.
#[derive(Clone, Debug)]
pub struct ForwardSessionLayer(Arc<Config>);

#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) keys: AudienceKeys,
    pub(super) fields: Arc<[Box<str>]>,
    pub(super) format: Format,
}

impl ForwardSessionLayer {
    /// Signed for the service of this name; see [`KeyRing::for_audience`] for the keys that it verifies with.
    pub fn new(audience: &str, keys: &KeyRing) -> Self {
        let (keys, format) = (keys.for_audience(audience), Format::Signed);
        Self(Arc::new(Config { keys, fields: Arc::default(), format }))
    }

    /// Which fields of the session the service gets to see; none by default.
    #[must_use]
    pub fn fields<F: Into<Box<str>>>(self, fields: impl IntoIterator<Item = F>) -> Self {
        self.with(|config| config.fields = fields.into_iter().map(Into::into).collect())
    }

    /// As a JWT, signed with HS256 and [`AudienceKeys::jwt_secret`], with the claims of the payload; for services with a
    /// JWT library. Such a service has to compare `aud`, and `m` and `h` if it wants to be as strict as ours.
    #[cfg(feature = "jwt")]
    #[must_use]
    pub fn hs256_jwt(self) -> Self {
        self.with(|config| config.format = Format::Hs256Jwt)
    }

    /// As plain JSON, **not signed**: whoever can reach the service can be anybody. Only for services that nobody but
    /// the gateway can reach.
    #[must_use]
    pub fn plain_json(self) -> Self {
        self.with(|config| config.format = Format::PlainJson)
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl<S> Layer<S> for ForwardSessionLayer {
    type Service = ForwardSessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ForwardSessionService::new(inner, self.0.clone())
    }
}
