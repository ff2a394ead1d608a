//! What runs without `--upstream`: a small shop that is slow on purpose, and the curl lines to try on it.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{Stream, stream};
use serde_json::json;
use tokio::net::TcpListener;
use tower_gatehouse::{
    Problem,
    session::{Claims, VerifySessionLayer},
};

use crate::{
    BoxError,
    cli::{Args, Forward},
    layers::Layer,
    upstream::{Origin, Route},
};

/// Long enough to be felt.
const WORK: Duration = Duration::from_millis(400);

/// The shop: how often each product has been changed.
type Shop = Arc<BTreeMap<u32, AtomicU64>>;

/// Starts the shop on a free port of its own.
pub(crate) async fn start(args: &Args) -> Result<Route, BoxError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let origin: Origin = format!("http://{}", listener.local_addr()?).parse()?;
    let route = Route::new("/", origin);
    let shop: Shop = Arc::new((1..=60).map(|id| (id, AtomicU64::new(1))).collect());
    let mut router = Router::new()
        .route("/products/{id}", get(show).post(change))
        .route("/search", post(search))
        .route("/time", get(time))
        .route("/events", get(events))
        .with_state(shop);
    if let (Some(keys), Forward::Signed) = (&args.session.keys, args.session.forward) {
        // All that a service needs to know of the gateway's keys.
        let keys = keys.for_audience(&args.session.audience(&route));
        router = router.merge(Router::new().route("/whoami", get(whoami)).layer(VerifySessionLayer::new(keys)));
    }
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(route)
}

/// Tells on stdout what to try, and what it will show.
pub(crate) fn say_what_to_try(address: SocketAddr, layers: &[Layer]) {
    let base = format!("http://{address}");
    println!("\nThe demo shop runs behind this gateway; each of its answers takes it {WORK:?}. In another terminal:\n");
    let cached = layers.contains(&Layer::Cache) || layers.contains(&Layer::Swr);
    let lines: &[(&str, &str)] = if cached {
        &[
            ("/products/1", "200, X-Cache: MISS: the shop was asked"),
            ("/products/1", "200, X-Cache: HIT, with Age: it was not"),
            ("/products/1 -H 'If-None-Match: \"1-1\"'", "304 from the store, without content"),
            ("/products/1 -X POST", "204, X-Cache: BYPASS: the product has changed"),
            ("/products/1", "200, X-Cache: MISS: what was stored is gone"),
            ("/time", "200, Cache-Status: ... detail=no-store: why it is never stored"),
            ("/events -N", "one event each second, each at once"),
            ("/nothing", "404 from the shop, detail=no-freshness"),
        ]
    } else {
        &[
            ("/products/1", "200, with an ETag"),
            ("/products/1 -H 'If-None-Match: \"1-1\"'", "304 Not Modified, without content"),
            ("/products/1 -X POST", "204, the product has changed"),
            ("/products/1", "200, with another ETag"),
            ("/events -N", "one event each second, each at once"),
            ("/nothing", "404 from the shop"),
        ]
    };
    for (request, shows) in lines {
        println!("  curl -i {base}{request:<41} {shows}");
    }
    if layers.contains(&Layer::Coalesce) {
        println!("\n  seq 50 | xargs -P 50 -I{{}} curl -s -o /dev/null -w '%{{time_total}}\\n' {base}/products/2");
        println!("                                     fifty at once: the shop is asked once");
    }
    if layers.contains(&Layer::Session) {
        println!(
            "
  curl -i {base}/login -d '{{\"user\":\"ann\"}}' -c jar       204, with a cookie, and the same token in X-Auth-Token
  curl -i {base}/whoami -b jar                         the shop is told who is asking
  curl -i {base}/whoami -H 'X-Session: forged'         nobody: what clients say about themselves is removed
  curl -i {base}/logout -b jar -X POST                 204; the token is dead"
        );
    }
    println!(
        "
In front of a service of your own, such as one on port 3000:

  cargo run --example gateway -- --upstream http://127.0.0.1:3000

--help lists all flags. Ctrl-C ends it.
"
    );
}

async fn show(State(shop): State<Shop>, Path(id): Path<u32>, request: HeaderMap) -> Response {
    tokio::time::sleep(WORK).await;
    let Some(version) = shop.get(&id).map(|version| version.load(Ordering::Relaxed)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let etag = format!("\"{id}-{version}\"");
    let fields =
        [(header::ETAG, etag.clone()), (header::CACHE_CONTROL, "max-age=30, stale-while-revalidate=60".to_owned())];
    if request.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, fields).into_response();
    }
    (fields, Json(json!({ "id": id, "name": format!("Product {id}"), "version": version }))).into_response()
}

async fn change(State(shop): State<Shop>, Path(id): Path<u32>) -> StatusCode {
    match shop.get(&id) {
        Some(version) => {
            version.fetch_add(1, Ordering::Relaxed);
            StatusCode::NO_CONTENT
        }
        None => StatusCode::NOT_FOUND,
    }
}

/// A question in the body, as searches often have it.
async fn search(State(shop): State<Shop>, Json(question): Json<serde_json::Value>) -> impl IntoResponse {
    tokio::time::sleep(WORK).await;
    let text = question["text"].as_str().unwrap_or_default().to_lowercase();
    let found: Vec<u32> = shop.keys().copied().filter(|id| format!("product {id}").contains(&text)).collect();
    ([(header::CACHE_CONTROL, "max-age=30")], Json(json!({ "found": found })))
}

/// Whom the gateway says it is.
async fn whoami(request: Request) -> Response {
    match Claims::of(&request) {
        Ok(claims) => ([(header::CACHE_CONTROL, "private")], Json(json!({ "user": claims.user() }))).into_response(),
        Err(error) => Problem::from(error).into_response_with_bytes().map(Body::from),
    }
}

async fn time() -> impl IntoResponse {
    tokio::time::sleep(WORK).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    ([(header::CACHE_CONTROL, "no-store")], Json(json!({ "seconds": now.as_secs() })))
}

async fn events() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(ticks()))
}

fn ticks() -> impl Stream<Item = Result<String, Infallible>> {
    stream::unfold(0_u64, |count| async move {
        if count > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Some((Ok(format!("data: {count}\n\n")), count + 1))
    })
}
