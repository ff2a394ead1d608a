//! An origin that does what a test tells it to, byte by byte.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use crate::wire::{Head, Wire};

/// Listens on a free port until it is dropped; each connection is served by a thread.
pub(crate) struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    connections: AtomicUsize,
    heads: Mutex<Vec<Head>>,
}

impl Origin {
    /// Calls `serve` with each request's head, and the connection; its content is for `serve` to read. The connection
    /// stays open for as long as it returns true.
    pub(crate) fn new(serve: impl Fn(&mut Wire, &Head) -> bool + Send + Sync + 'static) -> Self {
        Self::raw(move |wire, shared| {
            while let Ok(head) = wire.head() {
                shared.lock().expect("no panic").push(head.clone());
                if !serve(wire, &head) {
                    break;
                }
            }
        })
    }

    /// Answers each request with the same bytes, having read all of it.
    pub(crate) fn always(answer: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::new(move |wire, head| {
            wire.rest(head.clone(), false).expect("the content of the request");
            wire.send(&answer);
            true
        })
    }

    /// Answers 200 with the request's head, and its content and trailers, as text.
    pub(crate) fn echo() -> Self {
        Self::new(|wire, head| {
            let Ok(message) = wire.rest(head.clone(), false) else { return false };
            let text = format!("{head:#?}\n{}\n{:?}", message.text(), message.trailers);
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
            true
        })
    }

    /// Calls `serve` with each connection.
    pub(crate) fn connections(serve: impl Fn(&mut Wire) + Send + Sync + 'static) -> Self {
        Self::raw(move |wire, _| serve(wire))
    }

    fn raw(serve: impl Fn(&mut Wire, &Mutex<Vec<Head>>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let serve = Arc::new(serve);
        thread::spawn({
            let shared = shared.clone();
            move || {
                for stream in listener.incoming() {
                    if shared.stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let Ok(stream) = stream else { continue };
                    shared.connections.fetch_add(1, Ordering::SeqCst);
                    let (serve, shared) = (serve.clone(), shared.clone());
                    thread::spawn(move || serve(&mut Wire::from(stream), &shared.heads));
                }
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections there have been.
    pub(crate) fn connected(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<Head> {
        self.shared.heads.lock().expect("no panic").clone()
    }

    /// The head of the only request so far.
    pub(crate) fn head(&self) -> Head {
        let heads = self.heads();
        assert_eq!(heads.len(), 1, "{heads:?}");
        heads[0].clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}
