//! The gateways as processes, and how they are asked.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::support::{Gateway, Origin, clock::Clock, gateway::PURGE_TOKEN};

pub(crate) const GATEWAYS: usize = 3;
/// Long enough that a busy machine is not taken for an outage.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(300);
/// Flags for rows in which Redis is not away: so that a busy machine is no outage.
pub(crate) const PATIENT: &[&str] = &["--redis-timeout", "5"];
/// Longer than anything that is frozen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the gateway example in front of the origin, with the flags that a row adds.
pub(crate) fn gateway(redis: &str, origin: &Origin, clock: Option<Clock>, flags: &[&str]) -> Gateway {
    let timeout = TIMEOUT.as_secs_f32().to_string();
    let origin = origin.url();
    let mut all = vec!["--redis", redis, "--upstream", &origin, "--redis-timeout", &timeout];
    all.extend(["--layers", "session,tags,swr,cache,coalesce", "--session-required", "/account"]);
    all.extend(["--session-key-env", "TEST_SESSION_KEY", "--purge-token-env", "TEST_PURGE_TOKEN"]);
    all.extend(flags);
    Gateway::start_by(clock, &all)
}

/// An answer with its whole content.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A way to the gateways.
#[derive(Debug)]
pub(crate) struct Ways {
    client: Client<HttpConnector, Full<Bytes>>,
    urls: Vec<String>,
    admin_urls: Vec<String>,
    /// Those that are known to be away: killed, frozen or ending. Nobody asks them, and what they still answer is no
    /// error.
    away: Vec<AtomicBool>,
}

impl Ways {
    pub(crate) fn to(gateways: &[Gateway]) -> Arc<Self> {
        Arc::new(Self {
            client: Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(5)).build_http(),
            urls: gateways.iter().map(Gateway::url).collect(),
            admin_urls: gateways.iter().map(Gateway::admin_url).collect(),
            away: gateways.iter().map(|_| AtomicBool::new(false)).collect(),
        })
    }

    pub(crate) fn is_away(&self, gateway: usize) -> bool {
        self.away[gateway].load(SeqCst)
    }

    pub(crate) fn set_away(&self, gateway: usize, away: bool) {
        self.away[gateway].store(away, SeqCst);
    }

    /// `None` where no whole answer came.
    pub(crate) async fn get(&self, gateway: usize, path: &str, token: Option<&str>) -> Option<Answer> {
        let request = Request::get(format!("{}{path}", self.urls[gateway])).header("host", "shop.test");
        let request = match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        self.ask(request.body(Full::default()).ok()?).await
    }

    pub(crate) async fn invalidate(&self, gateway: usize, tag: &str) -> Option<Answer> {
        let request = Request::post(format!("{}/invalidate", self.admin_urls[gateway]))
            .header("authorization", format!("Bearer {PURGE_TOKEN}"))
            .body(Full::from(format!(r#"{{"tags":["{tag}"]}}"#)));
        self.ask(request.ok()?).await
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Option<Answer> {
        let exchange = async {
            let (head, body) = self.client.request(request).await.ok()?.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            Some(Answer { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(PATIENCE, exchange).await.ok()?
    }
}
