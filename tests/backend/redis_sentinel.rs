//! A master with two replicas that three Sentinels watch: the conformance kit.

use std::{sync::OnceLock, time::Duration};

use tower_gatehouse::{
    Backend,
    backend::conformance::{Facts, Harness, Loss},
};

use crate::{
    redis::{delete, kinds, namespace, two_processes},
    support::RedisSentinel,
};

/// One set for all tests of this file; each has a namespace of its own.
fn sentinel() -> &'static RedisSentinel {
    static SENTINEL: OnceLock<RedisSentinel> = OnceLock::new();
    SENTINEL.get_or_init(RedisSentinel::start)
}

struct Sentinel {
    namespace: String,
    backend: Backend,
    peer: Backend,
}

impl Sentinel {
    async fn new() -> Self {
        let namespace = namespace();
        let (backend, peer) = two_processes(&sentinel().url(), &namespace).await;
        Self { namespace, backend, peer }
    }
}

impl Harness for Sentinel {
    fn backend(&self) -> Backend {
        self.backend.clone()
    }

    fn peer(&self) -> Backend {
        self.peer.clone()
    }

    async fn lose(&self, what: Loss) {
        // A busy machine may be taken for a dead master.
        delete(&sentinel().servers()[sentinel().master()], &self.namespace, kinds(what));
    }

    fn facts(&self) -> Facts {
        Facts::default().effort(Duration::from_secs(1))
    }
}

tower_gatehouse::conformance_tests!(Sentinel::new());
