//! Rates with bursts, as token buckets.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use metrifold_base::locked;

/// A rate and its burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Mean rate per second.
    pub per_second: u64,
    /// Most that may come at once after a pause.
    pub burst: u64,
}

impl Rate {
    /// A rate, if one is configured; the default burst is the rate of one second.
    pub fn new(per_second: Option<u64>, burst: Option<u64>) -> Option<Self> {
        let per_second = per_second?;
        Some(Self {
            per_second,
            burst: burst.unwrap_or(per_second),
        })
    }
}

/// The token bucket of a rate. Full before its first use.
#[derive(Debug, Default)]
pub struct Bucket(Mutex<Option<Level>>);

#[derive(Clone, Copy, Debug)]
struct Level {
    /// Negative after a request that took more than there was.
    left: f64,
    at: Instant,
}

impl Bucket {
    /// Tokens that are left at `now`.
    pub fn left(&self, rate: Rate, now: Instant) -> f64 {
        let mut level = locked(&self.0);
        let full = rate.burst as f64;
        let before = level.unwrap_or(Level {
            left: full,
            at: now,
        });
        let passed = now.saturating_duration_since(before.at).as_secs_f64();
        let left = (before.left + passed * rate.per_second as f64).min(full);
        *level = Some(Level {
            left,
            at: now.max(before.at),
        });
        left
    }

    /// Takes `much` tokens; the level may become negative. A negative number gives tokens back.
    pub fn take(&self, much: f64) {
        if let Some(level) = &mut *locked(&self.0) {
            level.left -= much;
        }
    }

    /// Pause until the bucket is above zero; `None` if it is. A request that comes while the bucket
    /// is above zero is let in whatever its size, and later ones wait until its debt is paid.
    pub fn pause(&self, rate: Rate, now: Instant) -> Option<Duration> {
        self.pause_beside(rate, 0.0, now)
    }

    /// As [`Bucket::pause`], for a request that has taken `own` tokens itself, which do not count
    /// against it.
    pub(crate) fn pause_beside(&self, rate: Rate, own: f64, now: Instant) -> Option<Duration> {
        let left = self.left(rate, now) + own;
        (left <= 0.0).then(|| pause(1.0 - left, rate))
    }

    /// Pause until a whole token is left, for requests that count as one.
    pub(crate) fn pause_for_one(&self, rate: Rate, now: Instant) -> Option<Duration> {
        let left = self.left(rate, now);
        (left < 1.0).then(|| pause(1.0 - left, rate))
    }

    /// The rate and the tokens left, as the admin address shows them.
    pub fn show(&self, rate: Option<Rate>, now: Instant) -> serde_json::Value {
        let shown = rate.map(|rate| {
            let left = self.left(rate, now).max(0.0) as u64;
            serde_json::json!({ "per_second": rate.per_second, "burst": rate.burst, "left": left })
        });
        shown.into()
    }
}

/// Longest pause that an answer states.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

fn pause(lacks: f64, rate: Rate) -> Duration {
    let secs = lacks / rate.per_second.max(1) as f64;
    Duration::from_secs_f64(secs.clamp(0.0, LONGEST_PAUSE.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_let_in_over_a_long_time_is_the_rate_however_large_the_pieces() {
        for piece in [1, 7, 100, 5000] {
            let bucket = Bucket::default();
            let rate = Rate::new(Some(100), Some(300)).unwrap();
            let start = Instant::now();
            let mut taken = 0;
            for millis in (0..1_000_000).step_by(10) {
                let now = start + Duration::from_millis(millis);
                while bucket.pause(rate, now).is_none() {
                    bucket.take(piece as f64);
                    taken += piece;
                }
            }
            let fair = 100 * 1000 + 300;
            assert!(
                (fair - piece..=fair + piece).contains(&taken),
                "{piece}: {taken}"
            );
        }
    }

    #[test]
    fn time_that_goes_back_gives_nothing() {
        let bucket = Bucket::default();
        let rate = Rate::new(Some(10), None).unwrap();
        let now = Instant::now() + Duration::from_secs(100);
        assert_eq!(bucket.left(rate, now), 10.0);
        bucket.take(10.0);
        assert_eq!(bucket.left(rate, now - Duration::from_secs(50)), 0.0);
        assert_eq!(bucket.left(rate, now), 0.0);
        assert_eq!(bucket.pause(rate, now), Some(Duration::from_millis(100)));
    }

    #[test]
    fn nobody_is_told_to_wait_for_longer_than_a_minute() {
        let bucket = Bucket::default();
        let rate = Rate::new(Some(1), None).unwrap();
        let now = Instant::now();
        assert_eq!(bucket.pause(rate, now), None);
        bucket.take(1e12);
        assert_eq!(bucket.pause(rate, now), Some(LONGEST_PAUSE));
    }
}
