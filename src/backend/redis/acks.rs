//! Waiting until replicas have what was written.
//!
//! WAIT holds up the connection on which it is asked, so it has one of its own, and there is one at a time for each
//! master: it is asked behind a write of its own, and so covers all that was written before that, on whatever
//! connection. Who comes while one is under way shares the next one.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fred::types::Value;

use super::{
    error::{Fault, timed_out},
    fleet::MakeNode,
    node::Node,
    reply::Reply,
    script::Script,
};
use crate::backend::{BackendError, ErrorKind};

pub(super) static MARK: Script = Script::new("mark", include_str!("lua/mark.lua"));

pub(super) struct Acks {
    make: MakeNode,
    wanted: u32,
    timeout: Duration,
    lines: Mutex<HashMap<(String, u16), Arc<Line>>>,
}

/// The connection to one master.
struct Line {
    node: Arc<Node>,
    /// How many rounds have begun.
    begun: AtomicU64,
    /// The last one, and how many replicas it found. Held while one is under way.
    last: tokio::sync::Mutex<(u64, Result<u64, BackendError>)>,
}

/// How much longer than WAIT itself its answer may take, and how long connecting may.
const SLACK: Duration = Duration::from_secs(1);
/// Lines to masters that were replaced are let go of when there are so many.
const MAX_LINES: usize = 256;

impl Acks {
    pub(super) fn new(make: MakeNode, wanted: u32, timeout: Duration) -> Self {
        Self { make, wanted, timeout, lines: Mutex::default() }
    }

    /// Waits until enough replicas of the master have what was written there before; `mark` is a key of a bucket there.
    pub(super) async fn confirm(&self, master: &Node, mark: Bytes) -> Result<(), BackendError> {
        let line = self.line(master);
        let here = line.covering(|| self.ask(&line.node, mark.clone())).await?;
        if here >= u64::from(self.wanted) {
            return Ok(());
        }
        let (wanted, timeout) = (self.wanted, self.timeout);
        let message = format!("only {here} of {wanted} replicas have acknowledged it within {timeout:?}");
        Err(BackendError::new(ErrorKind::Unreplicated, message))
    }

    async fn ask(&self, node: &Arc<Node>, mark: Bytes) -> Result<u64, BackendError> {
        match tokio::time::timeout(SLACK, node.connect()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Fault::from(error).into_error()),
            Err(_) => return Err(timed_out()),
        }
        let write = ("EVAL", vec![Value::Bytes(MARK.text()), 1.into(), mark.into()]);
        let millis = i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX).max(1);
        let wait = ("WAIT", vec![i64::from(self.wanted).into(), millis.into()]);
        // In one go: on another connection WAIT would ask for nothing, and say that everybody has it.
        let answer = node.send_both(write, wait, self.timeout + SLACK).await.map_err(Fault::into_error);
        let reply = answer.inspect_err(|error| {
            // WAIT ends by itself: over this connection nothing comes back.
            if error.kind() == ErrorKind::Timeout {
                node.reconnect();
            }
        })?;
        reply.as_u64().ok_or_else(|| Reply::unexpected("WAIT"))
    }

    fn line(&self, master: &Node) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (master.host().to_owned(), master.port());
        if lines.len() >= MAX_LINES && !lines.contains_key(&place) {
            lines.clear();
        }
        let line = lines.entry(place).or_insert_with(|| {
            let node = Node::new((self.make)(master.host(), master.port(), false), master.host(), master.port());
            Arc::new(Line { node, begun: AtomicU64::new(0), last: tokio::sync::Mutex::new((0, Ok(0))) })
        });
        Arc::clone(line)
    }
}

impl Line {
    /// What a round finds that has begun after this call.
    async fn covering<F: Future<Output = Result<u64, BackendError>>>(
        &self,
        round: impl FnOnce() -> F,
    ) -> Result<u64, BackendError> {
        let needed = self.begun.load(Ordering::SeqCst) + 1;
        let mut last = self.last.lock().await;
        if last.0 < needed {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let found = round().await;
            *last = (number, found);
        }
        last.1.clone()
    }
}

impl fmt::Debug for Acks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acks").field("wanted", &self.wanted).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_during_a_round_shares_the_next_one_and_never_takes_the_one_under_way() {
        use tokio::sync::Barrier;

        let fred = fred::clients::Client::default();
        let line =
            Line { node: Node::new(fred, "h", 1), begun: AtomicU64::new(0), last: tokio::sync::Mutex::new((0, Ok(0))) };
        let (line, gate, rounds) = (Arc::new(line), Arc::new(Barrier::new(2)), Arc::new(AtomicU64::new(0)));
        let call = || {
            let (line, gate, rounds) = (Arc::clone(&line), Arc::clone(&gate), Arc::clone(&rounds));
            tokio::spawn(async move {
                let round = || async move {
                    let number = rounds.fetch_add(1, Ordering::SeqCst) + 1;
                    gate.wait().await;
                    Ok(number)
                };
                line.covering(round).await.expect("it does not fail")
            })
        };
        let first = call();
        while rounds.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..10).map(|_| call()).collect();
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        gate.wait().await;
        assert_eq!(first.await.unwrap(), 1);
        gate.wait().await;
        for other in others {
            assert_eq!(other.await.unwrap(), 2);
        }
        assert_eq!(rounds.load(Ordering::SeqCst), 2);
    }
}
