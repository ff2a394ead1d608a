//! The gateway: all layers in their documented order, in front of the services.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, Request},
    http::{Method, StatusCode},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Deserialize;
use serde_json::json;
use tower::{ServiceBuilder, util::BoxCloneSyncService};
use tower_gatehouse::{
    Backend, BodyKeyLayer, BoxError, HttpCache, Problem, Rule,
    aggregate::{Aggregate, Part},
    rate_limit::{Key, PeerAddr, Quota, RateLimitLayer},
    session::{ForwardSessionLayer, ForwardedBody, KeyRing, Session, SessionCookie, SessionLayer, SharedMap},
};

use tower_http::csrf::CsrfLayer;

use crate::{
    board::{self, Board},
    services::Cart,
    upstream::Upstream,
};

/// What the gateway sends requests to.
type Sends = BoxCloneSyncService<Request, Response, Infallible>;

/// The services, as the gateway knows them.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) products: Upstream,
    pub(crate) payments: Upstream,
    pub(crate) cart: Upstream,
    pub(crate) identity: Upstream,
    pub(crate) orders: Upstream,
    pub(crate) history: Upstream,
}

impl Services {
    pub(crate) fn all(&self) -> [&Upstream; 6] {
        [&self.products, &self.orders, &self.history, &self.payments, &self.identity, &self.cart]
    }
}

/// What is cached, and for how long: short, so that a visitor sees it become stale. Every browser sends a cookie, so the
/// rules say of what is for everybody that it is.
pub(crate) fn cache(backend: &Backend) -> Result<HttpCache, BoxError> {
    let seconds = Duration::from_secs;
    let shared = |fresh: u64| Rule::ttl(seconds(fresh)).stale(seconds(600)).shareable();
    // Several storefronts on one Redis share what they have, whatever port they are asked on.
    Ok(HttpCache::new(backend)
        .any_host()
        .rule("/api/products", shared(20).tag("catalogue"))?
        .rule("/api/products/{id}", shared(20).tag("catalogue"))?
        .rule("/api/picks", shared(60).tag("catalogue"))?
        .rule("/api/search", shared(30).tag("catalogue"))?
        .rule("/images/{id}", shared(3600).tag("images"))?)
}

/// The services behind the cache layers, and those behind the session: what the buttons of the page send requests to as
/// well, so that a stampede meets no limit for one address.
pub(crate) fn shop(cache: &HttpCache, services: &Services, keys: &KeyRing, board: &Board) -> Result<Router, BoxError> {
    let known = |upstream: &Upstream| forwarding(upstream, keys);
    let products = services.products.clone();
    let cart = known(&services.cart);
    let routes = Router::new()
        .route_service("/api/products", products.clone())
        .route_service("/api/products/{id}", products.clone())
        .route_service("/images/{id}", products)
        .route_service("/api/cart", cart.clone())
        .route_service("/api/cart/{sku}", cart)
        .route_service("/api/buy", known(&services.orders))
        .route_service("/api/history", known(&services.history))
        .route_service("/api/profile", profile(cache, services, keys)?);
    // A search is a POST; its content is a part of its key.
    let search = Router::new().route_service("/api/search", services.products.clone());
    let search =
        search.layer(ServiceBuilder::new().layer(BodyKeyLayer::new().method(Method::POST)).layer(cache.layers()));
    Ok(routes.layer(cache.layers()).merge(search).layer(from_fn_with_state(board.clone(), board::watch)))
}

/// One answer from three services, each with its own lifetime: who it is, what was bought, what else there is.
fn profile(cache: &HttpCache, services: &Services, keys: &KeyRing) -> Result<Aggregate, BoxError> {
    let picks = ServiceBuilder::new().layer(cache.layers()).service(services.products.clone());
    let (who, bought) = (forwarding(&services.identity, keys), forwarding(&services.history, keys));
    let profile = Aggregate::at("/api/profile")?
        .part("who", Part::new(who, |cx| Ok(cx.get("/me")?.map(Body::new))).forward_extension::<Session>())
        .part(
            "orders",
            Part::new(bought, |cx| Ok(cx.get("/api/history")?.map(Body::new)))
                .forward_extension::<Session>()
                .timeout(Duration::from_secs(2))
                .optional(),
        )
        .part("picks", Part::new(picks, |cx| Ok(cx.get("/api/picks")?.map(Body::new))).default(json!([])));
    Ok(profile.build()?)
}

/// A service that is told who asks, signed for it alone.
fn forwarding(upstream: &Upstream, keys: &KeyRing) -> Sends {
    let forward = ForwardSessionLayer::new(upstream.name(), keys).fields(["name"]);
    let whole = |response: Response<_>| response.map(Body::new);
    let forwarded = |request: Request<ForwardedBody<Body>>| request.map(Body::new);
    let layers = ServiceBuilder::new().map_response(whole).layer(forward).map_request(forwarded);
    BoxCloneSyncService::new(layers.service(upstream.clone()))
}

/// Limits and sessions around the shop.
pub(crate) fn gateway(shop: Router, backend: &Backend, keys: &KeyRing) -> Result<Router, BoxError> {
    let cookie = SessionCookie::builder().insecure_for_localhost().build()?;
    // Everybody has a session from the first request on, so that visitors have carts.
    let sessions = SessionLayer::new(backend, keys.clone()).cookie(cookie).begin_at_once();
    let layers = ServiceBuilder::new()
        .layer(from_fn(peer))
        .layer(RateLimitLayer::new(backend, "address", Key::peer_ip(), Quota::per_minute(1200)))
        .layer(sessions)
        .layer(RateLimitLayer::new(backend, "visitor", Key::session(), Quota::per_minute(600)))
        // What another site sends unasked is refused.
        .layer(CsrfLayer::new());
    let own = Router::new().route("/api/login", post(login)).route("/api/logout", post(logout));
    Ok(own.merge(shop).layer(layers))
}

/// Who is connected, for the limits; with the feature `axum`, they find it themselves.
async fn peer(mut request: Request, next: Next) -> Response {
    if let Some(ConnectInfo(address)) = request.extensions().get::<ConnectInfo<SocketAddr>>().copied() {
        request.extensions_mut().insert(PeerAddr(address));
    }
    next.run(request).await
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
}

/// A real application checks a password here.
async fn login(request: Request) -> Response {
    let Ok(session) = Session::<()>::of(&request) else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let Ok(Json(Credentials { name })) = axum::RequestExt::extract(request).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    answer(begin(&session, name.trim()).await)
}

async fn begin(session: &Session<()>, name: &str) -> Result<StatusCode, Problem> {
    if name.is_empty() || name.len() > 40 {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "a name has 1 to 40 bytes"));
    }
    let visitor = SharedMap::<Cart>::of(session);
    let login = session.view::<serde_json::Map<String, serde_json::Value>>().begin_login(name.to_lowercase()).await?;
    // What the visitor has put into the cart is the user's; before the login, because nobody comes back to the visitor's
    // cart if the client leaves after it.
    visitor.merge_into(&name.to_lowercase(), |_, users, visitors| (users + visitors).min(99)).await?;
    login.finish(|data| drop(data.insert("name".into(), name.into()))).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn logout(request: Request) -> Response {
    // A body is nothing that others may look at.
    let session = Session::<()>::of(&request);
    drop(request);
    let ended = async { Ok::<_, Problem>(session?.destroy().await?) };
    answer(ended.await.map(|()| StatusCode::NO_CONTENT))
}

fn answer(result: Result<StatusCode, Problem>) -> Response {
    match result {
        Ok(status) => status.into_response(),
        Err(problem) => problem.into_response_with_bytes().map(Body::from),
    }
}
