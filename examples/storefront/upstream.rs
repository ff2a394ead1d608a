//! A service on a port of its own, as the gateway sees it: a client, a count, and a switch that takes it down.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{StatusCode, Uri},
    response::Response,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::net::TcpListener;
use tower::Service;

/// A service that answers over HTTP.
#[derive(Clone)]
pub(crate) struct Upstream(Arc<Inner>);

struct Inner {
    name: &'static str,
    address: SocketAddr,
    client: Client<HttpConnector, Body>,
    requests: AtomicU64,
    is_down: AtomicBool,
    /// How often it was asked for what is watched.
    watched: Mutex<HashMap<String, u64>>,
}

impl Upstream {
    /// Starts the service on a free port.
    pub(crate) async fn start(name: &'static str, routes: Router) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let client = Client::builder(TokioExecutor::new()).build_http();
        let (requests, is_down, watched) = Default::default();
        Ok(Self(Arc::new(Inner { name, address, client, requests, is_down, watched })))
    }

    pub(crate) fn name(&self) -> &'static str {
        self.0.name
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// How often it was asked.
    pub(crate) fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn is_down(&self) -> bool {
        self.0.is_down.load(Ordering::Relaxed)
    }

    /// Takes it down, or up again; whether it is down now.
    pub(crate) fn toggle(&self) -> bool {
        !self.0.is_down.fetch_xor(true, Ordering::Relaxed)
    }

    /// Counts how often it is asked for a path from now on.
    pub(crate) fn watch(&self, path: &str) {
        lock(&self.0.watched).insert(path.to_owned(), 0);
    }

    /// How often it was; ends the counting.
    pub(crate) fn watched(&self, path: &str) -> u64 {
        lock(&self.0.watched).remove(path).unwrap_or(0)
    }
}

impl Service<Request> for Upstream {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let service = Arc::clone(&self.0);
        Box::pin(async move {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
            service.requests.fetch_add(1, Ordering::Relaxed);
            if let Some(count) = lock(&service.watched).get_mut(&path) {
                *count += 1;
            }
            let target = format!("http://{}{path}", service.address).parse::<Uri>();
            let (Ok(target), false) = (target, service.is_down.load(Ordering::Relaxed)) else {
                return Ok(refused(service.name));
            };
            *request.uri_mut() = target;
            // The service's own name, as the client writes it.
            request.headers_mut().remove("host");
            Ok(service
                .client
                .request(request)
                .await
                .map_or_else(|_| refused(service.name), |answer| answer.map(Body::new)))
        })
    }
}

fn refused(name: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{name} does not answer\n")));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
