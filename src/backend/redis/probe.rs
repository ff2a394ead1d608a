//! Looks after a server that has not answered.

use std::{
    mem,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use fred::interfaces::ClientLike as _;

use super::{error::Fault, node::Node};
use crate::{backend::ErrorKind, metrics};

/// How long after an answer that did not come it is asked again.
const EVERY: Duration = Duration::from_secs(1);

/// A connection over which nothing comes back for so long is given up: a server that has vanished without a word would
/// be missed until TCP notices, a quarter of an hour later. fred could watch for this itself, at the price of two timers
/// for every operation.
pub(super) fn patience(timeout: Duration) -> Duration {
    (timeout * 20).max(Duration::from_secs(5))
}

/// A task of which each server has one at most.
pub(super) struct Probe {
    node: Weak<Node>,
    /// As they were when it was asked last.
    recoveries: u32,
    has_ended: bool,
}

impl Probe {
    pub(super) fn of(node: &Arc<Node>) -> Self {
        Self { node: Arc::downgrade(node), recoveries: node.breaker().recoveries(), has_ended: false }
    }

    /// Asks again and again until an answer comes, then closes the breaker. Ends when the node is dropped, too.
    pub(super) async fn until_answered(mut self) {
        let mut silent_since = Instant::now();
        loop {
            tokio::time::sleep(EVERY).await;
            let Some(node) = self.node.upgrade() else { return };
            if node.breaker().rest() {
                self.has_ended = true;
                return;
            }
            match node.send("PING", Vec::new(), EVERY / 2).await {
                Err(Fault::Failed(error)) if error.is_outage() => {
                    // Calls may have been answered meanwhile. And without a connection one is being made already.
                    let seen = node.breaker().recoveries();
                    let has_answered = mem::replace(&mut self.recoveries, seen) != seen;
                    let is_silent = error.kind() == ErrorKind::Timeout && node.fred().is_connected();
                    if has_answered || !is_silent {
                        silent_since = Instant::now();
                    } else if silent_since.elapsed() >= patience(node.fred().perf_config().default_command_timeout) {
                        tracing::warn!(%node, "nothing comes back from Redis; the connection is made anew");
                        silent_since = Instant::now();
                        node.reconnect();
                    }
                }
                _ => {
                    self.has_ended = true;
                    if node.breaker().close() {
                        metrics::add(&metrics::BREAKER_OPEN, node.words(), -1.0);
                        tracing::info!(%node, "Redis answers again");
                    }
                    return;
                }
            }
        }
    }
}

/// With its runtime: the next call that fails begins anew.
impl Drop for Probe {
    fn drop(&mut self) {
        if !self.has_ended
            && let Some(node) = self.node.upgrade()
        {
            node.breaker().probe_ended();
        }
    }
}
