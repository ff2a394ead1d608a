//! An origin server that counts what it is asked, and answers, or fails, as it is told.

mod answer;
mod socket;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Bytes, Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use answer::{End, Pieces};
use socket::{LastWords, Socket, Words};

pub use answer::{Answer, Gate};

/// A request as the origin saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// How many requests for this path came before: 0 for the first.
    pub number: usize,
}

impl Seen {
    /// A header field as text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a field of text"))
    }
}

type Handler = Arc<dyn Fn(&Seen) -> Answer + Send + Sync>;

struct State {
    handlers: Mutex<BTreeMap<String, Handler>>,
    seen: Mutex<BTreeMap<String, Vec<Seen>>>,
    connections: AtomicUsize,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

/// An HTTP server (HTTP/1.1, and HTTP/2 with prior knowledge) on a free loopback port, in a thread of its own; stopped
/// on drop.
///
/// What it was not told it answers with 200 and a body that tells one answer from another: `GET /path #0`.
pub struct Origin {
    state: Arc<State>,
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Origin {
    /// # Panics
    /// Where no port can be had.
    pub fn start() -> Self {
        let state = Arc::new(State {
            handlers: Mutex::default(),
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for the origin");
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port for the origin");
        let address = socket.local_addr().expect("an address");
        socket.set_nonblocking(true).expect("a socket that does not block");
        runtime.spawn(accept(socket, Arc::clone(&state)));
        Self { state, address, runtime: Some(runtime) }
    }

    /// `http://127.0.0.1:port`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, every request for `path` (exactly, without the query) gets this answer.
    pub fn on(&self, path: &str, answer: Answer) {
        self.handle(path, move |_| answer.clone());
    }

    /// From now on, requests for `path` get what `handler` says; `*` is for all paths that have no handler of their own.
    pub fn handle(&self, path: &str, handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static) {
        lock(&self.state.handlers).insert(path.to_owned(), Arc::new(handler));
    }

    /// How many requests came for `path`.
    pub fn count(&self, path: &str) -> usize {
        lock(&self.state.seen).get(path).map_or(0, Vec::len)
    }

    /// How many requests came in all.
    pub fn total(&self) -> usize {
        lock(&self.state.seen).values().map(Vec::len).sum()
    }

    /// The requests for `path`, in the order in which they came.
    pub fn seen(&self, path: &str) -> Vec<Seen> {
        lock(&self.state.seen).get(path).cloned().unwrap_or_default()
    }

    /// Forgets what was counted.
    pub fn reset_counts(&self) {
        lock(&self.state.seen).clear();
        self.state.connections.store(0, Ordering::SeqCst);
        self.state.most_in_flight.store(self.in_flight(), Ordering::SeqCst);
    }

    /// How many connections were opened.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How many requests have come whose answer has no head yet.
    pub fn in_flight(&self) -> usize {
        self.state.in_flight.load(Ordering::SeqCst)
    }

    /// The largest value that [`in_flight`](Self::in_flight) has had.
    pub fn most_in_flight(&self) -> usize {
        self.state.most_in_flight.load(Ordering::SeqCst)
    }

    /// Waits until `count` requests for `path` have come; panics after 20 s.
    pub fn wait_for(&self, path: &str, count: usize) {
        super::wait_until(&format!("{count} requests for {path}"), Duration::from_secs(20), || {
            self.count(path) >= count
        });
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // A runtime must not be dropped within another, as in an async test.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(socket: std::net::TcpListener, state: Arc<State>) {
    let listener = TcpListener::from_std(socket).expect("a listener");
    while let Ok((stream, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::SeqCst);
        let _ = stream.set_nodelay(true);
        let last = LastWords::default();
        let socket = Socket { stream, last: Arc::clone(&last) };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| answer(request, Arc::clone(&state), Arc::clone(&last)));
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // An error is what the test asked for, or a client that left.
            let _ = server.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
    last: LastWords,
) -> Result<Response<UnsyncBoxBody<Bytes, Failure>>, Failure> {
    let now = state.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
    state.most_in_flight.fetch_max(now, Ordering::SeqCst);
    let _leaves = Leaves(&state.in_flight);
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path = head.uri.path().to_owned();
    let seen = {
        let mut all = lock(&state.seen);
        let earlier = all.entry(path.clone()).or_default();
        let seen = Seen { method: head.method, uri: head.uri, headers: head.headers, body, number: earlier.len() };
        earlier.push(seen.clone());
        seen
    };
    let handler = {
        let handlers = lock(&state.handlers);
        handlers.get(&path).or_else(|| handlers.get("*")).cloned()
    };
    let answer = match handler {
        Some(handler) => handler(&seen),
        None => Answer::ok(format!("{} {path} #{}", seen.method, seen.number)),
    };
    if let Some(gate) = &answer.gate {
        gate.passed().await;
    }
    tokio::time::sleep(answer.delay).await;
    match &answer.end {
        End::Reset => *lock(&last) = Some(Words::Reset),
        End::Raw(bytes) => *lock(&last) = Some(Words::Raw(bytes.clone())),
        _ => return Ok(respond(answer, seen.method == Method::HEAD, last)),
    }
    Err("no answer, as the test asked".into())
}

struct Leaves<'a>(&'a AtomicUsize);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn respond(answer: Answer, head_only: bool, last: LastWords) -> Response<UnsyncBoxBody<Bytes, Failure>> {
    let mut response = Response::new(());
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers.clone();
    for name in answer.trailers.iter().flat_map(HeaderMap::keys) {
        response.headers_mut().append("trailer", name.clone().into());
    }
    let bodiless = answer.status.is_informational() || [204, 304].contains(&answer.status.as_u16());
    let announced = matches!(answer.pieces, Pieces::Whole) && answer.trailers.is_none();
    if announced && !bodiless && !response.headers().contains_key("content-length") {
        response.headers_mut().insert("content-length", answer.body.len().into());
    }
    if bodiless || head_only {
        return response
            .map(|()| http_body_util::Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync());
    }
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(send(answer, sender, last));
    response.map(|()| Channel(receiver).boxed_unsync())
}

/// Sends the body, piece by piece; ends where the client has left.
async fn send(answer: Answer, to: mpsc::Sender<Result<Frame<Bytes>, Failure>>, last: LastWords) {
    let (limit, words) = match answer.end {
        End::CloseAfter(length) => (Some(length), None),
        End::ResetAfter(length) => (Some(length), Some(Words::Reset)),
        _ => (None, None),
    };
    let body = limit.map_or(answer.body.clone(), |limit| answer.body.slice(..limit.min(answer.body.len())));
    match answer.pieces {
        Pieces::Whole => {
            if !body.is_empty() && to.send(Ok(Frame::data(body))).await.is_err() {
                return;
            }
        }
        Pieces::Drip { size, pause } => {
            for start in (0..body.len()).step_by(size.max(1)) {
                tokio::time::sleep(pause).await;
                let piece = body.slice(start..body.len().min(start + size.max(1)));
                if to.send(Ok(Frame::data(piece))).await.is_err() {
                    return;
                }
            }
        }
        Pieces::Endless { pause } => loop {
            tokio::time::sleep(pause).await;
            if to.send(Ok(Frame::data(body.clone()))).await.is_err() {
                return;
            }
        },
    }
    if limit.is_some() {
        // What was sent leaves the process first.
        tokio::time::sleep(Duration::from_millis(50)).await;
        *lock(&last) = words;
        let _ = to.send(Err("cut here, as the test asked".into())).await;
    } else if let Some(trailers) = answer.trailers {
        let _ = to.send(Ok(Frame::trailers(trailers))).await;
    }
}

struct Channel(mpsc::Receiver<Result<Frame<Bytes>, Failure>>);

impl hyper::body::Body for Channel {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.0.poll_recv(cx)
    }
}
