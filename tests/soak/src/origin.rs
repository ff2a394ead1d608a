//! The one origin: pages that have a version, in this process, so that the run knows what is true.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

pub(crate) const PAGES: usize = 12;

/// The versions, and how often somebody asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    versions: [AtomicU64; PAGES],
    asked: AtomicU64,
}

impl Origin {
    /// Serves it on a free port.
    pub(crate) async fn start(&self) -> std::io::Result<SocketAddr> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let app = Router::new().route("/pages/{page}", get(show).put(change)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(address)
    }

    /// A page has changed: its new version.
    pub(crate) fn change(&self, page: usize) -> u64 {
        self.0.versions[page % PAGES].fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn asked(&self) -> u64 {
        self.0.asked.load(Ordering::Relaxed)
    }
}

async fn show(State(origin): State<Origin>, Path(page): Path<usize>, headers: HeaderMap) -> Response {
    let asked = origin.0.asked.fetch_add(1, Ordering::Relaxed);
    let Some(version) = origin.0.versions.get(page) else { return StatusCode::NOT_FOUND.into_response() };
    let version = version.load(Ordering::SeqCst);
    // What is sent is old by then, now and then.
    tokio::time::sleep(Duration::from_millis(asked * 7 % 40)).await;
    let etag = format!("\"{page}-{version}\"");
    // Every other page is stale after a second, and may be served while it is validated.
    let lifetime = if page % 2 == 0 {
        "public, max-age=60"
    } else {
        "public, max-age=1, stale-while-revalidate=30, stale-if-error=60"
    };
    let fields = [
        (header::CACHE_CONTROL, lifetime.to_owned()),
        (header::ETAG, etag.clone()),
        (header::HeaderName::from_static("surrogate-key"), format!("page:{page}")),
    ];
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes() == etag.as_bytes());
    if known {
        return (StatusCode::NOT_MODIFIED, fields).into_response();
    }
    (fields, format!("{page} {version} {}", "x".repeat(200 + 500 * page))).into_response()
}

async fn change(State(origin): State<Origin>, Path(page): Path<usize>) -> StatusCode {
    if page < PAGES {
        origin.change(page);
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_FOUND
    }
}
