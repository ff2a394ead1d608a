//! The store that all layers share: in memory, or a Redis that can be frozen from the page.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tower_gatehouse::{Backend, BoxError};

/// Where the store is.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) backend: Backend,
    /// HOST:PORT, where it is a Redis that lets everybody in: only that can be frozen.
    redis: Option<String>,
}

impl Store {
    pub(crate) fn memory() -> Self {
        Self { backend: Backend::memory(), redis: None }
    }

    #[cfg(feature = "redis")]
    pub(crate) async fn redis(url: &str) -> Result<Self, BoxError> {
        // A stampede of 500 on an unoptimized build takes its time; a frozen Redis costs a request twice this at most.
        let timeout = Duration::from_millis(500);
        let backend = Backend::redis(url).namespace("storefront").operation_timeout(timeout).connect().await?;
        let address = url.strip_prefix("redis://").and_then(|rest| rest.split(['/', '?']).next());
        let address = address.filter(|address| !address.contains(['@', ',']));
        let with_port = |address: &str| {
            if address.contains(':') { address.to_owned() } else { format!("{address}:6379") }
        };
        Ok(Self { backend, redis: address.map(with_port) })
    }

    #[cfg(not(feature = "redis"))]
    #[expect(clippy::unused_async, reason = "with the feature it waits")]
    pub(crate) async fn redis(_: &str) -> Result<Self, BoxError> {
        Err("--redis needs --features redis: cargo run --features redis --example storefront -- --redis URL".into())
    }

    pub(crate) fn can_freeze(&self) -> bool {
        self.redis.is_some()
    }

    /// Lets Redis answer nobody for a while.
    pub(crate) async fn freeze(&self, duration: Duration) -> io::Result<()> {
        let Some(address) = &self.redis else { return Err(io::ErrorKind::Unsupported.into()) };
        let freezing = async {
            let mut redis = TcpStream::connect(address).await?;
            redis.write_all(format!("CLIENT PAUSE {} ALL\r\n", duration.as_millis()).as_bytes()).await?;
            let mut reply = [0; 64];
            let length = redis.read(&mut reply).await?;
            if reply.starts_with(b"+OK") {
                return Ok(());
            }
            Err(io::Error::other(String::from_utf8_lossy(&reply[..length]).trim().to_owned()))
        };
        timeout(Duration::from_secs(2), freezing).await?
    }
}
