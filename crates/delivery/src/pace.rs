//! How many requests are under way at once, and who is left alone after a failure.
//!
//! The number of connections adapts between bounds: it grows by one with every round of answers as
//! long as all of them are busy, halves when the endpoint is in trouble, and shrinks while fewer
//! are needed (additive increase, multiplicative decrease, as in TCP's congestion avoidance, RFC
//! 5681 section 3.1).
//!
//! A failure is at first that of its tenant, whose batches pause for a while; the others go on. It is
//! the endpoint's if it cannot be reached, or if requests have failed for one tenant after the other:
//! then everybody waits for a moment. A request that is not answered soon makes way for another one
//! beside it, so that nobody waits for somebody else's answer.
//!
//! Tenants of whom the endpoint says no share `refusals_per_second`: the more of them there are, the
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

/// When to try again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The pause after the first failure.
    pub min_backoff: Duration,
    /// The longest pause.
    pub max_backoff: Duration,
    /// The age at which a batch in memory is given up.
    pub max_age: Duration,
    /// Requests that an endpoint may say no to in a second, and so in each second after that, all
    /// tenants together. Without such a bound 1,500 tenants over their limits, each of whom pauses
    /// for at most 5 s, would be 400 requests a second for ever.
    pub refusals_per_second: u32,
}

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
/// However many tenants share that, none of them pauses longer for it.
const LONGEST_TURN: Duration = Duration::from_secs(300);

/// Paces the requests of a sink.
#[derive(Debug)]
pub(super) struct Pace {
    least: usize,
    most: usize,
    retry: Retry,
    state: Mutex<State>,
    changed: Notify,
    /// Shows the limit.
    gauge: Gauge,
}

#[derive(Debug)]
struct State {
    /// How many requests may be under way.
    limit: f64,
    /// Which tenants may send, whether they have something to send or not.
    permits: usize,
    /// Requests under way, but for those that have made way.
    sending: usize,
    slow: usize,
    /// When all connections were last busy, or one was given up because they were not.
    needed: Instant,
    /// No request is sent before this moment, whoever's it is.
    until: Option<Instant>,
    /// Of the endpoint, while it is in trouble.
    backoff: Option<Backoff>,
    /// Who was last refused with 5xx, and how many different tenants in a row were.
    last: Option<Option<Tenant>>,
    in_a_row: usize,
    /// Since when nobody could be reached.
    unreached: Option<Instant>,
    /// When all noes so far would be over, [`Retry::between`] apart.
    next_no: Instant,
    /// Tenants whose last request has failed.
    tenants: HashMap<Option<Tenant>, Failing, foldhash::fast::RandomState>,
}

/// A tenant whose last request has failed.
#[derive(Debug)]
struct Failing {
    backoff: Backoff,
    /// Nothing of his is sent before.
    until: Instant,
    /// Since when the endpoint has been failing for him; none if it only wants less of his.
    broken: Option<Instant>,
}

/// An endpoint has answered that had been in trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recovery {
    /// For whom, if it was not for everybody.
    pub(super) tenant: Option<Tenant>,
    /// How long it had been.
    pub(super) after: Duration,
}

/// The right to send one request at a time.
#[derive(Debug)]
pub(super) struct Permit<'a>(&'a Pace);

/// A request that is under way.
#[derive(Debug)]
pub(super) struct Sending<'a> {
    pace: &'a Pace,
    /// Whether the request has waited so long that another one is sent beside it.
    slow: bool,
}

impl Retry {
    /// How far apart refusals are in the long run.
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

    /// A request of this tenant was answered, and not because it failed. Returns which trouble is
    /// over by that.
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
            Failure::Broken | Failure::ServerError => {
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
        let fresh = || Backoff::new(retry.min_backoff, retry.max_backoff);
        let unreachable = failure == Failure::Unreachable;
        if unreachable {
            state.unreached.get_or_insert(now);
        }
        let everybody = general && (unreachable || state.in_a_row >= TENANTS_IN_A_ROW);
        // Those that were under way together fail together: that is one failure.
        if everybody && state.until.is_none_or(|until| until <= now) {
            // After errors no longer than that: one who does well may be behind many who do not.
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
    /// Until when a tenant's batches pause who has failed once more.
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
        // Requests of one tenant that were under way together count as one failure.
        failing.until = match failing.until > now {
            true => failing.until.max(until),
            false => until + turn,
        };
        failing.until
    }

    /// How long it takes until all have had their turn to be refused who are before this one. A
    /// second's worth of them are at liberty to come together.
    fn turn(&mut self, now: Instant, retry: Retry) -> Duration {
        let booked = self.next_no.saturating_duration_since(now);
        let turn = booked.saturating_sub(Duration::from_secs(1));
        if turn >= LONGEST_TURN {
            return LONGEST_TURN;
        }
        self.next_no = now + booked + retry.between();
        turn
    }

    /// What an answer to this tenant shows to be well again: the tenant, or the endpoint.
    fn recover(&mut self, tenant: Option<&Tenant>, now: Instant) -> Option<Recovery> {
        let failing = match self.tenants.is_empty() {
            true => None,
            false => self.tenants.remove(&tenant.cloned()),
        };
        let broken = failing.and_then(|failing| failing.broken);
        let everybody = self.in_a_row >= TENANTS_IN_A_ROW;
        if everybody {
            // That the others are well again is no news then.
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
