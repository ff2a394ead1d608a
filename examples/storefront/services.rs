//! The six services of the shop, as they would be without any gateway: slow, and none of them caches.
//!
//! Two of them serve everybody (products, payments), the others learn from the signed `x-session` field who asks. What
//! belongs to a user, the cart and the orders, is in the store that all share.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{FromRequest as _, Path, Request, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;
use tower::ServiceExt as _;
use tower_gatehouse::{
    Problem,
    session::{Authenticated, Claims, SharedData, SharedMap},
};

use crate::{
    catalogue::{self, Product},
    upstream::Upstream,
};

/// How many of each product somebody is about to buy.
pub(crate) struct Cart;

impl SharedData for Cart {
    const NAME: &'static str = "cart";
    type Value = u32;
}

/// What somebody has bought, by the order's number.
struct Orders;

impl SharedData for Orders {
    const NAME: &'static str = "orders";
    type Value = Order;
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    items: BTreeMap<String, u32>,
    total: u64,
}

/// What the gateway shows of a session.
#[derive(Deserialize)]
struct Seen {
    #[serde(default)]
    name: String,
}

async fn work(milliseconds: u64) {
    sleep(Duration::from_millis(milliseconds)).await;
}

const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

// Products.

pub(crate) fn products() -> Router {
    Router::new()
        .route("/api/products", get(list))
        .route("/api/products/{id}", get(show))
        .route("/api/picks", get(picks))
        .route("/api/search", post(search))
        .route("/images/{id}", get(image))
}

async fn list() -> Json<Vec<Product>> {
    work(250).await;
    Json(catalogue::all().collect())
}

async fn show(Path(id): Path<usize>) -> Response {
    work(200).await;
    match catalogue::product(id) {
        Some(product) => {
            ([(header::ETAG, format!("\"{id}\"")), (SURROGATE_KEY, format!("product:{id}"))], Json(product))
                .into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn picks() -> Json<Vec<Product>> {
    work(150).await;
    Json(catalogue::all().filter(|product| product.id % 17 == 5).collect())
}

#[derive(Deserialize)]
struct Question {
    text: String,
}

async fn search(Json(Question { text }): Json<Question>) -> Json<Vec<Product>> {
    work(300).await;
    let words = text.to_lowercase();
    let fits = |product: &Product| {
        let name = format!("{} {}", product.name, product.text).to_lowercase();
        words.split_whitespace().all(|word| name.contains(word))
    };
    Json(catalogue::all().filter(fits).collect())
}

async fn image(Path(name): Path<String>) -> Response {
    work(20).await;
    let id = name.strip_suffix(".svg").and_then(|id| id.parse().ok());
    match id.and_then(catalogue::picture) {
        Some(picture) => ([(header::CONTENT_TYPE, "image/svg+xml")], picture).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

// Payments: what other services ask, never a client.

pub(crate) fn payments() -> Router {
    async fn pay(Json(order): Json<Value>) -> Json<Value> {
        work(120).await;
        Json(json!({ "paid": order["total"] }))
    }
    Router::new().route("/pay", post(pay))
}

// The cart: for visitors too.

pub(crate) fn cart() -> Router {
    async fn show(request: Request) -> Result<Response, Refused> {
        let content = map::<Cart>(&request)?.get_all().await?;
        Ok(Json(json!({ "version": content.version, "items": content.fields })).into_response())
    }
    async fn add(Path(sku): Path<usize>, request: Request) -> Result<Response, Refused> {
        catalogue::product(sku).ok_or(Problem::new(StatusCode::NOT_FOUND, "there is no such product"))?;
        let count = map::<Cart>(&request)?.incr(&sku.to_string(), 1, 0..=99).await?;
        Ok(Json(json!({ "count": count })).into_response())
    }
    async fn remove(Path(sku): Path<String>, request: Request) -> Result<Response, Refused> {
        map::<Cart>(&request)?.remove(&sku).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }
    Router::new().route("/api/cart", get(show)).route("/api/cart/{sku}", post(add).delete(remove))
}

// Identity: who is logged in.

pub(crate) fn identity() -> Router {
    async fn who(request: Request) -> Result<Response, Refused> {
        work(80).await;
        let who = Authenticated::<Seen>::from_claims(Claims::of(&request)?).await?;
        let fields = [(header::CACHE_CONTROL, "private, max-age=60")];
        Ok((fields, Json(json!({ "user": who.user, "name": who.data.name }))).into_response())
    }
    Router::new().route("/me", get(who))
}

// Orders: takes the cart away, once, whoever else tries.

#[derive(Deserialize)]
struct Checkout {
    /// The version of the cart that the user has seen.
    version: u64,
    /// Names this order, so that it may be sent again.
    id: String,
}

pub(crate) fn orders(payments: Upstream) -> Router {
    async fn buy(State(payments): State<Upstream>, request: Request) -> Result<Response, Refused> {
        let (claims, cart, orders) = (Claims::of(&request)?, map::<Cart>(&request)?, map::<Orders>(&request)?);
        if claims.user().is_none() {
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "log in to buy").into());
        }
        let Json(Checkout { version, id }) = Json::from_request(request, &()).await.map_err(|_| bad_request())?;
        let taken = cart.once(&id).take(version).await?;
        if taken.fields.is_empty() {
            return Err(Problem::new(StatusCode::CONFLICT, "the cart is empty").into());
        }
        let price = |(sku, count): (&String, &u32)| {
            let product = sku.parse().ok().and_then(catalogue::product);
            product.map_or(0, |product| product.price * u64::from(*count))
        };
        let order = Order { total: taken.fields.iter().map(price).sum(), items: taken.fields };
        let asked = Request::post("/pay")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(json!({ "total": order.total }).to_string()))
            .map_err(|_| bad_request())?;
        let Ok(paid) = payments.oneshot(asked).await;
        if !paid.status().is_success() {
            // What was taken goes back.
            for (sku, count) in &order.items {
                cart.incr(sku, i64::from(*count), 0..=99).await?;
            }
            return Err(Problem::new(StatusCode::BAD_GATEWAY, "the payment failed; the cart is as it was").into());
        }
        orders.set(&id, &order).await?;
        Ok((StatusCode::CREATED, Json(json!({ "id": id, "order": order }))).into_response())
    }
    Router::new().route("/api/buy", post(buy)).with_state(payments)
}

// The history: only reads.

pub(crate) fn history() -> Router {
    async fn show(request: Request) -> Result<Response, Refused> {
        work(150).await;
        let orders = map::<Orders>(&request)?.get_all().await?;
        let fields = [(header::CACHE_CONTROL, "private, no-store")];
        Ok((fields, Json(json!({ "orders": orders.fields }))).into_response())
    }
    Router::new().route("/api/history", get(show))
}

/// What belongs to the one who asks.
fn map<D: SharedData>(request: &Request) -> Result<SharedMap<D>, Problem> {
    Ok(Claims::of(request)?.shared_map()?)
}

/// A refusal as problem+json.
struct Refused(Problem);

impl<E: Into<Problem>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        self.0.into_response_with_bytes().map(Body::from)
    }
}

fn bad_request() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "the request is malformed")
}
