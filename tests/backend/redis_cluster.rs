//! A Redis Cluster of three masters and three replicas: the conformance kit.

use std::{sync::OnceLock, time::Duration};

use tower_gatehouse::{
    Backend,
    backend::conformance::{Facts, Harness, Loss},
};

use crate::{
    redis::{delete, kinds, namespace, two_processes},
    support::RedisCluster,
};

/// One cluster for all tests of this file; each has a namespace of its own.
pub(crate) fn cluster() -> &'static RedisCluster {
    static CLUSTER: OnceLock<RedisCluster> = OnceLock::new();
    CLUSTER.get_or_init(RedisCluster::start)
}

struct Cluster {
    namespace: String,
    backend: Backend,
    peer: Backend,
}

impl Cluster {
    async fn new() -> Self {
        let namespace = namespace();
        let (backend, peer) = two_processes(&cluster().url(), &namespace).await;
        Self { namespace, backend, peer }
    }
}

impl Harness for Cluster {
    fn backend(&self) -> Backend {
        self.backend.clone()
    }

    fn peer(&self) -> Backend {
        self.peer.clone()
    }

    async fn lose(&self, what: Loss) {
        for master in &cluster().nodes()[..3] {
            delete(master, &self.namespace, kinds(what));
        }
    }

    fn facts(&self) -> Facts {
        Facts::default().effort(Duration::from_secs(1))
    }
}

tower_gatehouse::conformance_tests!(Cluster::new());
