//! The client that everything in this folder talks through.
//!
//! It puts one deadline around every call, refuses calls at once while the breaker of a server is open, sends scripts by
//! their SHA-1 and again as text where the server does not know them, follows a slot of a Cluster that has moved, retries
//! once where one that is moving refused a call, and turns replies into [`Reply`] and failures into [`BackendError`].
//!
//! A call that may have been executed is never sent again; `NOSCRIPT`, `MOVED`, `ASK` and `TRYAGAIN` say that nothing was
//! done. So counters and leases go through here like reads.
//!
//! ```text
//! static TAKE: Script = Script::new("take", include_str!("lua/take.lua"));
//!
//! let bucket = client.keys().bucket(hash);                    // the first 8 bytes of an evenly spread hash
//! let key = client.keys().key(bucket, "n", &[name]);          // <namespace>:{<hash tag>}:n:<name>
//! let reply = client.eval(&TAKE, bucket, vec![key.into()], vec![1.into()], client.timeout()).await?;
//! let left = reply.as_int().ok_or_else(|| Reply::unexpected("take"))?;
//! ```

use std::{
    future::Future,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use fred::{interfaces::ClientLike as _, types::Value};

use super::{
    acks::Acks,
    error::Fault,
    fleet::{Fleet, Unreached},
    gate::Gate,
    keys::{Bucket, Keys},
    node::Node,
    replicas::Replicas,
    reply::Reply,
    script::Script,
    server_clock::ServerClock,
};
use crate::{Timestamp, backend::BackendError};

/// One multiplexed connection to each server, shared by all who clone this.
#[derive(Clone, Debug)]
pub(super) struct Client(Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    servers: Servers,
    keys: Keys,
    clock: ServerClock,
    timeout: Duration,
    limit_timeout: Duration,
    acks: Option<Acks>,
    replicas: Option<Replicas>,
    gate: Gate,
}

/// Whom to ask.
#[derive(Debug)]
pub(super) enum Servers {
    One(Arc<Node>),
    Fleet(Arc<Fleet>),
}

/// How long to wait before a call is repeated that a moving slot has refused.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(10);

impl Client {
    pub(super) fn new(
        servers: Servers,
        keys: Keys,
        timeout: Duration,
        limit_timeout: Duration,
        acks: Option<Acks>,
        replicas: Option<Replicas>,
    ) -> Self {
        let (clock, gate) = (ServerClock::new(), Gate::default());
        Self(Arc::new(Shared { servers, keys, clock, timeout, limit_timeout, acks, replicas, gate }))
    }

    pub(super) fn gate(&self) -> &Gate {
        &self.0.gate
    }

    /// For tasks that must not keep the connection alive.
    pub(super) fn downgrade(&self) -> Weak<Shared> {
        Arc::downgrade(&self.0)
    }

    pub(super) fn upgrade(weak: &Weak<Shared>) -> Option<Self> {
        weak.upgrade().map(Self)
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// The time that an operation takes at most, unless it says otherwise.
    pub(super) fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// The time that a limit is waited for at most.
    pub(super) fn limit_timeout(&self) -> Duration {
        self.0.limit_timeout
    }

    /// The server's time; costs nothing.
    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Learns the server's time from the reply to a question that was asked at `asked`.
    pub(super) fn learn_time(&self, server: Timestamp, asked: Instant) {
        self.0.clock.learn(server, asked);
    }

    /// Connects to all servers, or says why that did not work.
    pub(super) async fn connect(&self) -> Result<(), Unreached> {
        match &self.0.servers {
            Servers::One(node) => node.connect().await.map_err(|error| Unreached::node(node, error)),
            Servers::Fleet(fleet) => fleet.connect().await,
        }
    }

    /// Connects in the background.
    pub(super) fn start(&self) {
        match &self.0.servers {
            Servers::One(node) => node.start(),
            Servers::Fleet(fleet) => fleet.start(),
        }
    }

    /// Whether the server that has the bucket is known and connected.
    pub(super) fn is_connected(&self, bucket: Bucket) -> bool {
        self.node(bucket).is_some_and(|node| node.fred().is_connected())
    }

    /// The server that has the bucket, as far as is known.
    pub(super) fn node(&self, bucket: Bucket) -> Option<Arc<Node>> {
        match &self.0.servers {
            Servers::One(node) => Some(Arc::clone(node)),
            Servers::Fleet(fleet) => fleet.node(bucket).ok(),
        }
    }

    /// All masters that are known.
    pub(super) fn masters(&self) -> Vec<Arc<Node>> {
        match &self.0.servers {
            Servers::One(node) => vec![Arc::clone(node)],
            Servers::Fleet(fleet) => fleet.masters(),
        }
    }

    pub(super) fn replicas(&self) -> Option<&Replicas> {
        self.0.replicas.as_ref()
    }

    /// The replica that look-ups in the bucket may ask.
    pub(super) fn nearest_replica(&self, bucket: Bucket) -> Option<Arc<Node>> {
        let replicas = self.0.replicas.as_ref().filter(|_| self.0.gate.is_open())?;
        replicas.nearest(&*self.node(bucket)?)
    }

    /// Whether invalidations wait for replicas.
    pub(super) fn waits(&self) -> bool {
        self.0.acks.is_some()
    }

    /// Waits until as many replicas as is wanted have what was written to the bucket's server before.
    pub(super) async fn confirm(&self, bucket: Bucket) -> Result<(), BackendError> {
        match (&self.0.acks, self.node(bucket)) {
            (Some(acks), Some(node)) => Box::pin(acks.confirm(&node, self.0.keys.key(bucket, "a", &[]))).await,
            _ => Ok(()),
        }
    }

    /// See [`Fleet::place`].
    pub(super) fn place(&self) -> Option<(String, u16)> {
        match &self.0.servers {
            Servers::One(_) => None,
            Servers::Fleet(fleet) => fleet.place(),
        }
    }

    /// Runs a script. All `keys` are keys of `bucket`.
    ///
    /// # Errors
    /// `ErrorKind::Timeout` if it took longer than `timeout` (it may have been run), `ErrorKind::Full`,
    /// `ErrorKind::ReadOnly` and the rest as the server says.
    pub(super) async fn eval(
        &self,
        script: &Script,
        bucket: Bucket,
        keys: Vec<Value>,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<Reply, BackendError> {
        self.retrying(timeout, |timeout| self.eval_once(script, bucket, &keys, &args, timeout)).await
    }

    /// Runs a command on the node of the bucket; repeated once if the slot is being moved.
    pub(super) async fn command(
        &self,
        bucket: Bucket,
        name: &'static str,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<Reply, BackendError> {
        self.retrying(timeout, |timeout| self.call(bucket, name, args.clone(), timeout)).await
    }

    /// Runs a script without the retry for moving slots. The command is on its way when this was polled once, so that
    /// calls that are polled one after the other arrive in this order.
    pub(super) async fn eval_once(
        &self,
        script: &Script,
        bucket: Bucket,
        keys: &[Value],
        args: &[Value],
        timeout: Duration,
    ) -> Result<Reply, Fault> {
        script.run(keys, args, timeout, |name, args, timeout| self.call(bucket, name, args, timeout)).await
    }

    /// Sends one command. It is on its way when this was polled once.
    pub(super) async fn call(
        &self,
        bucket: Bucket,
        name: &'static str,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<Reply, Fault> {
        self.0.gate.pass(|| self.is_connected(bucket))?;
        self.ask(bucket, name, args, timeout).await
    }

    /// The same whether the servers have been checked or not.
    pub(super) async fn ask(
        &self,
        bucket: Bucket,
        name: &'static str,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<Reply, Fault> {
        match &self.0.servers {
            Servers::One(node) => node.call(name, args, timeout).await,
            // Boxed: with what it does when a slot has moved it is several times as large.
            Servers::Fleet(fleet) => Box::pin(fleet.call(bucket, name, args, timeout)).await,
        }
    }

    /// Tries a second time what a moving slot has refused, in what is left of the time.
    pub(super) async fn retrying<T, F>(
        &self,
        timeout: Duration,
        attempt: impl Fn(Duration) -> F,
    ) -> Result<T, BackendError>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let deadline = Instant::now() + timeout;
        let answer = match attempt(timeout).await {
            Err(Fault::TryAgain) => {
                tokio::time::sleep(TRY_AGAIN_AFTER.min(timeout)).await;
                // Boxed, as all that is rare: it would be a part of every call's future.
                Box::pin(attempt(deadline.saturating_duration_since(Instant::now()))).await
            }
            answer => answer,
        };
        answer.map_err(Fault::into_error)
    }

    /// Tells the breaker that a call which `n` callers had in common has failed: each of them counts, as if it had gone by
    /// itself. What each of them is told.
    pub(super) fn failed_for(&self, bucket: Bucket, fault: Fault, n: usize) -> BackendError {
        let error = fault.clone().into_error();
        if !self.0.gate.is_open() {
            return error;
        }
        if let Some(node) = self.node(bucket) {
            let failed = Err(fault);
            // It was counted once already.
            (1..n).for_each(|_| node.observe(&failed));
        }
        error
    }

    /// Asks for the server's time and learns it.
    pub(super) async fn sync_time(&self, bucket: Bucket) -> Result<(), BackendError> {
        let asked = Instant::now();
        let ask = |timeout| self.ask(bucket, "TIME", Vec::new(), timeout);
        let reply = self.retrying(self.timeout(), ask).await?;
        let time = server_time(reply).ok_or_else(|| Reply::unexpected("TIME"))?;
        self.learn_time(time, asked);
        Ok(())
    }
}

/// The reply to TIME: seconds and microseconds.
fn server_time(reply: Reply) -> Option<Timestamp> {
    let parts = reply.into_array()?;
    let [seconds, micros] = parts.as_slice() else { return None };
    Some(Timestamp::from_micros(seconds.as_u64()?.checked_mul(1_000_000)?.checked_add(micros.as_u64()?)?))
}
