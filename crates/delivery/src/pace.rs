//! How many requests are under way at once, and who is left alone after a failure.
//!
//! The number of connections adapts between bounds: it grows by one with every round of answers as
//! long as all of them are busy, halves when the endpoint is in trouble, and shrinks while fewer
//! are needed (additive increase, multiplicative decrease, as in TCP's congestion avoidance, RFC
//! 5681 section 3.1).
//!
//! A failure is at first that of its tenant, who is left alone for a while; the others go on. It is
//! the endpoint's if it cannot be reached, or if requests have failed for one tenant after the other:
//! then everybody waits for a moment. A request that is not answered soon makes way for another one
//! beside it, so that nobody waits for somebody else's answer.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::Gauge;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use metrifold_base::Backoff;
use metrifold_engine::planes::metrics::Trouble;
use metrifold_model::Tenant;

use super::config::RetryConfig;

/// So many tenants in a row are refused with 5xx before it is taken for the endpoint's trouble.
const TENANTS_IN_A_ROW: usize = 16;
/// A request that has had no answer for so long does not count among those that are under way.
const PATIENCE: Duration = Duration::from_secs(1);
/// After so long without need for all connections, there is one fewer.
const IDLE: Duration = Duration::from_secs(10);
/// Of so many tenants it is known how often in a row their requests have failed.
const TENANTS_MAX: usize = 10_000;
/// Connections to begin with, within the bounds.
const FIRST: usize = 4;

/// What went wrong with an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody was reached.
    Unreachable,
    /// The endpoint could not do it, or has not answered.
    Broken,
    /// The endpoint wants less of it.
    TooMuch,
}

/// Paces the requests of a sink.
#[derive(Debug)]
pub(super) struct Pace {
    least: usize,
    most: usize,
    retry: RetryConfig,
    state: Mutex<State>,
    changed: Notify,
    /// Shows the limit.
    gauge: Gauge,
}

#[derive(Debug)]
struct State {
    /// How many requests may be under way.
    limit: f64,
    /// Who may send, whether there is something to send or not.
    permits: usize,
    /// Requests under way, but for those that have made way.
    sending: usize,
    slow: usize,
    /// When all connections were last busy, or one was given up because they were not.
    needed: Instant,
    /// Nobody sends before.
    until: Option<Instant>,
    /// Of the endpoint, while it is in trouble.
    backoff: Option<Backoff>,
    /// Who was last refused with 5xx, and how many different tenants in a row were.
    last: Option<Option<Tenant>>,
    in_a_row: usize,
    /// Of those whose last request has failed, with the time until which they are left alone.
    tenants: HashMap<Option<Tenant>, (Backoff, Instant), foldhash::fast::RandomState>,
}

/// The right to send one request at a time.
#[derive(Debug)]
pub(super) struct Permit<'a>(&'a Pace);

/// A request that is under way.
#[derive(Debug)]
pub(super) struct Sending<'a> {
    pace: &'a Pace,
    /// It has made way.
    slow: bool,
}

impl Pace {
    pub(super) fn new(least: usize, most: usize, retry: RetryConfig, gauge: Gauge) -> Self {
        let first = FIRST.clamp(least, most) as f64;
        gauge.set(first);
        Self {
            gauge,
            least,
            most,
            retry,
            state: Mutex::new(State {
                limit: first,
                permits: 0,
                sending: 0,
                slow: 0,
                needed: Instant::now(),
                until: None,
                backoff: None,
                last: None,
                in_a_row: 0,
                tenants: HashMap::default(),
            }),
            changed: Notify::new(),
        }
    }

    /// No invariant spans a panic here: every change to the state is complete.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more may send.
    pub(super) async fn permit(&self) -> Permit<'_> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let until = {
                let mut state = self.state();
                let now = Instant::now();
                state.until = state.until.filter(|until| *until > now);
                if state.until.is_none() && state.permits < self.allowed(&state) {
                    state.permits += 1;
                    return Permit(self);
                }
                state.until
            };
            tokio::select! {
                () = changed => {}
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
            }
        }
    }

    /// How many may send.
    fn allowed(&self, state: &State) -> usize {
        (state.limit as usize + state.slow).min(self.most)
    }

    /// A request of this tenant was answered, and not because it failed.
    pub(super) fn succeeded(&self, tenant: Option<&Tenant>) {
        let mut state = self.state();
        let now = Instant::now();
        let limit = state.limit as usize;
        if state.sending >= limit {
            state.needed = now;
            if limit < self.most {
                let grown = state.limit + 1.0 / state.limit;
                state.limit = grown.min(self.most as f64);
            }
        } else if limit > self.least && now > state.needed + IDLE {
            state.needed = now;
            state.limit = (limit - 1) as f64;
        }
        if !state.tenants.is_empty() {
            state.tenants.remove(&tenant.cloned());
        }
        (state.last, state.in_a_row) = (None, 0);
        state.backoff = None;
        let waited = state.until.take().is_some();
        let now_limit = state.limit as usize;
        drop(state);
        if now_limit != limit {
            self.gauge.set(now_limit as f64);
        }
        let grown = now_limit > limit;
        if waited || grown {
            self.changed.notify_waiters();
        }
    }

    /// A request of this tenant has failed, and the endpoint may have said when to come again.
    /// Returns whom that concerns.
    pub(super) fn failed(
        &self,
        tenant: Option<&Tenant>,
        failure: Failure,
        after: Option<Duration>,
    ) -> Trouble {
        let mut state = self.state();
        let tenant = tenant.cloned();
        let general = match failure {
            Failure::TooMuch => false,
            Failure::Unreachable => true,
            Failure::Broken => {
                // Nobody has had an answer since this one has failed before.
                let again = state.last.as_ref() == Some(&tenant);
                if !again {
                    state.in_a_row += 1;
                    state.last = Some(tenant.clone());
                }
                again || state.in_a_row >= TENANTS_IN_A_ROW
            }
        };
        let now = Instant::now();
        if general {
            state.limit = (state.limit / 2.0).max(self.least as f64);
            self.gauge.set(state.limit.floor());
        }
        let retry = self.retry;
        let fresh = || Backoff::new(retry.min_backoff.0, retry.max_backoff.0);
        let unreachable = failure == Failure::Unreachable;
        let everybody = general && (unreachable || state.in_a_row >= TENANTS_IN_A_ROW);
        // Those that were under way together fail together: that is one failure.
        if everybody && state.until.is_none_or(|until| until <= now) {
            // After errors no longer than that: one who does well may be behind many who do not.
            let pause = match unreachable {
                true => state.backoff.get_or_insert_with(fresh).next_pause(),
                false => retry.min_backoff.0,
            };
            state.until = Some(now + pause);
        }
        let tenant = (!unreachable).then(|| {
            let pause = state.pause_of(tenant, now, retry);
            now + after.unwrap_or(pause)
        });
        Trouble { everybody, tenant }
    }
}

impl State {
    /// How long to leave a tenant alone who has failed once more.
    fn pause_of(&mut self, tenant: Option<Tenant>, now: Instant, retry: RetryConfig) -> Duration {
        if self.tenants.len() >= TENANTS_MAX && !self.tenants.contains_key(&tenant) {
            self.tenants.retain(|_, (_, until)| *until > now);
            if self.tenants.len() >= TENANTS_MAX {
                return retry.max_backoff.0;
            }
        }
        let (backoff, until) = self.tenants.entry(tenant).or_insert_with(|| {
            let backoff = Backoff::new(retry.min_backoff.0, retry.max_backoff.0);
            (backoff, now)
        });
        let pause = backoff.next_pause();
        *until = now + pause;
        pause
    }
}

impl<'a> Permit<'a> {
    /// Whether it holds for another request: handing it to somebody else who waits would only cost
    /// a change of tasks.
    pub(super) fn holds(&self) -> bool {
        let state = self.0.state();
        let paused = state.until.is_some_and(|until| until > Instant::now());
        !paused && state.permits <= self.0.allowed(&state)
    }

    /// A request begins.
    pub(super) fn sending(&self) -> Sending<'a> {
        self.0.state().sending += 1;
        let (pace, slow) = (self.0, false);
        Sending { pace, slow }
    }
}

impl Sending<'_> {
    /// Waits for its answer.
    pub(super) async fn wait_for<T>(&mut self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        if let Ok(answer) = timeout(PATIENCE, &mut answer).await {
            return answer;
        }
        self.make_way();
        answer.await
    }

    fn make_way(&mut self) {
        self.slow = true;
        let mut state = self.pace.state();
        state.sending -= 1;
        state.slow += 1;
        drop(state);
        self.pace.changed.notify_one();
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.state().permits -= 1;
        self.0.changed.notify_one();
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let mut state = self.pace.state();
        match self.slow {
            true => state.slow -= 1,
            false => state.sending -= 1,
        }
    }
}

#[cfg(test)]
mod tests;
