//! An even rate.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Gives out moments that lie at least one interval apart. Time that nobody has used is not made up for.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// At least one a second.
    pub(super) fn per_second(most: u32) -> Self {
        Self { interval: Duration::from_secs(1) / most.max(1), next: Mutex::new(None) }
    }

    /// Waits for a moment of one's own. Dropped before, the moment is lost.
    pub(super) async fn turn(&self) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let at = next.map_or(now, |next| next.max(now));
            *next = Some(at + self.interval);
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn moments_lie_an_interval_apart_and_idle_time_makes_no_burst() {
        let pace = Pace::per_second(10);
        let start = Instant::now();
        for _ in 0..4 {
            pace.turn().await;
        }
        assert_eq!(start.elapsed().as_millis(), 300);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let start = Instant::now();
        futures_util::future::join_all((0..4).map(|_| pace.turn())).await;
        assert_eq!(start.elapsed().as_millis(), 300);
    }
}
