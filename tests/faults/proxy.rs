//! A wire between us and Redis that can be slow, or dead.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
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
    /// How many connections there have been.
    accepted: Arc<AtomicUsize>,
    /// Of these the first so many lead nowhere any more.
    stranded: Arc<AtomicUsize>,
}

/// One connection, as its two directions see it.
#[derive(Clone)]
struct Line {
    number: usize,
    mode: Arc<AtomicU8>,
    stranded: Arc<AtomicUsize>,
}

impl Line {
    fn is_silent(&self) -> bool {
        self.mode.load(Ordering::SeqCst) == SILENT || self.number < self.stranded.load(Ordering::SeqCst)
    }
}

const FINE: u8 = 0;
const SLOW: u8 = 1;
const SILENT: u8 = 2;

impl Proxy {
    pub(crate) async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let mode = Arc::new(AtomicU8::new(FINE));
        let (accepted, stranded): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let proxy = Self { address, mode: mode.clone(), accepted: accepted.clone(), stranded: stranded.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let number = accepted.fetch_add(1, Ordering::SeqCst);
                let line = Line { number, mode: mode.clone(), stranded: stranded.clone() };
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(pass(from_client, to_server, line.clone()));
                tokio::spawn(pass(from_server, to_client, line));
            }
        });
        proxy
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

    /// The connections that there are stay open, and nothing passes any more, whatever comes; new ones are fine.
    pub(crate) fn strand(&self) {
        self.stranded.store(self.accepted.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    line: Line,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        if line.mode.load(Ordering::SeqCst) == SLOW {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        while line.is_silent() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        to.write_all(&buffer[..n]).await?;
    }
}
