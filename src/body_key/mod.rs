//! Caching requests that have content: a search endpoint that takes JSON by POST or QUERY.
//!
//! [`BodyKeyLayer`] stands outside the cache layers. It reads the content of the methods that it is told, up to a
//! size, leaves its digest as a part of the cache key, and gives the content back for the inner service. A cache
//! layer then treats the request like a GET: it stores what the response allows to be stored. HTTP has no rule for
//! answering a POST from a cache (RFC 9110 §9.3.3 allows it only for a later GET), so put this layer only where POST
//! is a safe method in disguise; QUERY is one by definition.
//!
//! A stale answer to a QUERY is validated like one to a GET. One to another method is fetched anew: its requests go to
//! the origin as the client sent them, because to them HTTP answers a condition that does not hold with 412 (RFC 9110
//! §13.1.2).
//!
//! ```
//! use http::Method;
//! use tower_gatehouse::{Backend, BodyKeyLayer, HttpCache};
//!
//! let cache = HttpCache::new(&Backend::memory());
//! let layer = BodyKeyLayer::new().method(Method::POST).max_bytes(16 * 1024);
//! # let _ = (cache, layer);
//! ```

mod body;
mod layer;
mod service;

pub use body::KeyedBody;
pub use layer::BodyKeyLayer;
pub use service::BodyKeyService;
