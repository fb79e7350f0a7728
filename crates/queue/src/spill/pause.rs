//! The effect of failed attempts on queued batches, of all tenants or of one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use metrifold_model::Tenant;

use super::{Spill, key};
use crate::Lane;

impl Spill {
    /// Whether attempts fail for all tenants.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Notes that attempts fail for all tenants, and spills all batches.
    pub fn set_failing(self: &Arc<Self>) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            self.spill_all();
        }
    }

    /// Pauses a tenant whose attempts fail: its batches are evicted from memory, and replayed after
    /// `until`.
    pub fn pause(self: &Arc<Self>, tenant: Option<&Tenant>, until: Instant) {
        let mut state = self.state();
        let name = key(&tenant.cloned());
        state.backlog.pause(&name, until);
        self.some_paused.store(true, Ordering::Relaxed);
        if self.keeps() {
            // Batches that the disk refuses now are stored when they are due.
            let _ = self.spill(&mut state, |it| it.batch.tenant() == tenant);
        }
        self.evict(&mut state, tenant);
        drop(state);
        self.readable.notify_one();
    }

    /// Notes that an attempt has succeeded, which ends the failure and the tenant's pause.
    pub fn set_well(&self, tenant: Option<&Tenant>) {
        if self.is_failing() {
            self.failing.store(false, Ordering::Relaxed);
        }
        if self.some_paused.load(Ordering::Relaxed) {
            let mut state = self.state();
            state.backlog.resume(&key(&tenant.cloned()));
            let some = state.backlog.some_paused();
            self.some_paused.store(some, Ordering::Relaxed);
            drop(state);
            self.readable.notify_one();
        }
    }

    /// Whether new batches of a lane go to disk at once.
    pub fn is_writing(&self, lane: &Lane) -> bool {
        let state = self.state();
        let fails = || self.is_failing() || state.backlog.is_paused(&lane.tenant);
        state.backlog.holds_back(lane) || (self.keeps() && fails())
    }
}
