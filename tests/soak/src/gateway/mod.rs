//! One gateway of the fleet: all layers in their documented order around a proxy and a few handlers.

mod accounts;
mod proxy;
mod size;

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    http::{HeaderName, StatusCode},
    routing::{get, post},
};
use tower::ServiceBuilder;
use tower_gatehouse::{
    Backend, BoxError, CacheLayer, CoalesceLayer, HttpCache, PurgeToken, SwrLayer, TagInvalidationLayer,
    rate_limit::{Key, OnError, Policy, Quota, RateLimitLayer},
    session::{KeyRing, SessionLayer, Source},
    tag_invalidation::InvalidateService,
};

use crate::{
    broken::Broken,
    checker::{BURST, PER_SECOND},
};

/// The argument that makes this program a gateway.
pub(crate) const ARGUMENT: &str = "gateway";
/// What allows purging.
pub(crate) const PURGE_TOKEN: &str = "the-purge-token-of-the-soak";
/// The same in all gateways.
const MASTER_KEY: [u8; 32] = [7; 32];

/// How a gateway is started.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) listen: SocketAddr,
    /// Where responses are kept.
    pub(crate) cache: String,
    /// How many replicas an invalidation waits for there.
    pub(crate) replicas: u32,
    /// Where sessions, carts and limits are kept.
    pub(crate) records: String,
    pub(crate) origin: SocketAddr,
    pub(crate) broken: Broken,
}

impl Setup {
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Self { listen, cache, replicas, records, origin, broken } = self;
        vec![
            ARGUMENT.to_owned(),
            listen.to_string(),
            cache.clone(),
            replicas.to_string(),
            records.clone(),
            origin.to_string(),
            broken.name().to_owned(),
        ]
    }

    fn parse(arguments: &[String]) -> Option<Self> {
        let [_, listen, cache, replicas, records, origin, broken] = arguments else { return None };
        Some(Self {
            listen: listen.parse().ok()?,
            cache: cache.clone(),
            replicas: replicas.parse().ok()?,
            records: records.clone(),
            origin: origin.parse().ok()?,
            broken: Broken::parse(broken)?,
        })
    }
}

/// Runs until it is killed.
pub(crate) fn main(arguments: &[String]) -> Result<(), BoxError> {
    let setup = Setup::parse(arguments).ok_or("gateway LISTEN CACHE REPLICAS RECORDS ORIGIN BROKEN")?;
    tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::ERROR).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(setup))
}

async fn serve(setup: Setup) -> Result<(), BoxError> {
    // They start while a fault may be under way.
    let mut cache = Backend::redis(&setup.cache);
    if setup.replicas > 0 {
        cache = cache.wait_for_replicas(setup.replicas, Duration::from_secs(1));
    }
    let cache = cache.connect_lazy()?;
    let records = Backend::redis(&setup.records).connect_lazy()?;
    let app = router(&setup, &cache, &records)?;
    let listener = tokio::net::TcpListener::bind(setup.listen).await?;
    axum::serve(listener, app).await?;
    Ok(())
}

fn router(setup: &Setup, backend: &Backend, records: &Backend) -> Result<Router, BoxError> {
    let broken = setup.broken;
    let cache = HttpCache::new(backend).lease(Duration::from_secs(2));
    let token = PurgeToken::new(PURGE_TOKEN)?;
    let pages = Router::new()
        .route("/pages/{page}", get(proxy::forward).put(proxy::forward))
        .with_state(proxy::Proxy::new(setup.origin, broken))
        .layer(
            ServiceBuilder::new()
                .layer(TagInvalidationLayer::new(&cache).on("PUT /pages/{page}", ["page:{page}"])?.purge(token.clone()))
                .layer(SwrLayer::new(&cache))
                .layer(CacheLayer::new(&cache))
                .layer(CoalesceLayer::new(&cache)),
        );
    let counted = if broken == Broken::Limit { &Backend::memory() } else { records };
    let quota = Quota::per_second(PER_SECOND).burst(BURST);
    let policy = Policy::new("soak", Key::header(HeaderName::from_static("x-client")), quota).on_error(OnError::Deny);
    let limited = Router::new()
        .route("/limited", get(async || StatusCode::NO_CONTENT))
        .layer(RateLimitLayer::with_policies(counted, [policy]));
    let sessions = SessionLayer::new(records, KeyRing::new(MASTER_KEY)?)
        .sources([Source::Bearer])
        .idle(Duration::from_hours(4))
        .max_sessions_per_user(1000);
    let app = Router::new().merge(pages).merge(limited).merge(accounts::router(broken)).layer(sessions);
    // On the ports of a fleet's own network, not behind the layers.
    let inside = Router::new().route("/size", get(size::size));
    let inside = if broken == Broken::Invalidation {
        inside.route("/invalidate", post(async || StatusCode::OK))
    } else {
        inside.route_service("/invalidate", InvalidateService::new(&cache, token))
    };
    Ok(app.merge(inside))
}
