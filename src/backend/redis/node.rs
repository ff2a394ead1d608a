//! One server: its connection, its breaker.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use fred::{
    clients::Client as Fred,
    interfaces::{ClientLike, HashesInterface, KeysInterface},
    types::{ClusterHash, CustomCommand, Key, Value, config::Options},
};

use super::{
    breaker::Breaker,
    error::{Fault, timed_out},
    fullness::Fullness,
    probe::Probe,
    reply::Reply,
};
use crate::{
    backend::{BackendError, ErrorKind},
    metrics,
};

/// A server with one multiplexed connection, which is made again when it is lost.
///
/// In a Cluster there is one for each master, and none of fred's own Cluster client: that one stops talking to all
/// nodes while it tries to reach one that is dead.
pub(super) struct Node {
    fred: Fred,
    host: String,
    port: u16,
    /// For metrics.
    name: Arc<str>,
    breaker: Breaker,
    fullness: Fullness,
    read_only: Mutex<Option<ReadOnly>>,
    connecting: AtomicBool,
    reconnecting: AtomicBool,
    /// How many are under way.
    reads: AtomicUsize,
}

/// A read that is under way.
struct Read<'a> {
    reads: &'a AtomicUsize,
    is_alone: bool,
}

impl<'a> Read<'a> {
    fn begin(reads: &'a AtomicUsize) -> Self {
        Self { reads, is_alone: reads.fetch_add(1, Ordering::Relaxed) == 0 }
    }
}

impl Drop for Read<'_> {
    fn drop(&mut self) {
        self.reads.fetch_sub(1, Ordering::Relaxed);
    }
}

/// While the connection is made anew.
struct Reconnecting(Weak<Node>);

impl Drop for Reconnecting {
    fn drop(&mut self) {
        if let Some(node) = self.0.upgrade() {
            node.reconnecting.store(false, Ordering::SeqCst);
        }
    }
}

#[derive(Clone, Copy)]
struct ReadOnly {
    since: Instant,
    reconnected: Option<Instant>,
}

/// How much later than fred's timer ours goes off. fred's marks the command, so that it is not sent any more if it
/// still waits in a queue; ours holds whatever happens inside fred.
const BACKSTOP: Duration = Duration::from_millis(5);
/// So many keys are worth a packet of their own.
const WORTH_A_PACKET: usize = 16;
/// A server that refuses writes for this long may not be the one any more that its name stands for.
const READ_ONLY_PATIENCE: Duration = Duration::from_secs(1);
/// How often the connection is made anew while writes are refused.
const READ_ONLY_RECONNECT: Duration = Duration::from_secs(5);

impl Node {
    pub(super) fn new(fred: Fred, host: &str, port: u16) -> Arc<Self> {
        let name: Arc<str> = format!("{host}:{port}").into();
        // Known before anything fails.
        metrics::add(&metrics::BREAKER_OPEN, ["redis".into(), (&name).into()], 0.0);
        Arc::new(Self {
            fred,
            host: host.to_owned(),
            port,
            name,
            breaker: Breaker::default(),
            fullness: Fullness::default(),
            read_only: Mutex::default(),
            connecting: AtomicBool::new(false),
            reconnecting: AtomicBool::new(false),
            reads: AtomicUsize::new(0),
        })
    }

    pub(super) fn words(&self) -> [metrics::Word<'_>; 2] {
        ["redis".into(), (&self.name).into()]
    }

    pub(super) fn fred(&self) -> &Fred {
        &self.fred
    }

    pub(super) fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn is_at(&self, host: &str, port: u16) -> bool {
        self.host == host && self.port == port
    }

    /// Connects in the background, and for ever, if nobody has begun to.
    pub(super) fn start(&self) {
        if !self.connecting.swap(true, Ordering::Relaxed) {
            // The task ends when the client is told to quit.
            drop(self.fred.connect());
        }
    }

    /// Connects now; the connection is made again whenever it is lost.
    pub(super) async fn connect(&self) -> Result<(), fred::error::Error> {
        if self.connecting.swap(true, Ordering::Relaxed) {
            return self.fred.wait_for_connect().await;
        }
        self.fred.init().await.map(drop)
    }

    /// Sends one command. It is on its way when this was polled once.
    pub(super) async fn call(
        self: &Arc<Self>,
        name: &'static str,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<Reply, Fault> {
        self.pass()?;
        self.ask(name, args, timeout).await
    }

    /// The same whether the breaker is open or not.
    pub(super) async fn ask(
        self: &Arc<Self>,
        name: &'static str,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<Reply, Fault> {
        let answer = self.send(name, args, timeout).await;
        self.observe(&answer);
        self.fullness.observe(self, name, &answer);
        answer
    }

    /// Sends one command for a slot that this node is about to take over.
    pub(super) async fn call_asking(
        self: &Arc<Self>,
        name: &'static str,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<Reply, Fault> {
        self.pass()?;
        let answer = self.send_asking(name, args, timeout).await;
        self.observe(&answer);
        answer
    }

    /// Fails at once while the breaker is open.
    fn pass(self: &Arc<Self>) -> Result<(), BackendError> {
        // Whoever probed may have ended with its runtime.
        self.breaker.pass().inspect_err(|_| self.probe())
    }

    fn probe(self: &Arc<Self>) {
        if self.breaker.begin_to_probe() {
            tokio::spawn(Probe::of(self).until_answered());
        }
    }

    /// Tells the breaker what became of a call.
    pub(super) fn observe(self: &Arc<Self>, answer: &Result<Reply, Fault>) {
        match answer {
            Err(Fault::Failed(error)) if error.is_outage() => {
                if self.breaker.failed() {
                    metrics::count(&metrics::BREAKER_OPENED, self.words());
                    metrics::add(&metrics::BREAKER_OPEN, self.words(), 1.0);
                    tracing::warn!(
                        node = %self,
                        error = %error,
                        "Redis is out of reach; operations fail at once until it answers again"
                    );
                }
                self.probe();
            }
            Err(Fault::Failed(error)) if error.kind() == ErrorKind::ReadOnly => {
                self.breaker.answered();
                self.reconnect_if_read_only_for_long();
            }
            _ => self.breaker.answered(),
        }
    }

    /// After a failover the name of a server may stand for another one, while the old connection still stands.
    fn reconnect_if_read_only_for_long(self: &Arc<Self>) {
        let now = Instant::now();
        let mut read_only = self.read_only.lock().unwrap_or_else(PoisonError::into_inner);
        let known = read_only.filter(|known| now.duration_since(known.since) < 6 * READ_ONLY_RECONNECT);
        let mut state = known.unwrap_or(ReadOnly { since: now, reconnected: None });
        let due = now.duration_since(state.since) >= READ_ONLY_PATIENCE
            && state.reconnected.is_none_or(|last| now.duration_since(last) >= READ_ONLY_RECONNECT);
        if due {
            state.reconnected = Some(now);
            self.reconnect();
        }
        *read_only = Some(state);
    }

    /// Makes the connection anew, in the background; once, however often that is called meanwhile: fred takes it up only
    /// when it is done with what it is writing.
    pub(super) fn reconnect(self: &Arc<Self>) {
        if !self.reconnecting.swap(true, Ordering::SeqCst) {
            let (fred, reconnecting) = (self.fred.clone(), Reconnecting(Arc::downgrade(self)));
            tokio::spawn(async move {
                let _ = fred.force_reconnection().await;
                drop(reconnecting);
            });
        }
    }

    pub(super) async fn send(&self, name: &'static str, args: Vec<Value>, timeout: Duration) -> Result<Reply, Fault> {
        match name {
            "MGET" | "HGETALL" | "GET" => self.read(name, args, timeout).await,
            "EVALSHA_RO" | "EVAL_RO" => {
                let _read = Read::begin(&self.reads);
                self.raw(name, args, options(Duration::ZERO), timeout).await
            }
            _ => self.raw(name, args, options(timeout), timeout + BACKSTOP).await,
        }
    }

    /// Sends a command that fred need not know, and has its reply as it is: fred would look at every byte of what it
    /// knows, whether it is text. It is written to the socket by itself, however many wait.
    async fn raw(
        &self,
        name: &'static str,
        args: Vec<Value>,
        options: Options,
        timeout: Duration,
    ) -> Result<Reply, Fault> {
        let command = CustomCommand::new_static(name, ClusterHash::FirstKey, false);
        let client = self.fred.with_options(&options);
        // Boxed: a future of fred has several kilobytes, which every future around it would move along.
        match tokio::time::timeout(timeout, Box::pin(client.custom_raw(command, args))).await {
            Ok(Ok(frame)) => Reply::from_frame(frame),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(timed_out().into()),
        }
    }

    /// Reads. What is alone, or is worth a packet of its own, goes by itself; the others as commands that fred knows,
    /// which go out together. fred's timer is not needed: a read that is sent too late does no harm.
    async fn read(&self, name: &'static str, keys: Vec<Value>, timeout: Duration) -> Result<Reply, Fault> {
        let options = options(Duration::ZERO);
        let read = Read::begin(&self.reads);
        if read.is_alone || keys.len() >= WORTH_A_PACKET {
            return self.raw(name, keys, options, timeout).await;
        }
        let client = self.fred.with_options(&options);
        let mut keys = keys.into_iter().filter_map(|key| key.into_bytes().map(Key::from));
        // Boxed, as above.
        let answer = Box::pin(async {
            match (name, keys.next()) {
                ("HGETALL", Some(key)) => client.hgetall::<Value, _>(key).await,
                ("GET", Some(key)) => client.get(key).await,
                (_, first) => client.mget(first.into_iter().chain(keys).collect::<Vec<_>>()).await,
            }
        });
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(value)) => Ok(Reply::from_value(value)),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(timed_out().into()),
        }
    }

    /// Sends two commands, so that no other comes in between and no other connection: the answer to the second, unless
    /// the first has failed.
    pub(super) async fn send_both(
        &self,
        first: (&'static str, Vec<Value>),
        second: (&'static str, Vec<Value>),
        timeout: Duration,
    ) -> Result<Reply, Fault> {
        let command = |name| CustomCommand::new_static(name, ClusterHash::FirstKey, false);
        let pipeline = self.fred.pipeline().with_options(&options(timeout));
        let both = async {
            pipeline.custom::<(), Value>(command(first.0), first.1).await?;
            pipeline.custom::<(), Value>(command(second.0), second.1).await?;
            pipeline.all::<Vec<Value>>().await
        };
        match tokio::time::timeout(timeout + BACKSTOP, Box::pin(both)).await {
            Ok(Ok(mut values)) => Ok(values.pop().map_or(Reply::Nil, Reply::from_value)),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(timed_out().into()),
        }
    }

    async fn send_asking(&self, name: &'static str, args: Vec<Value>, timeout: Duration) -> Result<Reply, Fault> {
        let command = |name| CustomCommand::new_static(name, ClusterHash::FirstKey, false);
        // A pipeline, so that no other command comes in between.
        let pipeline = self.fred.pipeline().with_options(&options(timeout));
        let both = async {
            pipeline.custom::<(), Value>(command("ASKING"), Vec::new()).await?;
            pipeline.custom::<(), Value>(command(name), args).await?;
            pipeline.last::<Value>().await
        };
        match tokio::time::timeout(timeout + BACKSTOP, Box::pin(both)).await {
            Ok(Ok(value)) => Ok(Reply::from_value(value)),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(timed_out().into()),
        }
    }
}

fn options(timeout: Duration) -> Options {
    Options {
        // One write: what may have been executed is not sent again.
        max_attempts: Some(1),
        timeout: Some(timeout),
        // Fails at once without a connection, and when one is lost.
        fail_fast: true,
        ..Options::default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.breaker.is_open() {
            metrics::add(&metrics::BREAKER_OPEN, self.words(), -1.0);
        }
        // fred's own task holds the connection until it is told to go.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let fred = self.fred.clone();
            runtime.spawn(async move { fred.quit().await });
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Without fred's client: its own `Debug` shows the password.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({self}, {})", if self.breaker.is_open() { "out of reach" } else { "in reach" })
    }
}
