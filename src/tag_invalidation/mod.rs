//! Invalidation by what passes through: successful unsafe requests, PURGE, an admin endpoint.
//!
//! [`TagInvalidationLayer`] looks at unsafe requests that succeeded (2xx and 3xx) and, before their head goes out to
//! the client, invalidates
//! - the groups that the origin names in `Cache-Group-Invalidation` (RFC 9875 §3),
//! - the tags that a handler left in the [`InvalidateTags`](crate::InvalidateTags) extension,
//! - the tags of its own rules: `POST /products/{id}` invalidates `product:{id}`.
//!
//! An unsafe request goes on if its client leaves, so that what it changes is invalidated.
//!
//! If the backend fails then, the response stays as it is; the failure is logged and retried in the background. Who
//! must know awaits [`HttpCache::invalidate`](crate::HttpCache::invalidate), which is an error in that case.
//!
//! With a [`PurgeToken`] it also answers `PURGE`, and [`InvalidateService`] is the same as an endpoint for another
//! port: `POST /invalidate`.
//!
//! ```
//! use tower_gatehouse::{Backend, HttpCache, PurgeToken, TagInvalidationLayer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = HttpCache::new(&Backend::memory());
//! let layer = TagInvalidationLayer::new(&cache)
//!     .on("PUT /products/{id}", ["product:{id}", "catalogue"])?
//!     .purge(PurgeToken::new("a-secret-of-16-bytes-or-more")?);
//! # let _ = layer; Ok(()) }
//! ```

/// Any content is an order to invalidate or a 400; so are the fields of a PURGE.
#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    purge::fuzz(data);
}

mod admin;
mod layer;
mod purge;
mod service;
mod token;

pub use admin::InvalidateService;
pub use layer::TagInvalidationLayer;
pub use service::{TagInvalidation, TagInvalidationFuture};
pub use token::{PurgeToken, PurgeTokenError};
