//! The cache layers around a handler, in memory and on Redis.

mod app;
mod basics;
