//! Failed requests, each of which expires after a fixed time.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The newest failures of a replica, at most `max`.
#[derive(Clone, Debug)]
pub(crate) struct Failures {
    /// Number of unexpired failures that make a replica unavailable; 0 for no limit.
    max: usize,
    lifetime: Duration,
    times: VecDeque<Instant>,
}

impl Failures {
    pub(crate) fn new(max: usize, lifetime: Duration) -> Self {
        Self {
            max,
            lifetime,
            times: VecDeque::new(),
        }
    }

    /// Records a failure.
    pub(crate) fn note(&mut self, now: Instant) {
        if self.times.len() >= self.max {
            self.times.pop_front();
        }
        if self.max > 0 {
            self.times.push_back(now);
        }
    }

    /// Whether the replica has reached the limit of failures.
    pub(crate) fn too_many(&self, now: Instant) -> bool {
        self.max > 0 && self.alive(now) >= self.max
    }

    /// Time at which the oldest failure expires.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.times.front().map(|first| *first + self.lifetime)
    }

    /// Number of unexpired failures.
    pub(crate) fn alive(&self, now: Instant) -> usize {
        let alive = |time: &&Instant| now.saturating_duration_since(**time) < self.lifetime;
        self.times.iter().filter(alive).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_forgotten_by_itself() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut failures = Failures::new(3, Duration::from_secs(10));
        for secs in [0, 4] {
            failures.note(at(secs));
            assert!(!failures.too_many(at(secs)));
        }
        failures.note(at(8));
        assert!(failures.too_many(at(8)) && failures.too_many(at(9)));
        // The first expires at 10, and another takes its place.
        assert!(!failures.too_many(at(10)));
        failures.note(at(11));
        assert!(failures.too_many(at(13)));
        assert!(!failures.too_many(at(14)));
        assert_eq!(failures.alive(at(30)), 0);
    }

    #[test]
    fn none_matter_if_that_is_configured() {
        let now = Instant::now();
        let mut failures = Failures::new(0, Duration::from_secs(10));
        for _ in 0..100 {
            failures.note(now);
        }
        assert!(!failures.too_many(now));
        assert_eq!(failures.times.len(), 0);
    }
}
