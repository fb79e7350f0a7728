//! Availability of a replica: the results of its probes and of its requests.

use std::time::Duration;

use tokio::time::Instant;

use crate::breaker::{Breaker, BreakerOptions};
use crate::failures::Failures;

/// Conditions for the availability of a replica.
#[derive(Clone, Copy, Debug)]
pub struct HealthOptions {
    /// Consecutive failed probes after which it is down.
    pub fall: usize,
    /// Consecutive successful probes after which it is up again.
    pub rise: usize,
    /// Whether it counts as up before its first probe has ended.
    pub assume_up: bool,
    /// Failed requests that make it unavailable; 0 for no limit.
    pub max_fails: usize,
    /// Time after which a failed request expires.
    pub fail_timeout: Duration,
    /// Time in which its share of the queries grows to the whole after it came back.
    pub slow_start: Duration,
    pub(crate) breaker: Option<BreakerOptions>,
}

impl HealthOptions {
    /// Options under which each probe decides alone.
    #[cfg(test)]
    pub(crate) const fn probes_alone() -> Self {
        Self {
            fall: 1,
            rise: 1,
            assume_up: true,
            max_fails: 0,
            fail_timeout: Duration::ZERO,
            slow_start: Duration::ZERO,
            breaker: None,
        }
    }
}

/// Health of one replica.
#[derive(Clone, Debug)]
pub struct Health {
    options: HealthOptions,
    probed: Probed,
    /// Consecutive probes that contradict `probed`.
    against: usize,
    /// Time since which `probed` has held.
    since: Instant,
    /// Whether it has recovered or restarted: its share of the queries grows slowly.
    came_back: bool,
    /// Error of the last failed probe.
    trouble: String,
    failures: Failures,
    breaker: Option<Breaker>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Probed {
    Never,
    Up,
    Down,
}

/// Smallest share of queries during a slow start.
const LEAST_SHARE: f64 = 0.1;

impl Health {
    /// Health of a replica that has not been probed.
    pub fn new(options: HealthOptions, now: Instant) -> Self {
        Self {
            probed: Probed::Never,
            against: 0,
            since: now,
            came_back: false,
            trouble: String::new(),
            failures: Failures::new(options.max_fails, options.fail_timeout),
            breaker: options.breaker.map(|breaker| Breaker::new(breaker, now)),
            options,
        }
    }

    /// Records the result of a probe. Returns whether this changes `up`.
    pub fn probed(&mut self, result: Result<(), String>, now: Instant) -> bool {
        let failed = result.is_err();
        if let Err(trouble) = result {
            self.trouble = trouble;
        }
        let (expected, needed) = match self.probed {
            Probed::Up => (false, self.options.fall),
            Probed::Down => (true, self.options.rise),
            // The first probe decides.
            Probed::Never => {
                let was = self.up();
                self.set(!failed, now);
                return was != self.up();
            }
        };
        if failed == expected {
            self.against = 0;
            return false;
        }
        self.against += 1;
        if self.against < needed {
            return false;
        }
        self.came_back = !failed;
        self.set(!failed, now);
        true
    }

    fn set(&mut self, up: bool, now: Instant) {
        self.probed = if up { Probed::Up } else { Probed::Down };
        self.against = 0;
        self.since = now;
    }

    /// Records that its process has restarted, which begins a slow start.
    pub fn restarted(&mut self, now: Instant) {
        self.came_back = true;
        self.since = now;
    }

    /// Records that a request is sent to it. Returns the era of its breaker.
    pub fn sent(&mut self, now: Instant) -> u64 {
        self.breaker.as_mut().map_or(0, |breaker| breaker.sent(now))
    }

    /// Records the outcome of a request.
    pub fn answered(&mut self, era: u64, failed: bool, now: Instant) {
        if failed {
            self.failures.note(now);
        }
        if let Some(breaker) = &mut self.breaker {
            breaker.done(era, failed, now);
        }
    }

    /// Records that an answer broke off after its head had been recorded.
    pub fn broke(&mut self, era: u64, now: Instant) {
        self.failures.note(now);
        if let Some(breaker) = &mut self.breaker {
            breaker.broke(era, now);
        }
    }

    /// Records that a caller cancelled a request.
    pub fn cancelled(&mut self, era: u64, now: Instant) {
        if let Some(breaker) = &mut self.breaker {
            breaker.cancelled(era, now);
        }
    }

    /// Whether its probes find it up.
    pub fn up(&self) -> bool {
        match self.probed {
            Probed::Never => self.options.assume_up,
            Probed::Up => true,
            Probed::Down => false,
        }
    }

    /// Whether requests may go to it.
    pub fn available(&self, now: Instant) -> bool {
        self.why_not(now).is_none()
    }

    /// Time since which its probes have found it up or down.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Whether the last probe contradicted the earlier ones, so that another should follow soon.
    pub(crate) fn in_doubt(&self) -> bool {
        self.against > 0
    }

    /// Reason why it is unavailable. `None` if it is available.
    pub(crate) fn why_not(&self, now: Instant) -> Option<String> {
        if self.probed == Probed::Never && !self.options.assume_up {
            return Some("has not been probed yet".to_owned());
        }
        if !self.up() {
            return Some(self.trouble.clone());
        }
        let seconds = |until: Option<Instant>| {
            until.map_or(0, |until| {
                until.saturating_duration_since(now).as_secs() + 1
            })
        };
        if self.failures.too_many(now) {
            let failed = self.failures.alive(now);
            let left = seconds(self.failures.until());
            return Some(format!("{failed} requests failed; tried again in {left}s"));
        }
        match &self.breaker {
            Some(breaker) if !breaker.lets(now) => {
                let left = seconds(breaker.until());
                Some(format!(
                    "too large a share of requests failed; tried again in {left}s"
                ))
            }
            _ => None,
        }
    }

    /// Factor of its share of queries: below 1 during a slow start.
    pub fn share(&self, now: Instant) -> f64 {
        let time = self.options.slow_start;
        if !self.came_back || time.is_zero() {
            return 1.0;
        }
        let up = now.saturating_duration_since(self.since);
        (up.as_secs_f64() / time.as_secs_f64()).clamp(LEAST_SHARE, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no() -> Result<(), String> {
        Err("status 503".to_owned())
    }

    #[test]
    fn one_probe_decides_unless_more_are_asked_for() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut health = Health::new(HealthOptions::probes_alone(), start);
        assert!(health.available(start));
        for secs in 1..10 {
            let up = secs % 2 == 0;
            let changed = health.probed(if up { Ok(()) } else { no() }, at(secs));
            assert!(changed);
            assert_eq!(health.available(at(secs)), up);
        }
    }

    #[test]
    fn a_replica_falls_after_several_probes_and_rises_after_several() {
        let start = Instant::now();
        let options = HealthOptions {
            fall: 2,
            rise: 3,
            assume_up: false,
            slow_start: Duration::from_secs(10),
            ..HealthOptions::probes_alone()
        };
        let mut health = Health::new(options, start);
        let why = health.why_not(start).unwrap();
        assert_eq!(why, "has not been probed yet");
        assert!(health.probed(Ok(()), start));
        assert_eq!(
            health.share(start),
            1.0,
            "it has not come back from anything"
        );
        for (result, up, doubt) in [
            (no(), true, true),
            (Ok(()), true, false),
            (no(), true, true),
            (no(), false, false),
            (Ok(()), false, true),
            (Ok(()), false, true),
            (no(), false, false),
            (Ok(()), false, true),
            (Ok(()), false, true),
            (Ok(()), true, false),
        ] {
            health.probed(result, start);
            assert_eq!((health.up(), health.in_doubt()), (up, doubt));
        }
        let at = |secs| start + Duration::from_secs(secs);
        assert_eq!(health.share(at(0)), 0.1);
        assert_eq!(health.share(at(5)), 0.5);
        assert_eq!(health.share(at(50)), 1.0);
        health.restarted(at(50));
        assert_eq!(health.share(at(52)), 0.2);
    }

    #[test]
    fn failed_requests_and_an_open_breaker_make_it_unavailable_and_say_so() {
        let start = Instant::now();
        let mut options = HealthOptions {
            max_fails: 2,
            fail_timeout: Duration::from_secs(10),
            ..HealthOptions::probes_alone()
        };
        let mut health = Health::new(options, start);
        health.answered(0, true, start);
        assert!(health.available(start));
        health.answered(0, true, start);
        let why = health.why_not(start).unwrap();
        assert_eq!(why, "2 requests failed; tried again in 11s");
        assert!(health.up(), "its probes say otherwise");
        assert!(health.available(start + Duration::from_secs(10)));
        options.max_fails = 0;
        options.breaker = Some(BreakerOptions {
            failure_percent: 50,
            min_requests: 1,
            window: Duration::from_secs(10),
            open: Duration::from_secs(4),
            max_open: Duration::from_secs(4),
        });
        let mut health = Health::new(options, start);
        health.answered(0, true, start);
        let why = health.why_not(start).unwrap();
        assert!(why.starts_with("too large a share of requests"), "{why}");
        let later = start + Duration::from_secs(4);
        let trial = health.sent(later);
        assert!(!health.available(later));
        health.cancelled(trial, later);
        assert!(health.available(later));
    }
}
