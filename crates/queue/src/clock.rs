//! Ages of stored batches, by the only clock that outlives a process.
//!
//! The system's clock may be set at any time, by years if a machine starts without knowing the time.
//! Batches that were acknowledged must not be taken for old because of that.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The beginning of 2025, before any release: an earlier time comes from a clock that was not set.
const RELEASED: u64 = 1_735_689_600_000;

/// Milliseconds since 1970 by the system's clock when this process first asked, plus the time that
/// has passed since. Setting the clock does not change it.
pub fn now_millis() -> u64 {
    static START: LazyLock<(u64, Instant)> = LazyLock::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = since.map_or(0, |since| since.as_millis() as u64);
        (millis, Instant::now())
    });
    let (millis, start) = *START;
    millis + start.elapsed().as_millis() as u64
}

/// Age at `now` of a batch that was accepted at another time; zero if it was stamped by a clock that
/// was ahead, or that was not set yet.
pub fn age(accepted_at: u64, now: u64) -> Duration {
    match accepted_at < RELEASED && now >= RELEASED {
        true => Duration::ZERO,
        false => Duration::from_millis(now.saturating_sub(accepted_at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_not_set_makes_no_batch_old() {
        let now = RELEASED + 1_000_000;
        assert_eq!(age(now - 1_000, now), Duration::from_secs(1));
        assert_eq!(age(now + 1_000, now), Duration::ZERO, "set back meanwhile");
        assert_eq!(age(5_000, now), Duration::ZERO, "stamped in 1970");
        assert_eq!(age(5_000, 7_000), Duration::from_secs(2), "still not set");
    }

    #[tokio::test(start_paused = true)]
    async fn time_passes_as_it_is_measured_and_not_as_it_is_set() {
        let before = now_millis();
        tokio::time::advance(Duration::from_secs(60)).await;
        let passed = now_millis() - before;
        assert!((60_000..61_000).contains(&passed), "{passed}");
    }
}
