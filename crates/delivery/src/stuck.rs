//! Stuck lanes: the endpoint answers their next request with a server error again and again, while it
//! accepts other requests of the same tenant.
//!
//! A server error says nothing about the content, so no batch is dropped for it. But an endpoint that
//! fails on one series for ever would block the lane for ever, and the batches behind it would become
//! too old. After `retry.isolate_after` the series is searched, and dropped only if the endpoint fails
//! on it alone and answers a *control* before and after: a request of the same tenant that it has
//! accepted already.
//!
//! Memory is bounded by [`LANES_MAX`] lanes, and one small request for each of their tenants.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use metrifold_model::{Counts, Tenant, Version};

use super::transport::Attempt;

/// The most lanes whose errors are tracked.
const LANES_MAX: usize = 10_000;
/// The most bytes of a control.
const CONTROL_MAX: usize = 64 << 10;
/// The fewest server errors that make a lane stuck, however far apart they are.
const ERRORS_MIN: u32 = 3;

/// The stuck lanes of a sink.
#[derive(Debug)]
pub(super) struct StuckLanes {
    /// Time after which the series at fault is searched; zero disables the search.
    after: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tenants: HashMap<Option<Tenant>, StuckTenant, foldhash::fast::RandomState>,
    /// Number of lanes of all tenants.
    lanes: usize,
    /// The last accepted request and its tenant, if the request is small.
    last: Option<(Option<Tenant>, Control)>,
}

#[derive(Debug, Default)]
struct StuckTenant {
    lanes: HashMap<u64, Errors>,
    /// The tenant's last accepted request.
    control: Option<Control>,
}

/// A request that the endpoint has accepted, kept to be sent again unchanged.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub(super) version: Version,
    pub(super) counts: Option<Counts>,
    pub(super) body: Vec<Bytes>,
}

/// Server errors of a lane since one of its requests was accepted.
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

    /// Locks the state. A poisoned lock is used on: every change is complete, so no invariant spans a
    /// panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a server error. Returns whether it is time to search for the series at fault.
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

    /// Notes that the endpoint has accepted a request of a lane.
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

    /// Restarts the lane's time, since the endpoint fails on other requests as well.
    pub(super) fn postpone(&self, tenant: Option<&Tenant>, lane: u64) {
        let mut state = self.state();
        let of = state.tenants.get_mut(&tenant.cloned());
        if let Some(errors) = of.and_then(|of| of.lanes.get_mut(&lane)) {
            errors.since = Instant::now();
        }
    }

    /// Removes a lane whose batch is settled.
    pub(super) fn over(&self, tenant: Option<&Tenant>, lane: u64) {
        self.state().over(tenant, lane);
    }

    /// A request of the tenant that the endpoint has accepted.
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
