//! Look-ups at replicas, with invalidations that wait for all of them: the conformance kit.
//!
//! What the option promises then is the whole promise, so invalidations are left to themselves. It does not promise that
//! a response that was just stored, or discarded, is seen at once: a replica may still have the one before. So after a
//! commit, a discard and a loss the harness waits until the replicas have it.

use std::{sync::OnceLock, time::Duration};

use tokio::{
    runtime::Runtime,
    sync::{Mutex, mpsc},
};
use tower_gatehouse::{
    Backend, Timestamp,
    backend::{
        BackendError, Commit, Committed, Discarded, Lease, Lookup, Mode, PrimaryKey, Scope, Ticket, Variant, VaryOf,
        conformance::{Facts, Harness, Loss},
    },
};

use crate::{
    redis::{PATIENT, delete, kinds, namespace},
    redis_replicas::{Replicated, fill, stored},
    support::{
        Reply,
        altered::{Alter, Altered},
        until,
    },
};

/// One set for all tests of this file; each has a namespace of its own.
fn set() -> &'static Replicated {
    static SET: OnceLock<Replicated> = OnceLock::new();
    SET.get_or_init(Replicated::start)
}

/// Until all replicas have what was written so far.
async fn in_step() {
    let wait = || {
        let mut connection = set().master.connect().expect("a connection");
        // WAIT is about what its own connection has written, and what came before.
        connection.call(&["SET", "in-step", "1"]).expect("an answer");
        connection.call(&["WAIT", "2", "0"]).expect("an answer")
    };
    let reached = tokio::task::spawn_blocking(wait).await.expect("no panic");
    assert_eq!(reached, Reply::Integer(2));
}

/// A commit or a discard returns when the replicas have it.
#[derive(Debug)]
struct InStep(Backend);

impl Alter for InStep {
    fn inner(&self) -> &Backend {
        &self.0
    }

    fn lookup_now(&self, key: &PrimaryKey, vary: &VaryOf<'_>, now: Timestamp) -> Option<Lookup> {
        self.0.lookup_now(key, vary, now)
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<Committed, BackendError> {
        let committed = self.0.commit(commit).await;
        in_step().await;
        committed
    }

    async fn discard(
        &self,
        key: &PrimaryKey,
        variant: Variant,
        ticket: Ticket,
        lease: Option<&Lease>,
    ) -> Result<Discarded, BackendError> {
        let discarded = self.0.discard(key, variant, ticket, lease).await;
        in_step().await;
        discarded
    }
}

struct FromReplicas {
    namespace: String,
    backend: Backend,
    peer: Backend,
}

impl FromReplicas {
    async fn connect() -> Self {
        let namespace = namespace();
        let connect = async || {
            let builder = Backend::redis(set().master.url()).namespace(&namespace).read_from_replicas();
            let builder = builder.wait_for_replicas(2, 3 * PATIENT).operation_timeout(PATIENT).limit_timeout(PATIENT);
            let backend = builder.connect().await.expect("a connection");
            // The first one makes the connection on which it waits, for which there is a second.
            let unused = [PrimaryKey::from_bytes([0xff; 16])];
            until("replicas are waited for", || async {
                backend.invalidate(Scope::Keys(&unused), Mode::Hard).await.is_ok()
            })
            .await;
            Backend::custom(Altered(InStep(backend)))
        };
        let (backend, peer) = tokio::join!(connect(), connect());
        // Replicas are asked once their master has confirmed twice, a second apart, that they are in step.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        Self { namespace, backend, peer }
    }

    /// Those that replicas are asked by already: several are made ahead, so that no test waits for its own.
    async fn new() -> Self {
        static READY: OnceLock<(Runtime, Mutex<mpsc::Receiver<FromReplicas>>)> = OnceLock::new();
        let (_, ready) = READY.get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let runtime = runtime.expect("a runtime");
            let (made, ready) = mpsc::channel(1);
            for _ in 0..AHEAD {
                let made = made.clone();
                runtime.spawn(async move { while made.send(Box::pin(Self::connect()).await).await.is_ok() {} });
            }
            (runtime, Mutex::new(ready))
        });
        ready.lock().await.recv().await.expect("one is made")
    }
}

const AHEAD: usize = 16;

impl Harness for FromReplicas {
    fn backend(&self) -> Backend {
        self.backend.clone()
    }

    fn peer(&self) -> Backend {
        self.peer.clone()
    }

    async fn lose(&self, what: Loss) {
        delete(&set().master, &self.namespace, kinds(what));
        in_step().await;
    }

    fn facts(&self) -> Facts {
        Facts::default().effort(Duration::from_secs(1))
    }
}

tower_gatehouse::conformance_tests!(FromReplicas::new());

/// So that the kit is about what it says: what it is given does ask replicas.
#[tokio::test(flavor = "multi_thread")]
async fn the_kit_is_answered_by_replicas() {
    let harness = FromReplicas::new().await;
    let mut monitors: Vec<_> = set().replicas.iter().map(|replica| (replica, replica.monitor())).collect();
    for backend in [harness.backend(), harness.peer()] {
        fill(&backend, 1).await.expect("a commit");
        let mut asked = 0;
        for _ in 0..300 {
            assert!(stored(&backend, 1).await);
            let reads = |line: &&String| line.contains("\"mget\"") || line.contains("\"MGET\"");
            for (replica, monitor) in &mut monitors {
                let lines = monitor.lines(replica);
                asked += lines.iter().filter(reads).filter(|line| line.contains(&harness.namespace)).count();
            }
            if asked > 20 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(asked > 20, "no replica is asked");
    }
}
