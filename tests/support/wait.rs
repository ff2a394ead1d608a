//! Waiting for something to become true, bounded in time.

use std::time::{Duration, Instant};

/// As [`wait_until`], and asks for it: at once, and again each time that an attempt has had its time.
pub fn wait_asking(what: &str, limit: Duration, attempt: Duration, ask: impl Fn(), ready: impl Fn() -> bool) {
    let mut asked: Option<Instant> = None;
    wait_until(what, limit, || {
        let is_ready = ready();
        if !is_ready && asked.is_none_or(|asked| asked.elapsed() > attempt) {
            ask();
            asked = Some(Instant::now());
        }
        is_ready
    });
}

/// Looks every 20 ms whether `ready` holds; panics with `what` when it still does not after a minute.
pub async fn until<F: Future<Output = bool>>(what: &str, ready: impl Fn() -> F) {
    const LIMIT: Duration = Duration::from_mins(1);
    let start = Instant::now();
    while !ready().await {
        assert!(start.elapsed() < LIMIT, "{what}: not so after {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Looks every 10 ms whether `ready` holds; panics with `what` when it still does not after `limit`.
pub fn wait_until(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < limit, "{what}: not so after {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
