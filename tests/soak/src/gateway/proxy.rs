//! Sends a request on to the origin.

use std::{net::SocketAddr, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::broken::Broken;

const TIMEOUT: Duration = Duration::from_secs(4);

#[derive(Clone)]
pub(super) struct Proxy {
    origin: SocketAddr,
    client: Client<HttpConnector, Body>,
    broken: Broken,
}

impl Proxy {
    pub(super) fn new(origin: SocketAddr, broken: Broken) -> Self {
        Self { origin, client: Client::builder(TokioExecutor::new()).build_http(), broken }
    }
}

pub(super) async fn forward(State(proxy): State<Proxy>, mut request: Request) -> Response {
    match proxy.broken {
        Broken::Answers => return StatusCode::BAD_GATEWAY.into_response(),
        // Remembers every miss for good.
        Broken::Memory => drop(tokio::spawn(async {
            let kept = vec![1_u8; 64 * 1024];
            std::future::pending::<()>().await;
            drop(kept);
        })),
        Broken::Handler => panic!("on purpose"),
        _ => {}
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = Uri::try_from(format!("http://{}{path}", proxy.origin)) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    *request.uri_mut() = uri;
    request.headers_mut().remove(header::HOST);
    match tokio::time::timeout(TIMEOUT, proxy.client.request(request)).await {
        Ok(Ok(response)) => response.map(Body::new),
        Ok(Err(_)) => StatusCode::BAD_GATEWAY.into_response(),
        Err(_) => StatusCode::GATEWAY_TIMEOUT.into_response(),
    }
}
