//! A wire between us and Redis that can be slow, or dead.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Passes bytes on; ends with the runtime.
pub(crate) struct Proxy {
    address: SocketAddr,
    mode: Arc<AtomicU8>,
}

const FINE: u8 = 0;
const SLOW: u8 = 1;
const SILENT: u8 = 2;

impl Proxy {
    pub(crate) async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (address, mode) = (listener.local_addr().expect("an address"), Arc::new(AtomicU8::new(FINE)));
        let shared = Arc::clone(&mode);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(pass(from_client, to_server, Arc::clone(&shared)));
                tokio::spawn(pass(from_server, to_client, Arc::clone(&shared)));
            }
        });
        Self { address, mode }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn fine(&self) {
        self.mode.store(FINE, Ordering::SeqCst);
    }

    /// 200 ms in each direction.
    pub(crate) fn slow(&self) {
        self.mode.store(SLOW, Ordering::SeqCst);
    }

    /// Takes everything and passes on nothing.
    pub(crate) fn silent(&self) {
        self.mode.store(SILENT, Ordering::SeqCst);
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mode: Arc<AtomicU8>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        if mode.load(Ordering::SeqCst) == SLOW {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        while mode.load(Ordering::SeqCst) == SILENT {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        to.write_all(&buffer[..n]).await?;
    }
}
