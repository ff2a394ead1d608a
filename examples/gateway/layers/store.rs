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
        Some(url) => redis(url, args.namespace.as_deref()).await,
        None => memory(),
    }
}

#[cfg(feature = "redis")]
async fn redis(url: &str, namespace: Option<&str>) -> Result<Backend, BoxError> {
    let mut builder = Backend::redis(url);
    if let Some(namespace) = namespace {
        builder = builder.namespace(namespace);
    }
    Ok(builder.connect().await?)
}

#[cfg(not(feature = "redis"))]
#[expect(clippy::unused_async, reason = "with the feature it waits")]
async fn redis(_: &str, _: Option<&str>) -> Result<Backend, BoxError> {
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
