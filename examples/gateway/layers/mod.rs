//! Which layers stand between the ingress and the origins.
//!
//! ```text
//! limit ─ session ─ limit by user ─ forwarded ─ tags ─ body key ─ swr ─ cache ─ coalesce ─ telling ─ upstream
//! ```

mod cache;
mod session;
mod store;

use std::{str::FromStr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use tower::{Service, ServiceBuilder, ServiceExt, util::BoxCloneService};
use tower_gatehouse::{
    BodyKeyLayer, CacheLayer, CoalesceLayer, HttpCache, SwrLayer, TagInvalidationLayer, rate_limit::PeerAddr,
};

use crate::{
    Body, BoxError,
    cli::Args,
    forwarded::{self, Peer},
    login::Login,
    upstream::{Upstream, UpstreamError},
};
use session::Telling;

/// The service within: all layers that were asked for, around the origins.
///
/// Its errors are the origins'; cache layers see them, and may answer with what they have.
pub(crate) type Stack = BoxCloneService<Request<Body>, Response<Body>, UpstreamError>;

/// A layer that `--layers` can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    Limit,
    Session,
    Tags,
    Swr,
    Cache,
    Coalesce,
}

impl Layer {
    /// Outermost first.
    const ALL: [(&str, Self); 6] = [
        ("limit", Self::Limit),
        ("session", Self::Session),
        ("tags", Self::Tags),
        ("swr", Self::Swr),
        ("cache", Self::Cache),
        ("coalesce", Self::Coalesce),
    ];

    /// Those without `--layers`.
    pub(crate) const DEFAULT: [Self; 4] = [Self::Tags, Self::Swr, Self::Cache, Self::Coalesce];

    pub(crate) fn names() -> String {
        Self::ALL.map(|(name, _)| name).join(", ")
    }
}

impl FromStr for Layer {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, layer)| *layer).ok_or(())
    }
}

/// The stack, and what it shares with the admin listener and the end of the process.
pub(crate) struct Layers {
    pub(crate) stack: Stack,
    /// None for a plain proxy.
    pub(crate) cache: Option<HttpCache>,
}

/// Builds the stack, from the inside out.
pub(crate) async fn build(args: &Args, upstream: Upstream) -> Result<Layers, BoxError> {
    let caches = args.layers.iter().any(|layer| Layer::DEFAULT.contains(layer));
    let has_sessions = args.layers.contains(&Layer::Session);
    let own_store = has_sessions && args.session.redis.is_some();
    let needed = caches || !args.limits.each.is_empty() || (has_sessions && !own_store);
    let backend = if needed { Some(store::open(&args.store).await?) } else { None };
    let keys = args.session.keys.as_ref().filter(|_| has_sessions);
    let sessions = match keys {
        Some(keys) => {
            let backend = match (&args.session.redis, &backend) {
                (None, Some(backend)) => backend.clone(),
                (url, _) => store::open_at(url.as_deref(), &args.store).await?,
            };
            Some(session::set_up(&backend, keys.clone(), args)?)
        }
        None => None,
    };
    let mut stack: Stack = match keys {
        Some(keys) => BoxCloneService::new(Telling::new(upstream, keys, args)),
        None => BoxCloneService::new(upstream),
    };
    let cache = match &backend {
        Some(backend) if caches => Some(cache::set_up(backend, &args.cache)?),
        _ => None,
    };
    if let Some(cache) = &cache {
        stack = around(stack, cache, args);
    }
    let trust = Arc::new(args.trust.clone());
    let stack = stack.map_request(move |mut request: Request<Body>| {
        // Inside of what looks at the connection itself, outside of what may store an answer that depends on it.
        if let (Some(Peer(peer)), Some(host)) =
            (request.extensions().get().copied(), request.headers().get(header::HOST).cloned())
        {
            forwarded::set(request.headers_mut(), peer.ip(), &host, &trust);
        }
        request
    });
    let mut stack: Stack = BoxCloneService::new(stack);
    if let Some(sessions) = sessions {
        if args.is_demo {
            stack = BoxCloneService::new(Login(stack));
        }
        let limits = backend.as_ref().and_then(|backend| args.limits.by_user(backend, &args.trust.client_ip()));
        if let Some(limits) = limits {
            stack = boxed(ServiceBuilder::new().layer(limits).service(stack));
        }
        stack = boxed(ServiceBuilder::new().layer(sessions).service(stack));
    }
    // Outermost: it looks at X-Forwarded-For as the proxies in front have written it.
    if let Some(limits) = backend.and_then(|backend| args.limits.layer(&backend, &args.trust.client_ip())) {
        let limited = ServiceBuilder::new().layer(limits).service(stack).map_request(|mut request: Request<Body>| {
            if let Some(Peer(peer)) = request.extensions().get().copied() {
                request.extensions_mut().insert(PeerAddr(peer));
            }
            request
        });
        stack = boxed(limited);
    }
    Ok(Layers { stack, cache })
}

/// The cache layers. Each is boxed: the type of all of them in each other takes minutes to compile.
fn around(mut stack: Stack, cache: &HttpCache, args: &Args) -> Stack {
    let has = |layer| args.layers.contains(&layer);
    if has(Layer::Coalesce) {
        stack = boxed(ServiceBuilder::new().layer(CoalesceLayer::new(cache)).service(stack));
    }
    if has(Layer::Cache) {
        stack = boxed(ServiceBuilder::new().layer(CacheLayer::new(cache)).service(stack));
    }
    if has(Layer::Swr) {
        stack = boxed(ServiceBuilder::new().layer(SwrLayer::new(cache)).service(stack));
    }
    if has(Layer::Cache) || has(Layer::Swr) {
        // QUERY alone: it is safe. A POST changes something, for all that a proxy knows.
        let keyed = ServiceBuilder::new().layer(BodyKeyLayer::new()).map_request(rebox).service(stack);
        stack = BoxCloneService::new(keyed);
    }
    if has(Layer::Tags) {
        let mut tags = TagInvalidationLayer::new(cache);
        if let Some(token) = &args.cache.purge_token {
            tags = tags.purge(token.clone());
        }
        stack = boxed(ServiceBuilder::new().layer(tags).service(stack));
    }
    stack
}

/// One layer more, with the body that all have.
fn boxed<S, R>(service: S) -> Stack
where
    S: Service<Request<Body>, Response = Response<R>, Error = UpstreamError> + Clone + Send + 'static,
    S::Future: Send,
    R: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    BoxCloneService::new(service.map_response(rebox_response))
}

fn rebox<B>(request: Request<B>) -> Request<Body>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    request.map(|body| body.map_err(Into::into).boxed_unsync())
}

fn rebox_response<B>(response: Response<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}
