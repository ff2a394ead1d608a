//! Those who ask: each is a task that follows its own part of the seed, and writes down what it sees.

mod buyers;
mod limited;
mod readers;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{task::JoinSet, time::Instant};

use crate::{history::Recorder, origin::Origin, random::Random};

/// Longer than a gateway is frozen.
const PATIENCE: Duration = Duration::from_secs(8);

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A way to all gateways.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    addresses: Arc<[SocketAddr]>,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Fleet {
    pub(crate) fn new(addresses: &[SocketAddr]) -> Self {
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(5)).build_http();
        Self { addresses: addresses.into(), client }
    }

    pub(crate) fn any(&self, random: &mut Random) -> usize {
        usize::try_from(random.below(self.addresses.len() as u64)).unwrap_or(0)
    }

    /// `None` if no whole answer came in time.
    pub(crate) async fn ask(
        &self,
        gateway: usize,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Option<Answer> {
        let uri = format!("http://{}{path}", self.addresses[gateway]);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        let exchange = async {
            let (head, body) = self.client.request(request).await.ok()?.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            Some(Answer { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(PATIENCE, exchange).await.ok().flatten()
    }
}

/// What all clients share.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) origin: Origin,
    pub(crate) recorder: Recorder,
    pub(crate) until: Instant,
}

impl World {
    fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }
}

/// A short while, so that the machine is busy and not drowned.
async fn pause(random: &mut Random, below_ms: u64) {
    tokio::time::sleep(Duration::from_millis(random.below(below_ms))).await;
}

/// Runs all clients until the time is over; then everybody looks into the own cart once more.
pub(crate) async fn run(world: &World, seed: u64) {
    let mut tasks = JoinSet::new();
    let random = |n: u64| Random::new(seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    for n in 0..8 {
        tasks.spawn(readers::read(world.clone(), random(n)));
    }
    for n in 0..2 {
        tasks.spawn(readers::invalidate(world.clone(), random(100 + n)));
    }
    for n in 0..8 {
        tasks.spawn(buyers::Buyer::new(world.clone(), n, random(200 + n as u64)).work());
    }
    for n in 0..4 {
        tasks.spawn(limited::ask(world.clone(), n, random(300 + n as u64)));
    }
    // A client that panics has found a fault of this program.
    tasks.join_all().await;
}
