//! The concurrent parts that are free of tokio, run under shuttle: it executes them again and again and chooses which
//! thread goes on at every lock, so that a lost wake-up or a deadlock shows as a test that fails. What is tested is the
//! source of the crate itself, with shuttle's locks in place of those of `std`.

#![allow(dead_code, unreachable_pub, missing_docs)]

#[path = "../../src/http_cache/flight.rs"]
mod flight;
#[path = "../../src/body/shared.rs"]
mod shared;

mod backend {
    pub(crate) use tower_gatehouse::backend::{Lookup, Ticket, Variant};
}
mod sync {
    pub(crate) use std::sync::PoisonError;

    pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard};
}

pub(crate) use tower_gatehouse::BoxError;

mod bodies;
mod flights;
