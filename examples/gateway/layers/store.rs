//! The backend: Redis, or the memory of this process.

use tower_gatehouse::Backend;

use crate::{BoxError, cli::StoreArgs};

/// Opens the store that the flags name. An error is one sentence, without the password that a URL may have.
pub(super) async fn open(args: &StoreArgs) -> Result<Backend, BoxError> {
    open_at(args.redis.as_deref(), args).await
}

/// The same at another URL.
pub(super) async fn open_at(url: Option<&str>, args: &StoreArgs) -> Result<Backend, BoxError> {
    match url {
        Some(url) => redis(url, args).await,
        None => memory(),
    }
}

#[cfg(feature = "redis")]
async fn redis(url: &str, args: &StoreArgs) -> Result<Backend, BoxError> {
    let mut builder = Backend::redis(url);
    if let Some(namespace) = &args.namespace {
        builder = builder.namespace(namespace);
    }
    if let Some(timeout) = args.timeout {
        builder = builder.operation_timeout(timeout).limit_timeout(timeout);
    }
    if let Some(replicas) = args.replicas {
        builder = builder.wait_for_replicas(replicas, std::time::Duration::from_secs(1));
    }
    Ok(builder.connect().await?)
}

#[cfg(not(feature = "redis"))]
#[expect(clippy::unused_async, reason = "with the feature it waits")]
async fn redis(_: &str, _: &StoreArgs) -> Result<Backend, BoxError> {
    Err("This build has no Redis: build it with --features redis.".into())
}

#[cfg(feature = "memory")]
#[expect(clippy::unnecessary_wraps, reason = "without the feature it fails")]
fn memory() -> Result<Backend, BoxError> {
    Ok(Backend::memory())
}

#[cfg(not(feature = "memory"))]
fn memory() -> Result<Backend, BoxError> {
    Err("This build keeps nothing in memory: give --redis URL, or --layers none.".into())
}
