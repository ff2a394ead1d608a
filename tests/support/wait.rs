//! Waiting for something to become true, bounded in time.

use std::time::{Duration, Instant};

/// Looks every 10 ms whether `ready` holds; panics with `what` when it still does not after `limit`.
pub fn wait_until(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < limit, "{what}: not so after {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
