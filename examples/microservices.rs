//! A gateway, and three services behind it that share what belongs to a user: a cart, orders, their history. Each is a
//! task with a port of its own, as it would be a process.
//!
//! ```text
//! cargo run --features axum --example microservices                       in memory
//! cargo run --features axum,redis --example microservices -- --redis redis://127.0.0.1:6379
//! ```
//!
//! The gateway decodes the token, loads the session, and tells each service who is asking, signed for this service
//! alone. The services have no session keys: each has only the key with which it verifies.

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{StatusCode, Uri},
    response::Response,
    routing::{get, post},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn, util::BoxCloneSyncService};
use tower_gatehouse::{
    Backend, Problem,
    session::{
        Authenticated, ForwardSessionLayer, KeyRing, MapError, Session, SessionCookie, SessionLayer, SharedData,
        SharedMap, Source, VerifySessionLayer,
    },
};

/// How many of each product; the services share it.
struct Cart;

impl SharedData for Cart {
    const NAME: &'static str = "cart";
    type Value = u32;
}

#[derive(Clone, Debug, Serialize)]
struct Order {
    id: String,
    /// The version of the cart that was taken: an id that is used again much later is another order.
    #[serde(skip)]
    cart: u64,
    items: BTreeMap<String, u32>,
}

type Orders = Arc<Mutex<BTreeMap<String, Vec<Order>>>>;

/// The session's fields that services may see.
#[derive(Deserialize)]
struct Seen {
    #[serde(default)]
    name: String,
}

// The cart: for anonymous visitors too.

fn cart() -> Router {
    let show = async |cart: SharedMap<Cart>| {
        let content = cart.get_all().await?;
        Ok::<_, Problem>(Json(serde_json::json!({ "version": content.version, "items": content.fields })))
    };
    let add = async |cart: SharedMap<Cart>, Path(sku): Path<String>| {
        Ok::<_, Problem>(Json(cart.incr(&sku, 1, 0..=99).await?))
    };
    Router::new().route("/cart", get(show)).route("/cart/{sku}", post(add))
}

// Orders: takes the cart away, once, whoever else tries.

#[derive(Deserialize)]
struct Checkout {
    /// The version of the cart that the user has seen.
    version: u64,
    /// Names this order, so that it may be sent again.
    id: String,
}

fn orders(orders: Orders) -> Router {
    let order = async |State(orders): State<Orders>,
                       who: Authenticated<Seen>,
                       cart: SharedMap<Cart>,
                       Query(Checkout { version, id }): Query<Checkout>| {
        let order = match cart.once(&id).take(version).await {
            Ok(taken) => Order { id, cart: taken.version, items: taken.fields },
            Err(MapError::Conflict { .. }) => {
                return Err(Problem::new(StatusCode::CONFLICT, "the cart was changed; look at it again"));
            }
            Err(error) => return Err(error.into()),
        };
        let mut orders = orders.lock().map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "out of order"))?;
        let of_user = orders.entry(who.user).or_default();
        // A repetition gets the same cart, and is the same order.
        if of_user.iter().all(|known| (&known.id, known.cart) != (&order.id, order.cart)) {
            of_user.push(order.clone());
        }
        Ok((StatusCode::CREATED, Json(order)))
    };
    Router::new().route("/orders", post(order)).with_state(orders)
}

// The history: only reads.

fn history(orders: Orders) -> Router {
    let show = async |State(orders): State<Orders>, who: Authenticated<Seen>| {
        let orders = orders.lock().map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "out of order"))?;
        let of_user = orders.get(&who.user).cloned().unwrap_or_default();
        Ok::<_, Problem>(Json(serde_json::json!({ "for": who.data.name, "orders": of_user })))
    };
    Router::new().route("/history", get(show)).with_state(orders)
}

/// Starts a service on a port of its own. All it knows is its own key and the store.
async fn start(name: &'static str, routes: Router, keys: &KeyRing, backend: &Backend) -> Result<Uri, Box<dyn Error>> {
    let secret = keys.for_audience(name).expose();
    let app = routes.layer(VerifySessionLayer::new(secret.parse()?).backend(backend));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?).parse()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    println!("{name} on {origin}");
    Ok(origin)
}

/// What the gateway sends on, with what it knows about who is asking.
fn upstream(
    name: &str,
    origin: Uri,
    keys: &KeyRing,
) -> BoxCloneSyncService<Request, Response, std::convert::Infallible> {
    let client: Client<HttpConnector, Body> = Client::builder(TokioExecutor::new()).build_http();
    let send = service_fn(move |mut request: Request| {
        let (client, path) =
            (client.clone(), request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned());
        let target = format!("{}{path}", origin.to_string().trim_end_matches('/'));
        async move {
            let refused = || {
                let mut response = Response::new(Body::from("the service does not answer\n"));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            };
            let Ok(target) = target.parse() else { return Ok(refused()) };
            *request.uri_mut() = target;
            Ok(client.request(request).await.map_or_else(|_| refused(), |response| response.map(Body::new)))
        }
    });
    let forward = ForwardSessionLayer::new(name, keys).fields(["name"]);
    BoxCloneSyncService::new(
        ServiceBuilder::new()
            .map_response(|r: Response<_>| r.map(Body::new))
            .layer(forward)
            .map_request(|r: http::Request<_>| r.map(Body::new))
            .service(send),
    )
}

async fn login(session: Session, Path(user): Path<String>) -> Result<StatusCode, Problem> {
    let visitor = SharedMap::<Cart>::of(&session);
    let login = session.begin_login(user.clone()).await?;
    // A real application checks a password here. What the visitor has put into the cart is the user's; before the login,
    // because nobody comes back to the visitor's cart if the client leaves after it.
    visitor.merge_into(&user, |_, users, visitors| (users + visitors).min(99)).await?;
    login.finish(|data| drop(data.insert("name".into(), user.to_uppercase().into()))).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (backend, address) = arguments().await?;
    let (keys, database) = (KeyRing::ephemeral(), Orders::default());
    let services = [
        ("cart", cart(), "/cart/{*rest}"),
        ("orders", orders(database.clone()), "/orders/{*rest}"),
        ("history", history(database), "/history/{*rest}"),
    ];
    let mut gateway = Router::new().route("/login/{user}", post(login));
    for (name, routes, below) in services {
        let service = upstream(name, start(name, routes, &keys, &backend).await?, &keys);
        gateway = gateway.route_service(&format!("/{name}"), service.clone()).route_service(below, service);
    }
    let cookie = SessionCookie::builder().insecure_for_localhost().build()?;
    // Everybody has a session from the first request on, so that visitors have carts.
    let sessions =
        SessionLayer::new(&backend, keys).cookie(cookie).sources([Source::Bearer, Source::Cookie]).begin_at_once();
    let gateway = gateway.layer(sessions);
    let listener = TcpListener::bind(address).await?;
    let base = format!("http://{}", listener.local_addr()?);
    println!(
        "gateway on {base}, with {}; in another terminal:

  curl {base}/cart -c jar -b jar                              begins a session
  curl {base}/cart/mug -c jar -b jar -X POST                  1, 2, …
  curl {base}/history -c jar -b jar                           401: log in first
  curl {base}/login/ann -c jar -b jar -X POST                 the visitor's cart becomes ann's
  curl {base}/cart -c jar -b jar                              shows its version V
  curl '{base}/orders?id=1&version=V' -c jar -b jar -X POST   201, and the same again for the same id; 409 for an old V
  curl {base}/history -c jar -b jar
  curl {base}/history -H 'x-session: forged'                  401: what clients say about themselves is removed
",
        backend.name()
    );
    axum::serve(listener, gateway).await?;
    Ok(())
}

/// `--redis URL` and `--listen ADDR`.
async fn arguments() -> Result<(Backend, String), Box<dyn Error>> {
    let (mut backend, mut address) = (Backend::memory(), "127.0.0.1:8080".to_owned());
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        match (flag.as_str(), arguments.next()) {
            ("--redis", Some(url)) => backend = redis(url).await?,
            ("--listen", Some(listen)) => address = listen,
            _ => return Err("flags: --redis URL, --listen ADDR".into()),
        }
    }
    Ok((backend, address))
}

#[cfg(feature = "redis")]
async fn redis(url: String) -> Result<Backend, Box<dyn Error>> {
    Ok(Backend::redis(url).namespace("services-example").connect().await?)
}

#[cfg(not(feature = "redis"))]
async fn redis(_: String) -> Result<Backend, Box<dyn Error>> {
    Err("--redis needs --features redis".into())
}
