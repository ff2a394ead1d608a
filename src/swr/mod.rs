//! Stale while it refreshes (RFC 5861), as a layer.
//!
//! [`SwrLayer`] answers a request whose stored response has become stale from the store all the same, if the response
//! or a rule allows it (`stale-while-revalidate`), and validates it in the background: one validation at a time in the
//! fleet, conditional where there is a validator, within the limits of
//! [`HttpCache::revalidations`](crate::HttpCache::revalidations), less and less often after failures (1 s to 30 s). No
//! client waits for it. An answer that is not stored removes what is, but for failures and what is about one request: a
//! refusal such as 403 removes it when it is repeated.
//!
//! A background validation has the request of the client who came upon the stale response, whose answer has gone out
//! already: a handler that changes the session in it fails (`TooLate`), and so does the validation.
//!
//! With [`HttpCache::soft_timeout`](crate::HttpCache::soft_timeout) it also answers stale when the origin is slow.
//!
//! It is complete alone: it looks up, stores and invalidates as [`CacheLayer`](crate::CacheLayer) does. Together, in
//! either order, they look up once and store once.

mod layer;
mod service;

pub use layer::SwrLayer;
pub use service::SwrService;
