//! Times of scrapes: the hash of a target decides its moment within each interval, so that scrapes
//! are spread, and happen at the same moments after a restart and on every instance.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A scrape that starts at most this many milliseconds late gets the time at which it was due,
/// which compresses better.
const TOLERANCE: i64 = 2;

/// The current time, in milliseconds since the epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

fn milliseconds(interval: Duration) -> i64 {
    i64::try_from(interval.as_millis())
        .unwrap_or(i64::MAX)
        .max(1)
}

/// The target's next scheduled time after `after`, in milliseconds since the epoch.
pub(crate) fn next(hash: u64, interval: Duration, after: i64) -> i64 {
    let interval = milliseconds(interval);
    let offset = (hash % interval as u64) as i64;
    let past = (after - offset).rem_euclid(interval);
    after.saturating_add(interval - past)
}

/// The time for the scrape after the one that was due at `done`: the last scheduled time that has
/// passed in the meantime, as a scrape that took long delays the next one and does not cancel it; else the
/// next scheduled time. Comes with the number of scheduled times that are left out.
pub(crate) fn following(hash: u64, interval: Duration, done: i64, now: i64) -> (i64, u64) {
    let passed = next(hash, interval, now.saturating_sub(milliseconds(interval)));
    match passed > done {
        true => (passed, missed(done, interval, passed).saturating_sub(1)),
        false => (next(hash, interval, done.max(now)), 0),
    }
}

/// Number of scheduled times passed since `due`, which itself is not counted.
fn missed(due: i64, interval: Duration, now: i64) -> u64 {
    let passed = now.saturating_sub(due) / milliseconds(interval);
    passed.try_into().unwrap_or(0)
}

/// The timestamp of a scrape that was due at `due` and starts at `now`.
pub(crate) fn timestamp(due: i64, interval: Duration, now: i64) -> i64 {
    let tolerance = (milliseconds(interval) / 100).min(TOLERANCE);
    match (0..=tolerance).contains(&(now - due)) {
        true => due,
        false => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(15);

    #[test]
    fn a_target_has_one_moment_in_each_interval() {
        let hash = 15_000 * 7 + 123;
        assert_eq!(next(hash, INTERVAL, 0), 123);
        assert_eq!(next(hash, INTERVAL, 122), 123);
        assert_eq!(next(hash, INTERVAL, 123), 15_123);
        assert_eq!(next(hash, INTERVAL, -15_000), -14_877);
        let now = 1_700_000_000_000;
        let due = next(hash, INTERVAL, now);
        assert!(due > now && due <= now + 15_000);
        assert_eq!(next(hash, INTERVAL, due), due + 15_000);
    }

    #[test]
    fn a_scrape_that_took_long_delays_the_next_and_those_between_are_left_out() {
        let hash = 123;
        let after = |now| following(hash, INTERVAL, 15_123, now);
        assert_eq!(after(15_500), (30_123, 0));
        assert_eq!(after(30_122), (30_123, 0));
        assert_eq!(after(30_123), (30_123, 0));
        assert_eq!(after(31_000), (30_123, 0));
        assert_eq!(after(46_000), (45_123, 1));
        assert_eq!(after(15_123 + 10 * 15_000 + 1), (15_123 + 10 * 15_000, 9));
        // The clock was set back.
        assert_eq!(after(100), (30_123, 0));
    }

    #[test]
    fn what_begins_a_little_late_has_the_time_at_which_it_was_due() {
        assert_eq!(timestamp(1000, INTERVAL, 1002), 1000);
        assert_eq!(timestamp(1000, INTERVAL, 1003), 1003);
        assert_eq!(timestamp(1000, INTERVAL, 999), 999);
        assert_eq!(timestamp(1000, Duration::from_millis(100), 1002), 1002);
        assert_eq!(missed(1000, INTERVAL, 15_999), 0);
        assert_eq!(missed(1000, INTERVAL, 31_000), 2);
        assert_eq!(missed(1000, INTERVAL, 0), 0);
    }
}
