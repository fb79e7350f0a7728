//! Lanes that do not get on because the endpoint answers their next request with a server error, again
//! and again, while it takes what else there is of the same tenant.
//!
//! A server error says nothing of what was sent, so it costs nothing. But an endpoint that fails on one
//! series for ever would block that lane for ever, and the age would cost what waits behind it. After
//! `retry.isolate_after` the series is looked for, and given up only if the endpoint fails on it alone
//! and answers a *control* before and after: something of the same tenant that it has taken already.
//!
//! It takes memory for at most [`LANES_MAX`] lanes, and one small request for each tenant among them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use metrifold_model::{Counts, Tenant, Version};

use super::transport::Attempt;

/// Of so many lanes it is known since when they are stuck.
const LANES_MAX: usize = 10_000;
/// A request that is larger is no control.
const CONTROL_MAX: usize = 64 << 10;
/// Fewer server errors do not make a lane stuck, however far apart they are.
const ERRORS_MIN: u32 = 3;

/// The lanes of a sink that are stuck.
#[derive(Debug)]
pub(super) struct StuckLanes {
    /// After so long the series is looked for that the endpoint fails on; zero for never.
    after: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tenants: HashMap<Option<Tenant>, StuckTenant, foldhash::fast::RandomState>,
    /// How many lanes they have.
    lanes: usize,
    /// What the endpoint took last, and whose it is, if it is small.
    last: Option<(Option<Tenant>, Control)>,
}

#[derive(Debug, Default)]
struct StuckTenant {
    lanes: HashMap<u64, Errors>,
    /// What the endpoint took of the tenant last.
    control: Option<Control>,
}

/// A request that the endpoint has taken, to be sent again as it was.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub(super) version: Version,
    pub(super) counts: Option<Counts>,
    pub(super) body: Vec<Bytes>,
}

/// The server errors that a lane has met since something of it went through.
#[derive(Clone, Copy, Debug)]
struct Errors {
    since: Instant,
    count: u32,
}

impl Control {
    pub(super) fn of(request: &Attempt<'_>) -> Self {
        Self {
            version: request.version,
            counts: request.counts,
            body: request.body.clone(),
        }
    }
}

impl StuckLanes {
    pub(super) fn new(after: Duration) -> Self {
        Self {
            after,
            state: Mutex::default(),
        }
    }

    /// No invariant spans a panic here: every change to the state is complete.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a server error. Returns whether it is time to look for what the endpoint fails on.
    pub(super) fn failed(&self, tenant: Option<&Tenant>, lane: u64) -> bool {
        if self.after.is_zero() {
            return false;
        }
        let mut state = self.state();
        let State {
            tenants,
            lanes,
            last,
        } = &mut *state;
        let known = tenants.get(&tenant.cloned());
        let known = known.is_some_and(|of| of.lanes.contains_key(&lane));
        if !known && *lanes >= LANES_MAX {
            return false;
        }
        let of = tenants.entry(tenant.cloned()).or_insert_with(|| {
            let own = last.as_ref().filter(|(of, _)| of.as_ref() == tenant);
            StuckTenant {
                control: own.map(|(_, control)| control.clone()),
                ..StuckTenant::default()
            }
        });
        let now = Instant::now();
        let errors = of.lanes.entry(lane).or_insert_with(|| {
            *lanes += 1;
            let (since, count) = (now, 0);
            Errors { since, count }
        });
        errors.count = errors.count.saturating_add(1);
        errors.count >= ERRORS_MIN && now >= errors.since + self.after
    }

    /// Notes that the endpoint has taken something of a lane.
    pub(super) fn went_through(&self, tenant: Option<&Tenant>, lane: u64, request: Control) {
        if self.after.is_zero() {
            return;
        }
        let bytes: usize = request.body.iter().map(Bytes::len).sum();
        let mut state = self.state();
        state.over(tenant, lane);
        if bytes > CONTROL_MAX {
            return;
        }
        if !state.tenants.is_empty()
            && let Some(of) = state.tenants.get_mut(&tenant.cloned())
        {
            of.control = Some(request.clone());
        }
        state.last = Some((tenant.cloned(), request));
    }

    /// Notes that the endpoint fails on other things as well: the lane has as long again.
    pub(super) fn postpone(&self, tenant: Option<&Tenant>, lane: u64) {
        let mut state = self.state();
        let of = state.tenants.get_mut(&tenant.cloned());
        if let Some(errors) = of.and_then(|of| of.lanes.get_mut(&lane)) {
            errors.since = Instant::now();
        }
    }

    /// Forgets a lane whose batch is over.
    pub(super) fn over(&self, tenant: Option<&Tenant>, lane: u64) {
        self.state().over(tenant, lane);
    }

    /// Something of the tenant that the endpoint has taken.
    pub(super) fn control(&self, tenant: Option<&Tenant>) -> Option<Control> {
        let state = self.state();
        state.tenants.get(&tenant.cloned())?.control.clone()
    }
}

impl State {
    fn over(&mut self, tenant: Option<&Tenant>, lane: u64) {
        if self.tenants.is_empty() {
            return;
        }
        let tenant = tenant.cloned();
        if let Some(of) = self.tenants.get_mut(&tenant) {
            self.lanes -= usize::from(of.lanes.remove(&lane).is_some());
            if of.lanes.is_empty() {
                self.tenants.remove(&tenant);
            }
        }
    }
}
