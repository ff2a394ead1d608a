//! Aggregates: what they answer, in which order they ask, what they say of caching, where they stand.

mod answers;
#[cfg(feature = "memory")]
mod caches;
mod caching;
mod order;
#[cfg(feature = "memory")]
mod private;
mod requests;
mod stacks;
mod support;
#[cfg(feature = "memory")]
mod told;
