//! Whether a replica may be asked: what its probes say, what its answers say, and since when.

use std::time::Duration;

use tokio::time::Instant;

use crate::breaker::{Breaker, BreakerOptions};
use crate::failures::Failures;

/// When a replica counts as available.
#[derive(Clone, Copy, Debug)]
pub struct HealthOptions {
    /// Probes in a row that must fail until it is not available.
    pub fall: usize,
    /// Probes in a row that must succeed until one that fell is available again.
    pub rise: usize,
    /// Whether it is available before its first probe has ended.
    pub assume_up: bool,
    /// Failed requests that make it unavailable; 0 for none.
    pub max_fails: usize,
    /// How long a failed request counts.
    pub fail_timeout: Duration,
    /// The time in which its share of the queries grows to the whole, after it came back.
    pub slow_start: Duration,
    pub(crate) breaker: Option<BreakerOptions>,
}

impl HealthOptions {
    /// One probe decides, and nothing else does.
    pub const fn probes_alone() -> Self {
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

/// What is known of a replica's health.
#[derive(Clone, Debug)]
pub struct Health {
    options: HealthOptions,
    probed: Probed,
    /// Probes in a row that contradict `probed`.
    against: usize,
    /// Since when its probes find it as they do.
    since: Instant,
    /// Whether it has come back after it was down, or has been restarted: it starts slowly.
    came_back: bool,
    /// What the last probe that failed said.
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

/// The least share of queries of a replica that starts slowly.
const LEAST_SHARE: f64 = 0.1;

impl Health {
    /// Of a replica that has not been probed.
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

    /// Notes what a probe said. Returns whether its availability by probes has changed.
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

    /// Notes that its process has been restarted: it starts slowly.
    pub fn restarted(&mut self, now: Instant) {
        self.came_back = true;
        self.since = now;
    }

    /// Notes that a request is sent to it.
    pub fn sent(&mut self, now: Instant) {
        if let Some(breaker) = &mut self.breaker {
            breaker.sent(now);
        }
    }

    /// Notes that a request was answered, or failed.
    pub fn answered(&mut self, failed: bool, now: Instant) {
        if failed {
            self.failures.note(now);
        }
        if let Some(breaker) = &mut self.breaker {
            breaker.done(failed, now);
        }
    }

    /// Notes that a request was given up by whoever asked.
    pub fn cancelled(&mut self, now: Instant) {
        if let Some(breaker) = &mut self.breaker {
            breaker.cancelled(now);
        }
    }

    /// Whether its probes say that it can be asked.
    pub fn up(&self) -> bool {
        match self.probed {
            Probed::Never => self.options.assume_up,
            Probed::Up => true,
            Probed::Down => false,
        }
    }

    /// Whether it may be asked.
    pub fn available(&self, now: Instant) -> bool {
        self.why_not(now).is_none()
    }

    /// Since when its probes find it as they do.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Whether the last probe contradicted those before: another one should follow soon.
    pub fn in_doubt(&self) -> bool {
        self.against > 0
    }

    /// Why it may not be asked.
    pub fn why_not(&self, now: Instant) -> Option<String> {
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
            return Some(format!("{failed} requests failed; asked again in {left}s"));
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

    /// Its share of queries: less than 1 while it starts slowly.
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
        health.answered(true, start);
        assert!(health.available(start));
        health.answered(true, start);
        let why = health.why_not(start).unwrap();
        assert_eq!(why, "2 requests failed; asked again in 11s");
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
        health.answered(true, start);
        let why = health.why_not(start).unwrap();
        assert!(why.starts_with("too large a share of requests"), "{why}");
        let later = start + Duration::from_secs(4);
        health.sent(later);
        assert!(!health.available(later));
        health.cancelled(later);
        assert!(health.available(later));
    }
}
