//! What code that is also run under a model checker takes from `std`; the checker's tests put their own in its place.

pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
