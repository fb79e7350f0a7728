//! A circuit breaker: it opens for a replica when too large a share of its requests fails, and
//! after a time lets one request through as a trial.

use std::time::Duration;

use tokio::time::Instant;

/// Thresholds and times of a breaker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BreakerOptions {
    /// Share of failed requests, in percent, at which the breaker opens.
    pub(crate) failure_percent: u32,
    /// Fewest requests within the window that can open it.
    pub(crate) min_requests: u32,
    /// Time over which requests are counted.
    pub(crate) window: Duration,
    /// Time for which it opens at first.
    pub(crate) open: Duration,
    /// Longest time for which it opens, after failed trials.
    pub(crate) max_open: Duration,
}

/// A circuit breaker.
#[derive(Clone, Debug)]
pub(crate) struct Breaker {
    options: BreakerOptions,
    state: State,
    /// Number of times that it has changed its state. A request belongs to the state it was sent in.
    era: u64,
    /// Time for which it opens the next time; doubles with each failed trial.
    next: Duration,
    /// The current half of the window, and the previous one.
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
    /// One request is in flight as a trial.
    Trial,
}

impl Breaker {
    pub(crate) fn new(options: BreakerOptions, now: Instant) -> Self {
        Self {
            options,
            state: State::Closed,
            era: 0,
            next: options.open,
            halves: [Half::default(); 2],
            turned: now,
        }
    }

    /// Whether it lets a request through.
    pub(crate) fn lets(&self, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::Open(until) => now >= until,
            State::Trial => false,
        }
    }

    /// Records that a request is sent. Returns the era that it belongs to.
    pub(crate) fn sent(&mut self, now: Instant) -> u64 {
        if let State::Open(until) = self.state
            && now >= until
        {
            self.enter(State::Trial);
        }
        self.era
    }

    /// Records that a request of this era was cancelled through no fault of the replica.
    pub(crate) fn cancelled(&mut self, era: u64, now: Instant) {
        if self.state == State::Trial && era == self.era {
            self.enter(State::Open(now));
        }
    }

    /// Records the outcome of a request of this era. Requests that were sent before the breaker
    /// changed its state say nothing about the replica since.
    pub(crate) fn done(&mut self, era: u64, failed: bool, now: Instant) {
        if era != self.era {
            return;
        }
        match (self.state, failed) {
            (State::Trial, true) => self.open(now),
            (State::Trial, false) => {
                self.enter(State::Closed);
                self.next = self.options.open;
                self.halves = [Half::default(); 2];
            }
            // Sent although the breaker is open: the last resort of a selection without others.
            (State::Open(_), _) => {}
            (State::Closed, _) => {
                self.turn(now);
                self.halves[0].requests += 1;
                if failed {
                    self.failed(now);
                }
            }
        }
    }

    /// Records that an answer broke off whose head has been counted as a success.
    pub(crate) fn broke(&mut self, era: u64, now: Instant) {
        if era == self.era && self.state == State::Closed {
            self.turn(now);
            self.failed(now);
        }
    }

    /// Counts a failure, and opens when there are too many.
    fn failed(&mut self, now: Instant) {
        self.halves[0].failures += 1;
        let [now_half, before] = self.halves;
        let requests = now_half.requests + before.requests;
        let failures = now_half.failures + before.failures;
        let share = u64::from(failures) * 100;
        let limit = u64::from(self.options.failure_percent) * u64::from(requests);
        if requests >= self.options.min_requests && share >= limit {
            self.open(now);
        }
    }

    /// The end of the open state. `None` while it is closed or a trial is in flight.
    pub(crate) fn until(&self) -> Option<Instant> {
        match self.state {
            State::Open(until) => Some(until),
            State::Closed | State::Trial => None,
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.era += 1;
    }

    fn open(&mut self, now: Instant) {
        self.enter(State::Open(now + self.next));
        self.next = (self.next * 2).min(self.options.max_open);
        self.halves = [Half::default(); 2];
    }

    /// Drops counts that are older than the window.
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
        let early = breaker.sent(at(0));
        for failed in [true, true, true] {
            breaker.done(early, failed, at(1));
            assert!(breaker.lets(at(1)), "too few");
        }
        breaker.done(early, true, at(1));
        assert!(!breaker.lets(at(5)));
        assert!(breaker.lets(at(6)));
        let trial = breaker.sent(at(6));
        assert!(!breaker.lets(at(6)), "one trial at a time");
        breaker.done(early, false, at(6));
        breaker.cancelled(early, at(6));
        assert!(!breaker.lets(at(6)), "the trial alone decides");
        breaker.done(trial, true, at(6));
        assert!(!breaker.lets(at(15)), "twice as long");
        let trial = breaker.sent(at(16));
        breaker.done(trial, true, at(16));
        assert!(
            !breaker.lets(at(30)) && breaker.lets(at(31)),
            "15 s at most"
        );
        let trial = breaker.sent(at(31));
        breaker.cancelled(trial, at(31));
        assert!(breaker.lets(at(31)), "nothing was learnt");
        let trial = breaker.sent(at(31));
        breaker.done(trial, false, at(32));
        assert!(breaker.lets(at(32)));
        assert_eq!(breaker.next, OPTIONS.open);
        for _ in 0..4 {
            breaker.done(early, true, at(33));
        }
        assert!(breaker.lets(at(33)), "failures from before it closed");
    }

    #[test]
    fn answers_that_break_off_count_once_and_as_failures() {
        let start = Instant::now();
        let mut breaker = Breaker::new(OPTIONS, start);
        for n in 0..4 {
            assert!(breaker.lets(start), "{n}");
            let era = breaker.sent(start);
            breaker.done(era, false, start);
            if n > 1 {
                breaker.broke(era, start);
            }
        }
        assert!(!breaker.lets(start), "two of four");
    }

    #[test]
    fn a_small_share_or_an_old_one_opens_nothing() {
        let start = Instant::now();
        let mut breaker = Breaker::new(OPTIONS, start);
        for n in 0..100 {
            let era = breaker.sent(start);
            breaker.done(era, n % 3 == 2, start);
            assert!(breaker.lets(start));
        }
        let mut breaker = Breaker::new(OPTIONS, start);
        for secs in [0, 11, 22, 33, 44, 55] {
            let era = breaker.sent(start);
            breaker.done(era, true, start + Duration::from_secs(secs));
            assert!(breaker.lets(start + Duration::from_secs(secs)));
        }
    }
}
