//! A shop that shows in a browser what every layer does: six services on ports of their own, the gateway in front of
//! them, and a page made for looking.
//!
//! ```text
//! cargo run --example storefront                     then open http://127.0.0.1:8080
//! cargo run --features redis --example storefront -- --redis redis://127.0.0.1:6379
//! cargo run --features redis --example storefront -- --redis redis://127.0.0.1:6379 --listen 127.0.0.1:8081
//! ```
//!
//! Two storefronts on one Redis share carts, orders and caches.

mod board;
mod catalogue;
mod counted;
mod demo;
mod gateway;
mod services;
mod store;
mod upstream;

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use tokio::net::TcpListener;
use tower_gatehouse::{
    BoxError,
    session::{KeyRing, VerifySessionLayer},
};

use board::Board;
use counted::Counted;
use demo::Demo;
use gateway::Services;
use store::Store;
use upstream::Upstream;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let Arguments { listen, redis } = arguments()?;
    let store = match &redis {
        Some(url) => Store::redis(url).await?,
        None => Store::memory(),
    };
    let keys = match std::env::var("SESSION_KEY") {
        Ok(keys) => keys.parse()?,
        // Storefronts on one Redis read each other's sessions. A real gateway has a secret of its own:
        // `openssl rand -hex 32` makes one.
        Err(_) if redis.is_some() => KeyRing::new("the storefront example's key is known to everybody")?,
        Err(_) => KeyRing::ephemeral(),
    };
    let (backend, calls) = Counted::around(store.backend.clone());

    // Who wants to know who asks has a key of its own to verify what the gateway says, and the store with what is shared.
    let verified = |name: &str, routes: Router| -> Result<Router, BoxError> {
        let key = keys.for_audience(name).expose();
        Ok(routes.layer(VerifySessionLayer::new(key.parse()?).backend(&backend)))
    };
    let payments = Upstream::start("payments", services::payments()).await?;
    let services = Services {
        products: Upstream::start("products", services::products()).await?,
        cart: Upstream::start("cart", verified("cart", services::cart())?).await?,
        identity: Upstream::start("identity", verified("identity", services::identity())?).await?,
        orders: Upstream::start("orders", verified("orders", services::orders(payments.clone()))?).await?,
        history: Upstream::start("history", verified("history", services::history())?).await?,
        payments,
    };

    let (board, cache) = (Board::new(calls), gateway::cache(&backend)?);
    let shop = gateway::shop(&cache, &services, &keys, &board)?;
    let gateway = gateway::gateway(shop.clone(), &backend, &keys)?;
    let demo = Demo { cache: cache.clone(), services: services.clone(), shop, board, store };
    let app = gateway.merge(demo::routes(demo));

    let listener = TcpListener::bind(listen).await.map_err(|error| format!("{listen}: {error}; try --listen"))?;
    for service in services.all() {
        println!("{:<9} on {}", service.name(), service.address());
    }
    println!("\nThe storefront is open: http://{}  (Ctrl-C closes it)", listener.local_addr()?);
    let closing = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(closing)
        .await?;
    cache.shutdown(Duration::from_secs(2)).await;
    Ok(())
}

struct Arguments {
    listen: SocketAddr,
    redis: Option<String>,
}

fn arguments() -> Result<Arguments, BoxError> {
    use lexopt::prelude::{Long, ValueExt};
    let mut arguments = Arguments { listen: ([127, 0, 0, 1], 8080).into(), redis: None };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("listen") => arguments.listen = parser.value()?.parse()?,
            Long("redis") => arguments.redis = Some(parser.value()?.string()?),
            Long("help") => {
                println!("--listen IP:PORT (127.0.0.1:8080)\n--redis URL      (in memory)");
                std::process::exit(0);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(arguments)
}
