//! How many requests are in progress at once, in this process.
//!
//! A request is in progress until its response has been sent: until the end of the body, or until the body is dropped.
//! A slow download counts for as long as it takes; tower's own `ConcurrencyLimit` lets go at the head. A connection that
//! was upgraded, as to a WebSocket, does not count: its response (101) has ended. Who comes in addition is refused at
//! once and does not wait in line: with 429, or with 503 and `Retry-After` where the key is everybody's
//! ([`Key::global`](super::Key::global), [`Key::route`](super::Key::route)), for then it is the server that is busy.
//!
//! Each process counts for itself, so a fleet admits the limit times the number of its processes.
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_gatehouse::rate_limit::{ConcurrencyLimitLayer, Key};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut service = ServiceBuilder::new()
//!     .layer(ConcurrencyLimitLayer::new("downloads", Key::global(), 1))
//!     .service(service_fn(async |_: Request<()>| Ok::<_, std::io::Error>(Response::new(String::from("a long one")))));
//!
//! let first = service.ready().await?.call(Request::new(())).await?;
//! let second = service.ready().await?.call(Request::new(())).await?;
//! assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
//! drop(first); // the client has left
//! let third = service.ready().await?.call(Request::new(())).await?;
//! assert_eq!(third.status(), StatusCode::OK);
//! # Ok(())
//! # }
//! ```

mod body;
mod future;
mod layer;
mod permits;
mod service;

pub use body::PermitBody;
pub use future::ConcurrencyFuture;
pub use layer::ConcurrencyLimitLayer;
pub use service::ConcurrencyLimit;
