//! The gate of the process: who is let in by the tenants that are configured at the moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderName;
use tokio::time::Instant;

use metrifold_http::Refusal;
use metrifold_http::access::{Access, Admission, Doors, Head, Pass, Wanted};
use metrifold_limits::{Check, Limit, OverCounts};
use metrifold_model::{Caller, Rejection};

use crate::shown::Shown;
use crate::tenants::Tenants;

/// Lets callers in by the tenants that are configured at the moment. A clone is a handle to the same.
#[derive(Clone, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Default)]
struct Inner {
    tenants: ArcSwap<Tenants>,
    /// How often tenants were over which limit.
    over: Arc<OverCounts>,
    /// In which minute it was looked last which tenants send nothing any more.
    trimmed: AtomicU64,
    started: OnceLock<Instant>,
}

/// How often it is looked which tenants send nothing any more.
const TRIM: Duration = Duration::from_secs(60);

impl Gate {
    /// A gate that lets nobody in yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A gate that lets nobody in yet, and counts in a metric what is over a limit.
    pub fn counting(tell: impl Fn(Limit, u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            over: Arc::new(OverCounts::told_to(tell)),
            ..Inner::default()
        }))
    }

    /// The tenants by which it decides.
    pub fn tenants(&self) -> Arc<Tenants> {
        self.0.tenants.load_full()
    }

    /// Whether a tenant has limits that look into batches.
    pub fn looks_inside(&self) -> bool {
        self.0.tenants.load().looks_inside()
    }

    /// Begins to hold a batch that came at `now` to the limits of its caller's tenant; none if nothing
    /// of it is limited.
    ///
    /// # Errors
    ///
    /// Fails with the answer when the tenant is over its rate.
    pub fn check(&self, caller: &Caller, now: Instant) -> Result<Option<Check>, Rejection> {
        let tenants = self.0.tenants.load();
        self.trim(&tenants, now);
        tenants.hold(caller, &self.0.over, now)
    }

    fn trim(&self, tenants: &Tenants, now: Instant) {
        let started = *self.0.started.get_or_init(|| now);
        let minute = now.saturating_duration_since(started).as_secs() / TRIM.as_secs();
        let order = Ordering::Relaxed;
        let before = self.0.trimmed.load(order);
        let due = before < minute;
        if due
            && (self
                .0
                .trimmed
                .compare_exchange(before, minute, order, order))
            .is_ok()
        {
            tenants.trim(now);
        }
    }

    /// Decides by these tenants from now on. Must be called inside of a tokio runtime: issuers of which
    /// nothing is known are asked for their keys.
    pub fn set(&self, tenants: Arc<Tenants>) {
        self.0.tenants.store(Arc::clone(&tenants));
        tokio::spawn(tenants.warm_up());
    }

    /// Lets those in who may do what a request wants.
    pub fn access(&self, wanted: Wanted) -> Arc<dyn Access> {
        Arc::new(Door {
            gate: self.clone(),
            wanted,
        })
    }
}

impl Doors for Gate {
    fn tenants(&self, wanted: Wanted) -> Arc<dyn Access> {
        self.access(wanted)
    }
}

impl PartialEq for Gate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Gate {}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

struct Door {
    gate: Gate,
    wanted: Wanted,
}

impl Access for Door {
    fn admit<'a>(&'a self, head: Head<'a>) -> Admission<'a> {
        Box::pin(async move {
            let tenants = self.gate.tenants();
            let permission = (self.wanted)(head.method);
            tenants.decide(&Shown::of(head), permission).await
        })
    }

    fn enter(&self, caller: &Caller, head: Head<'_>) -> Result<Pass, Refusal> {
        let permission = (self.wanted)(head.method);
        let tenants = self.gate.tenants();
        let passes = tenants.enter(caller, permission, head.headers, &self.gate.0.over)?;
        Ok(Some(Arc::new(passes)))
    }

    fn hidden(&self) -> Arc<[HeaderName]> {
        self.gate.tenants().hidden()
    }
}
