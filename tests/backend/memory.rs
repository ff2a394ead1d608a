//! The embedded backend.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tower_gatehouse::{
    Backend, TestClock,
    backend::{
        Acquire, Acquired, LeaseKey, LeaseKind, MemoryBackend, PrimaryKey, Variant,
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

fn acquire(n: u64) -> Acquire<'static> {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    let key = LeaseKey { key: PrimaryKey::from_bytes(bytes), variant: Variant(None), kind: LeaseKind::Fill };
    Acquire { key, ttl: Duration::from_mins(1), since: 0, tags: &[] }
}

/// A thread used to read the clock, be overtaken by the one that took the lease, and take it too, because by its own
/// time that lease had not begun.
#[test]
fn a_thread_that_is_overtaken_after_it_has_read_the_clock_takes_no_second_lease() {
    const THREADS: usize = 4;
    let backend: Backend = MemoryBackend::new().into();
    let (barrier, granted) = (Barrier::new(THREADS), AtomicUsize::new(0));
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for round in 0..500 {
            barrier.wait();
            for n in 0..100 {
                let answer = runtime.block_on(backend.acquire(acquire(round * 100 + n))).unwrap();
                granted.fetch_add(matches!(answer, Acquired::Granted(_)).into(), Ordering::SeqCst);
            }
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(run))));
    assert_eq!(granted.into_inner(), 50_000);
}

#[tokio::test]
async fn a_clock_that_is_set_back_a_little_frees_no_lease() {
    let Memory { store, clock } = Memory::new();
    let backend: Backend = store.into();
    clock.advance(Duration::from_secs(1));
    assert!(matches!(backend.acquire(acquire(1)).await.unwrap(), Acquired::Granted(_)));
    clock.set(clock.now().minus(Duration::from_millis(1)));
    let answer = backend.acquire(acquire(1)).await.unwrap();
    assert!(matches!(answer, Acquired::Held { left, .. } if left <= Duration::from_mins(1)), "{answer:?}");
}
