//! Rates per second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Shortest time over which a rate is measured.
const WINDOW: Duration = Duration::from_secs(1);
/// Length of a window that replaces the earlier rate entirely; a shorter one is averaged with it.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// Measures a rate per second as the mean of the last window and of the rate before it. Adding
/// costs an atomic operation, and a lock once per window.
#[derive(Debug)]
pub struct RateMeter {
    created: Instant,
    /// Sum of the current window.
    added: AtomicU64,
    /// Earliest end of the current window, in milliseconds since the meter was created.
    ends: AtomicU64,
    measured: Mutex<Measured>,
}

#[derive(Debug)]
struct Measured {
    since: Instant,
    per_second: f64,
}

impl Default for RateMeter {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            created: now,
            added: AtomicU64::new(0),
            ends: AtomicU64::new(WINDOW.as_millis() as u64),
            measured: Mutex::new(Measured {
                since: now,
                per_second: 0.0,
            }),
        }
    }
}

impl RateMeter {
    /// Adds `count` events.
    pub fn add(&self, count: u64) {
        let elapsed = self.created.elapsed().as_millis() as u64;
        if elapsed >= self.ends.load(Ordering::Relaxed) {
            self.per_second();
        }
        self.added.fetch_add(count, Ordering::Relaxed);
    }

    /// The current rate; a rate below one per second is zero.
    pub fn per_second(&self) -> f64 {
        // Every change is complete: no invariant spans a panic.
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let elapsed = now - measured.since;
        if elapsed >= WINDOW {
            let latest = self.added.swap(0, Ordering::Relaxed) as f64 / elapsed.as_secs_f64();
            let known = measured.per_second > 0.0 && elapsed < FORGOTTEN;
            let rate = match known {
                true => (measured.per_second + latest) / 2.0,
                false => latest,
            };
            measured.per_second = if rate < 1.0 { 0.0 } else { rate };
            measured.since = now;
            let ends = (now - self.created + WINDOW).as_millis() as u64;
            self.ends.store(ends, Ordering::Relaxed);
        }
        measured.per_second
    }

    /// Seconds that `count` events take at the current rate; `None` if the rate is zero.
    pub fn seconds_for(&self, count: u64) -> Option<f64> {
        if count == 0 {
            return Some(0.0);
        }
        let rate = self.per_second();
        (rate > 0.0).then(|| count as f64 / rate)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_steady_rate_is_measured_and_tells_how_long_more_takes() {
        let meter = RateMeter::default();
        assert_eq!(meter.seconds_for(0), Some(0.0));
        assert_eq!(meter.seconds_for(1), None);
        for _ in 0..10 {
            meter.add(1000);
            advance(WINDOW).await;
        }
        assert_eq!(meter.per_second(), 1000.0);
        assert_eq!(meter.seconds_for(4500), Some(4.5));
    }

    #[tokio::test(start_paused = true)]
    async fn what_stops_is_forgotten() {
        let meter = RateMeter::default();
        meter.add(1000);
        advance(WINDOW).await;
        assert_eq!(meter.per_second(), 1000.0);
        advance(WINDOW).await;
        assert_eq!(meter.per_second(), 500.0);
        advance(FORGOTTEN * 2).await;
        assert_eq!(meter.seconds_for(1), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_that_nobody_reads_is_that_of_the_last_windows() {
        let meter = RateMeter::default();
        for _ in 0..100 {
            meter.add(10_000);
            advance(WINDOW).await;
        }
        for _ in 0..20 {
            meter.add(100);
            advance(WINDOW).await;
        }
        assert!((99.0..110.0).contains(&meter.per_second()), "{meter:?}");
    }
}
