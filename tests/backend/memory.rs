//! The embedded backend.

use std::time::Duration;

use tower_gatehouse::{
    Backend, TestClock,
    backend::{
        MemoryBackend,
        conformance::{Facts, Harness, Loss},
    },
};

pub(crate) struct Memory {
    store: MemoryBackend,
    clock: TestClock,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let clock = TestClock::new();
        Self { store: MemoryBackend::builder().clock(&clock).build(), clock }
    }
}

impl Harness for Memory {
    fn backend(&self) -> Backend {
        self.store.clone().into()
    }

    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    async fn lose(&self, what: Loss) {
        self.store.lose(what);
    }

    fn facts(&self) -> Facts {
        Facts::default().too_large(3 << 20).effort(Duration::from_secs(1))
    }
}

tower_gatehouse::conformance_tests!(async { Memory::new() });
