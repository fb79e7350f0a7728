//! A circuit breaker: a replica of which too large a share of requests fails is left alone for a
//! time, and then tried with one request.

use std::time::Duration;

use tokio::time::Instant;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BreakerOptions {
    /// The share of failures, in percent, from which on it opens.
    pub(crate) failure_percent: u32,
    /// Fewer requests than this say nothing.
    pub(crate) min_requests: u32,
    /// The time over which they are counted.
    pub(crate) window: Duration,
    /// How long it is open at first.
    pub(crate) open: Duration,
    /// How long it is open at most, after trials that failed.
    pub(crate) max_open: Duration,
}

/// A circuit breaker.
#[derive(Clone, Debug)]
pub(crate) struct Breaker {
    options: BreakerOptions,
    state: State,
    /// How long it is open the next time.
    next: Duration,
    /// This half of the window, and the half before.
    halves: [Half; 2],
    turned: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Half {
    requests: u32,
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Closed,
    Open(Instant),
    /// One request is out to see whether the replica answers again.
    Trial,
}

impl Breaker {
    pub(crate) fn new(options: BreakerOptions, now: Instant) -> Self {
        Self {
            options,
            state: State::Closed,
            next: options.open,
            halves: [Half::default(); 2],
            turned: now,
        }
    }

    /// Whether a request may be sent.
    pub(crate) fn lets(&self, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::Open(until) => now >= until,
            State::Trial => false,
        }
    }

    /// Notes that a request is sent.
    pub(crate) fn sent(&mut self, now: Instant) {
        if let State::Open(until) = self.state
            && now >= until
        {
            self.state = State::Trial;
        }
    }

    /// Notes that a request was given up for no fault of the replica.
    pub(crate) fn cancelled(&mut self, now: Instant) {
        if self.state == State::Trial {
            self.state = State::Open(now);
        }
    }

    /// Notes what became of a request.
    pub(crate) fn done(&mut self, failed: bool, now: Instant) {
        match (self.state, failed) {
            (State::Trial, true) => self.open(now),
            (State::Trial, false) => {
                self.state = State::Closed;
                self.next = self.options.open;
                self.halves = [Half::default(); 2];
            }
            // What was sent before it opened says nothing new.
            (State::Open(_), _) => {}
            (State::Closed, _) => {
                self.turn(now);
                self.halves[0].requests += 1;
                self.halves[0].failures += u32::from(failed);
                let [now_half, before] = self.halves;
                let requests = now_half.requests + before.requests;
                let failures = now_half.failures + before.failures;
                let share = u64::from(failures) * 100;
                let limit = u64::from(self.options.failure_percent) * u64::from(requests);
                if failed && requests >= self.options.min_requests && share >= limit {
                    self.open(now);
                }
            }
        }
    }

    /// Until when it is open.
    pub(crate) fn until(&self) -> Option<Instant> {
        match self.state {
            State::Open(until) => Some(until),
            State::Closed | State::Trial => None,
        }
    }

    fn open(&mut self, now: Instant) {
        self.state = State::Open(now + self.next);
        self.next = (self.next * 2).min(self.options.max_open);
        self.halves = [Half::default(); 2];
    }

    /// Forgets what is older than the window.
    fn turn(&mut self, now: Instant) {
        let half = self.options.window / 2;
        let passed = now.saturating_duration_since(self.turned);
        if passed < half {
            return;
        }
        self.halves[1] = match passed < self.options.window {
            true => self.halves[0],
            false => Half::default(),
        };
        self.halves[0] = Half::default();
        self.turned = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: BreakerOptions = BreakerOptions {
        failure_percent: 50,
        min_requests: 4,
        window: Duration::from_secs(10),
        open: Duration::from_secs(5),
        max_open: Duration::from_secs(15),
    };

    #[test]
    fn it_opens_at_a_share_of_failures_and_closes_after_a_trial_that_succeeds() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut breaker = Breaker::new(OPTIONS, start);
        for failed in [true, true, true] {
            breaker.done(failed, at(1));
            assert!(breaker.lets(at(1)), "too few");
        }
        breaker.done(true, at(1));
        assert!(!breaker.lets(at(5)));
        assert!(breaker.lets(at(6)));
        breaker.sent(at(6));
        assert!(!breaker.lets(at(6)), "one trial at a time");
        breaker.done(true, at(6));
        assert!(!breaker.lets(at(15)), "twice as long");
        breaker.sent(at(16));
        breaker.done(true, at(16));
        assert!(
            !breaker.lets(at(30)) && breaker.lets(at(31)),
            "15 s at most"
        );
        breaker.sent(at(31));
        breaker.cancelled(at(31));
        assert!(breaker.lets(at(31)), "nothing was learnt");
        breaker.sent(at(31));
        breaker.done(false, at(32));
        assert!(breaker.lets(at(32)));
        assert_eq!(breaker.next, OPTIONS.open);
    }

    #[test]
    fn a_small_share_or_an_old_one_opens_nothing() {
        let start = Instant::now();
        let mut breaker = Breaker::new(OPTIONS, start);
        for n in 0..100 {
            breaker.done(n % 3 == 2, start);
            assert!(breaker.lets(start));
        }
        let mut breaker = Breaker::new(OPTIONS, start);
        for secs in [0, 11, 22, 33, 44, 55] {
            breaker.done(true, start + Duration::from_secs(secs));
            assert!(breaker.lets(start + Duration::from_secs(secs)));
        }
    }
}
