//! The client that everything in this folder talks through.
//!
//! It puts one deadline around every call, refuses calls at once while the breaker is open, sends scripts by their
//! SHA-1 and again as text where the server does not know them, retries once where a moving slot refused a call, and
//! turns replies into [`Reply`] and failures into [`BackendError`].
//!
//! A call that may have been executed is never sent again: fred resends only what it could not write, and follows
//! `MOVED` and `ASK`, which say that nothing was done. So counters and leases go through here like reads.
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

use fred::{
    clients::Client as Fred,
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Value, config::Options},
};

use super::{
    breaker::{Breakers, PROBE_EVERY},
    error::{Fault, timed_out},
    keys::{Bucket, Keys},
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
    fred: FredClient,
    keys: Keys,
    breakers: Breakers,
    clock: ServerClock,
    timeout: Duration,
}

/// fred's own `Debug` shows its configuration, with the password.
struct FredClient(Fred);

impl std::fmt::Debug for FredClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.0.id()).finish()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // fred's own task holds the connection until it is told to go.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let fred = self.fred.0.clone();
            runtime.spawn(async move { fred.quit().await });
        }
    }
}

/// fred counts writes: one, and one more after each of two redirections.
const WRITES: u32 = 3;
const REDIRECTIONS: u32 = 2;

/// How much later than fred's timer ours goes off. fred's marks the command, so that it is not sent any more if it
/// still waits in a queue; ours holds whatever happens inside fred.
const BACKSTOP: Duration = Duration::from_millis(5);

/// How long to wait before a call is repeated that a moving slot has refused.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(10);

impl Client {
    pub(super) fn new(fred: Fred, keys: Keys, name: String, timeout: Duration) -> Self {
        let breakers = Breakers::new(&keys, name);
        Self(Arc::new(Shared { fred: FredClient(fred), keys, breakers, clock: ServerClock::new(), timeout }))
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

    /// The server's time; costs nothing.
    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Learns the server's time from the reply to a question that was asked at `asked`.
    pub(super) fn learn_time(&self, server: Timestamp, asked: Instant) {
        self.0.clock.learn(server, asked);
    }

    pub(super) fn breakers(&self) -> &Breakers {
        &self.0.breakers
    }

    pub(super) fn fred(&self) -> &Fred {
        &self.0.fred.0
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
        let deadline = Instant::now() + timeout;
        let call = |name, script| {
            let timeout = deadline.saturating_duration_since(Instant::now());
            let mut all = Vec::with_capacity(2 + keys.len() + args.len());
            all.push(Value::Bytes(script));
            all.push(Value::Integer(i64::try_from(keys.len()).unwrap_or(i64::MAX)));
            all.extend_from_slice(keys);
            all.extend_from_slice(args);
            self.call(bucket, name, all, timeout)
        };
        match call("EVALSHA", script.sha1()).await {
            // EVAL also loads it, on the very node that lacks it.
            Err(Fault::NoScript) => call("EVAL", script.text()).await,
            answer => answer,
        }
    }

    /// Sends one command. It is on its way when this was polled once.
    pub(super) async fn call(
        &self,
        bucket: Bucket,
        name: &'static str,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<Reply, Fault> {
        self.0.breakers.pass(bucket)?;
        let answer = self.send(bucket, name, args, timeout).await;
        match &answer {
            Err(Fault::Failed(error)) if error.is_outage() => {
                if self.0.breakers.failed(bucket, error) {
                    self.probe_until_closed(bucket);
                }
            }
            _ => self.0.breakers.answered(bucket),
        }
        answer
    }

    async fn send(
        &self,
        bucket: Bucket,
        name: &'static str,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<Reply, Fault> {
        let options = Options {
            max_attempts: Some(WRITES),
            max_redirections: Some(REDIRECTIONS),
            timeout: Some(timeout),
            // Fails at once without a connection, and does not send again what was in flight when one was lost.
            fail_fast: true,
            ..Options::default()
        };
        let hash = ClusterHash::Custom(self.0.keys.slot(bucket));
        let command = CustomCommand::new_static(name, hash, false);
        let client = self.fred().with_options(&options);
        match tokio::time::timeout(timeout + BACKSTOP, client.custom_raw(command, args)).await {
            Ok(Ok(frame)) => Reply::from_frame(frame),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(timed_out().into()),
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
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
                attempt(deadline.saturating_duration_since(Instant::now())).await
            }
            answer => answer,
        };
        answer.map_err(Fault::into_error)
    }

    /// Asks the node of the bucket once a second until it answers. Ends when the last handle is dropped.
    fn probe_until_closed(&self, bucket: Bucket) {
        let weak = self.downgrade();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(PROBE_EVERY).await;
                let Some(client) = Self::upgrade(&weak) else { return };
                let asked = Instant::now();
                match client.send(bucket, "TIME", Vec::new(), client.timeout()).await {
                    Err(Fault::Failed(error)) if error.is_outage() => {}
                    answer => {
                        if let Some(time) = answer.ok().and_then(server_time) {
                            client.learn_time(time, asked);
                        }
                        client.0.breakers.close(bucket);
                        return;
                    }
                }
            }
        });
    }

    /// Asks for the server's time and learns it.
    pub(super) async fn sync_time(&self, bucket: Bucket) -> Result<(), BackendError> {
        let asked = Instant::now();
        let reply = self.command(bucket, "TIME", Vec::new(), self.timeout()).await?;
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
