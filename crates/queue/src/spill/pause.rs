//! What a failed attempt does to what is queued: of everybody, or of a tenant.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use metrifold_model::Tenant;

use super::{Spill, key};
use crate::Lane;

impl Spill {
    /// Whether attempts to deliver fail, whoever's batch it is.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Notes that attempts fail, whoever's batch it is.
    pub fn set_failing(self: &Arc<Self>) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            self.spill_all();
        }
    }

    /// Pauses a tenant whose attempts fail: its batches leave memory, and come back after `until`.
    pub fn pause(self: &Arc<Self>, tenant: Option<&Tenant>, until: Instant) {
        let mut state = self.state();
        let name = key(&tenant.cloned());
        state.backlog.pause(&name, until);
        self.some_paused.store(true, Ordering::Relaxed);
        if self.keeps() {
            // What the disk does not take now, it takes when it is due.
            let _ = self.spill(&mut state, |it| it.batch.tenant() == tenant);
        }
        self.evict(&mut state, tenant);
        drop(state);
        self.readable.notify_one();
    }

    /// Notes that an attempt has succeeded.
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

    /// Whether what comes of a lane goes to disk at once.
    pub fn is_writing(&self, lane: &Lane) -> bool {
        let state = self.state();
        let fails = || self.is_failing() || state.backlog.is_paused(&lane.tenant);
        state.backlog.holds_back(lane) || (self.keeps() && fails())
    }
}
