//! How fast a queue in memory drains, and when it is worth coming back to it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Over how long the rate is taken at least.
const WINDOW: Duration = Duration::from_secs(1);
/// What is older says nothing about the rate any more.
const FORGOTTEN: Duration = Duration::from_secs(5);
/// The longest that a sender is told to stay away, in seconds.
const LONGEST_RETRY: u64 = 30;

/// The bytes that have left a queue.
#[derive(Debug, Default)]
pub(super) struct Outflow(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    bytes: u64,
    /// In bytes per second.
    rate: f64,
}

impl Outflow {
    /// So many bytes have left.
    pub(super) fn add(&self, bytes: usize) {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        window.roll();
        window.bytes += bytes as u64;
    }

    /// After how many seconds those who wait now are through; none if nobody waits. If nothing
    /// leaves at all, nobody knows: the fuller the queue, the longer.
    pub(super) fn retry_after(&self, bytes: usize, max: usize) -> Option<u64> {
        if bytes == 0 {
            return None;
        }
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        window.roll();
        let seconds = if window.rate > 0.0 {
            bytes as f64 / window.rate
        } else {
            LONGEST_RETRY as f64 * bytes as f64 / max.max(1) as f64
        };
        Some((seconds.ceil() as u64).clamp(1, LONGEST_RETRY))
    }
}

impl Window {
    fn roll(&mut self) {
        let now = Instant::now();
        let elapsed = now - *self.since.get_or_insert(now);
        if elapsed < WINDOW {
            return;
        }
        let latest = self.bytes as f64 / elapsed.as_secs_f64();
        let rate = if self.rate == 0.0 || elapsed >= FORGOTTEN {
            latest
        } else {
            (self.rate + latest) / 2.0
        };
        // Less than a byte per second is nothing.
        self.rate = if rate < 1.0 { 0.0 } else { rate };
        (self.since, self.bytes) = (Some(now), 0);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn senders_come_back_when_what_waits_has_drained() {
        let outflow = Outflow::default();
        assert_eq!(outflow.retry_after(0, 100), None);
        for _ in 0..10 {
            outflow.add(1000);
            advance(WINDOW).await;
        }
        assert_eq!(outflow.retry_after(500, 10_000), Some(1));
        assert_eq!(outflow.retry_after(4_500, 10_000), Some(5));
        assert_eq!(outflow.retry_after(1 << 20, 1 << 20), Some(30));
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_drains_a_full_queue_keeps_senders_away_for_long() {
        let outflow = Outflow::default();
        outflow.add(1000);
        advance(WINDOW).await;
        assert_eq!(outflow.retry_after(10_000, 10_000), Some(10));
        advance(FORGOTTEN * 2).await;
        assert_eq!(outflow.retry_after(10_000, 10_000), Some(30));
        assert_eq!(outflow.retry_after(2_000, 10_000), Some(6));
        assert_eq!(outflow.retry_after(1, 10_000), Some(1));
    }
}
