//! The pace of a sink: how many requests are in flight, and which tenants pause after a failure.
//!
//! The number of connections adapts between bounds: it grows by one with every round of answers as
//! long as all are busy, halves when the endpoint fails, and shrinks while fewer are needed (additive
//! increase, multiplicative decrease, as in TCP's congestion avoidance, RFC 5681 section 3.1).
//!
//! A failure first counts against its tenant, whose batches pause; other tenants go on. It counts
//! against the endpoint if that cannot be reached, or if requests have failed for several tenants in
//! a row: then all tenants pause for a moment. A request that gets no answer soon lets another one be
//! sent beside it, so that no tenant waits for the answer of another.
//!
//! Tenants that the endpoint refuses share `refusals_per_second`: the more of them there are, the
//! longer each of them pauses.

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

use super::transport::Failure;

/// Settings of retries.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Pause after the first failure.
    pub min_backoff: Duration,
    /// The longest pause.
    pub max_backoff: Duration,
    /// Age at which a batch in memory is dropped.
    pub max_age: Duration,
    /// The most requests per second that the endpoint refuses, over all tenants and on average.
    /// Without such a bound, 1,500 tenants over their limits, each of which pauses for at most 5 s,
    /// would cause 400 requests a second for ever.
    pub refusals_per_second: u32,
}

/// Number of different tenants in a row with server errors that count as a failure of the endpoint.
const TENANTS_IN_A_ROW: usize = 16;
/// Time without an answer after which a request does not count as in flight.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time without need for all connections after which one is removed.
const IDLE: Duration = Duration::from_secs(10);
/// The most tenants whose failures are tracked.
const TENANTS_MAX: usize = 10_000;
/// Number of connections at the start, within the bounds.
const FIRST: usize = 4;
/// The longest additional pause of a tenant, however many tenants share the bound.
const LONGEST_TURN: Duration = Duration::from_secs(300);

/// Paces the requests of a sink.
#[derive(Debug)]
pub(super) struct Pace {
    least: usize,
    most: usize,
    retry: Retry,
    state: Mutex<State>,
    changed: Notify,
    /// Metric of the present limit.
    gauge: Gauge,
}

#[derive(Debug)]
struct State {
    /// The most requests in flight. Fractions accumulate the growth.
    limit: f64,
    /// Permits that are handed out, whether or not their holders have something to send.
    permits: usize,
    /// Requests in flight, without the slow ones; `slow` counts those.
    sending: usize,
    slow: usize,
    /// Time at which all connections were last busy, or the last one was removed.
    needed: Instant,
    /// Time before which no request is sent, for any tenant.
    until: Option<Instant>,
    /// Pauses of the endpoint, while it cannot be reached.
    backoff: Option<Backoff>,
    /// Tenant of the last server error, and the number of different tenants in a row.
    last: Option<Option<Tenant>>,
    in_a_row: usize,
    /// Time since which no endpoint could be reached.
    unreached: Option<Instant>,
    /// Time at which all refusals so far are over, if they are [`Retry::between`] apart.
    next_no: Instant,
    /// Tenants whose last request failed.
    tenants: HashMap<Option<Tenant>, Failing, foldhash::fast::RandomState>,
}

/// A tenant whose last request failed.
#[derive(Debug)]
struct Failing {
    backoff: Backoff,
    /// Time before which no request of the tenant is sent.
    until: Instant,
    /// Time since which requests of the tenant have failed; `None` if the endpoint only asks for
    /// fewer.
    broken: Option<Instant>,
}

/// The end of a failure: the endpoint has answered again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recovery {
    /// The tenant that had failed; `None` if all had.
    pub(super) tenant: Option<Tenant>,
    /// Duration of the failure.
    pub(super) after: Duration,
}

/// Permission to send one request at a time.
#[derive(Debug)]
pub(super) struct Permit<'a>(&'a Pace);

/// A request in flight.
#[derive(Debug)]
pub(super) struct Sending<'a> {
    pace: &'a Pace,
    /// Whether the request is so slow that another one is sent beside it.
    slow: bool,
}

impl Retry {
    /// Average time between refusals.
    fn between(self) -> Duration {
        Duration::from_secs(1) / self.refusals_per_second
    }
}

impl Pace {
    pub(super) fn new(least: usize, most: usize, retry: Retry, gauge: Gauge) -> Self {
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
                unreached: None,
                next_no: Instant::now(),
                tenants: HashMap::default(),
            }),
            changed: Notify::new(),
        }
    }

    /// Locks the state. A poisoned lock is used on: every change is complete, so no invariant spans a
    /// panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a permit.
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

    /// The number of permits that may be handed out.
    fn allowed(&self, state: &State) -> usize {
        (state.limit as usize + state.slow).min(self.most)
    }

    /// Reports an answer to a request of this tenant. Returns the failure that ends with it.
    pub(super) fn succeeded(&self, tenant: Option<&Tenant>) -> Option<Recovery> {
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
        let recovery = state.recover(tenant, now);
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
        recovery
    }

    /// Reports a failed request of this tenant, with the pause that the endpoint asked for. Returns
    /// the batches that pause.
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
            Failure::Broken | Failure::ServerError => {
                // There was no answer between this tenant's last failure and this one.
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
        let fresh = || Backoff::new(retry.min_backoff, retry.max_backoff);
        let unreachable = failure == Failure::Unreachable;
        if unreachable {
            state.unreached.get_or_insert(now);
        }
        let everybody = general && (unreachable || state.in_a_row >= TENANTS_IN_A_ROW);
        // Requests that were in flight together fail together, which counts as one failure.
        if everybody && state.until.is_none_or(|until| until <= now) {
            // The pause after errors does not grow: a working tenant may be behind many that fail.
            let pause = match unreachable {
                true => state.backoff.get_or_insert_with(fresh).next_pause(),
                false => retry.min_backoff.max(retry.between()),
            };
            state.until = Some(now + pause);
        }
        let tenant = (!unreachable).then(|| state.pause_of(tenant, now, failure, after, retry));
        Trouble { everybody, tenant }
    }
}

impl State {
    /// The end of the pause of a tenant that has failed once more.
    fn pause_of(
        &mut self,
        tenant: Option<Tenant>,
        now: Instant,
        failure: Failure,
        after: Option<Duration>,
        retry: Retry,
    ) -> Instant {
        let turn = self.turn(now, retry);
        if self.tenants.len() >= TENANTS_MAX && !self.tenants.contains_key(&tenant) {
            self.tenants.retain(|_, failing| failing.until > now);
            if self.tenants.len() >= TENANTS_MAX {
                return now + after.unwrap_or(retry.max_backoff) + turn;
            }
        }
        let failing = self.tenants.entry(tenant).or_insert_with(|| Failing {
            backoff: Backoff::new(retry.min_backoff, retry.max_backoff),
            until: now,
            broken: None,
        });
        if failure != Failure::TooMuch {
            failing.broken.get_or_insert(now);
        }
        let pause = failing.backoff.next_pause();
        let until = now + after.unwrap_or(pause);
        // Requests of one tenant that were in flight together count as one failure.
        failing.until = match failing.until > now {
            true => failing.until.max(until),
            false => until + turn,
        };
        failing.until
    }

    /// The pause until the refusals that are booked before this one are over. One second's worth of
    /// refusals may come at once.
    fn turn(&mut self, now: Instant, retry: Retry) -> Duration {
        let booked = self.next_no.saturating_duration_since(now);
        let turn = booked.saturating_sub(Duration::from_secs(1));
        if turn >= LONGEST_TURN {
            return LONGEST_TURN;
        }
        self.next_no = now + booked + retry.between();
        turn
    }

    /// Ends the failure that an answer to this tenant disproves: the tenant's or the endpoint's.
    fn recover(&mut self, tenant: Option<&Tenant>, now: Instant) -> Option<Recovery> {
        let failing = match self.tenants.is_empty() {
            true => None,
            false => self.tenants.remove(&tenant.cloned()),
        };
        let broken = failing.and_then(|failing| failing.broken);
        let everybody = self.in_a_row >= TENANTS_IN_A_ROW;
        if everybody {
            // The recovery of the other tenants is not reported separately.
            for failing in self.tenants.values_mut() {
                failing.broken = None;
            }
        }
        let unreached = self.unreached.take();
        let since = unreached.or(broken)?;
        Some(Recovery {
            tenant: tenant
                .filter(|_| unreached.is_none() && !everybody)
                .cloned(),
            after: now - since,
        })
    }
}

impl<'a> Permit<'a> {
    /// Whether the permit is valid for another request. Passing it on to another task instead would
    /// only cost a switch of tasks.
    pub(super) fn holds(&self) -> bool {
        let state = self.0.state();
        let paused = state.until.is_some_and(|until| until > Instant::now());
        !paused && state.permits <= self.0.allowed(&state)
    }

    /// Begins a request.
    pub(super) fn sending(&self) -> Sending<'a> {
        self.0.state().sending += 1;
        let (pace, slow) = (self.0, false);
        Sending { pace, slow }
    }
}

impl Sending<'_> {
    /// Waits for the answer of the request.
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
