//! One request to the origin when a thousand arrive at once, as a layer.
//!
//! [`CoalesceLayer`] lets concurrent requests for the same answer wait for one: in this process they read its answer
//! as it arrives, in the other processes of the fleet they get it from the store, or, where no cache layer stores it,
//! from the hand of the one that asked. Never to a request that came after the flight had ended: that is what a cache
//! is for.
//!
//! A response is shared with a follower exactly if the follower could reuse it from a shared cache (RFC 9111 §4) and it
//! is no event stream. At the head of one that may not be shared all go on in parallel, and the key is remembered as
//! uncacheable for a while ([`HttpCache::remember_uncacheable`](crate::HttpCache::remember_uncacheable)), so that they
//! never queue one behind the other. If it was about one request (429, a refusal such as 403 that is not stored), those
//! who waited in this process share the next one; two such answers in a row count for everybody. HEAD and parts neither
//! lead nor follow, and requests that say who asks only where their key is known to be for everybody.
//!
//! The request runs in a task of its own: its client may leave. If the process dies, another takes over within
//! [`HttpCache::lease`](crate::HttpCache::lease).
//!
//! A gateway behind another one needs a [scope](crate::HttpCache::scope) or a namespace of its own: with the same keys in
//! the same store, each of its requests would wait for the one that it is a part of
//! ([`HttpCache::wait`](crate::HttpCache::wait)). So would those of a second `CoalesceLayer` of the same
//! cache behind something that makes requests anew without their extensions. Two caches in one stack that share keys and
//! store do not wait for each other, and are warned of: a setter on a clone of an [`HttpCache`](crate::HttpCache) makes
//! another cache.
//!
//! While the store is out of its reach, a process sends one request at a time for each key. Who comes after the origin
//! was asked waits for the next one, together with all who come meanwhile: another process may have invalidated.

mod layer;
mod service;

pub use layer::CoalesceLayer;
pub use service::CoalesceService;
