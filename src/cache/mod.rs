//! A shared HTTP cache (RFC 9111) as a layer.
//!
//! [`CacheLayer`] answers from the store what HTTP allows to be answered from there, revalidates what is stale, stores
//! what may be stored, and removes what a successful unsafe request has made untrue. Nothing is stored that does not
//! say itself that it may be (by a lifetime, or by its `Last-Modified`: a tenth of its age, at most a day), until [`HttpCache::default_ttl`](crate::HttpCache::default_ttl) or a
//! [`Rule`](crate::Rule) says more.
//!
//! A response streams to its client while it is stored, and is stored before the client sees its last byte; what is
//! not stored passes through untouched, frame by frame. The inner service is called only for what the store cannot
//! answer, on a clone of its own, so that hits never wait for a saturated origin.
//!
//! Needs a tokio runtime.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{Empty, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_gatehouse::{Backend, CacheLayer, ResponseExt};
//!
//! let app = ServiceBuilder::new().layer(CacheLayer::new(&Backend::memory())).service(service_fn(
//!     async |_: Request<Empty<Bytes>>| {
//!         let response = Response::builder().header("cache-control", "max-age=60");
//!         response.body(Full::new(Bytes::from("hello")))
//!     },
//! ));
//! let get = || Request::get("http://example.com/").body(Empty::new()).unwrap();
//! let first = app.clone().oneshot(get()).await?;
//! assert!(!first.cache_status().unwrap().is_hit());
//! http_body_util::BodyExt::collect(first.into_body()).await.unwrap();
//! let second = app.oneshot(get()).await?;
//! assert!(second.cache_status().unwrap().is_hit());
//! # Ok(()) }
//! ```

mod layer;
mod service;

pub use layer::CacheLayer;
pub use service::CacheService;
