//! Redis on one server: the conformance kit.

use std::{sync::OnceLock, time::Duration};

use tower_gatehouse::{
    Backend,
    backend::conformance::{Facts, Harness, Loss},
};

use crate::support::RedisServer;

/// One server for all tests of this file; each has a namespace of its own.
pub(crate) fn server() -> &'static RedisServer {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    SERVER.get_or_init(RedisServer::start)
}

/// A name that no other test uses.
pub(crate) fn namespace() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The kinds of keys that go with a loss; none: all.
pub(crate) fn kinds(loss: Loss) -> &'static [&'static str] {
    match loss {
        Loss::Clock => &["c"],
        Loss::KeyCells => &["p"],
        Loss::TagCells => &["t"],
        Loss::Entries => &["e"],
        Loss::Leases => &["l", "lr"],
        Loss::HandOvers => &["h", "hr"],
        _ => &[],
    }
}

/// Deletes the keys of these kinds (all if there are none) on one server, one by one, because in a Cluster they lie in
/// different slots.
pub(crate) fn delete(server: &RedisServer, namespace: &str, kinds: &[&str]) {
    let prefix = format!("{namespace}:{{");
    for key in server.command(&["KEYS", &format!("{prefix}*")]).array() {
        let key = key.bytes().expect("a key");
        let after = key.iter().position(|byte| *byte == b'}').expect("a hash tag") + 2;
        let kind = key[after..].split(|byte| *byte == b':').next().unwrap_or_default();
        if kinds.is_empty() || kinds.iter().any(|wanted| wanted.as_bytes() == kind) {
            server.command(&[b"DEL", key]);
        }
    }
}

/// The machine may be busy; the kit tests what happens, not how fast.
pub(crate) const PATIENT: Duration = Duration::from_secs(5);

/// Two backends with connections of their own, as two processes have.
pub(crate) async fn two_processes(url: &str, namespace: &str) -> (Backend, Backend) {
    let connect =
        || Backend::redis(url).namespace(namespace).operation_timeout(PATIENT).limit_timeout(PATIENT).connect();
    (connect().await.expect("a connection"), connect().await.expect("a connection"))
}

struct Redis {
    namespace: String,
    backend: Backend,
    peer: Backend,
}

impl Redis {
    async fn new() -> Self {
        let namespace = namespace();
        let (backend, peer) = two_processes(&server().url(), &namespace).await;
        Self { namespace, backend, peer }
    }
}

impl Harness for Redis {
    fn backend(&self) -> Backend {
        self.backend.clone()
    }

    fn peer(&self) -> Backend {
        self.peer.clone()
    }

    async fn lose(&self, what: Loss) {
        delete(server(), &self.namespace, kinds(what));
    }

    fn facts(&self) -> Facts {
        Facts::default().effort(Duration::from_secs(1))
    }
}

tower_gatehouse::conformance_tests!(Redis::new());
