//! The gate of the process: admits callers by the currently configured tenants.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderName;
use tokio::time::Instant;

use metrifold_http::access::{Access, Admission, Doors, Head, Pass, Wanted};
use metrifold_http::{Handler, Refusal};
use metrifold_limits::{Check, Limit, OverCounts};
use metrifold_model::{Caller, Rejection, RejectionKind};

use crate::pages::Pages;
use crate::shown::Shown;
use crate::tenants::Tenants;

/// Admits callers by the currently configured tenants. Clones share them.
#[derive(Clone, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Default)]
struct Inner {
    tenants: ArcSwap<Tenants>,
    /// Number of times that tenants exceeded each limit.
    over: Arc<OverCounts>,
    /// Minute of the last trim, counted from `started`.
    trimmed: AtomicU64,
    started: OnceLock<Instant>,
}

/// Interval at which the state of idle tenants is released.
const TRIM: Duration = Duration::from_secs(60);

impl Gate {
    /// A gate without tenants: it rejects everybody.
    pub fn new() -> Self {
        Self::default()
    }

    /// A gate without tenants. It reports what exceeds a limit to `tell`, which updates a metric.
    pub fn counting(tell: impl Fn(Limit, u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            over: Arc::new(OverCounts::told_to(tell)),
            ..Inner::default()
        }))
    }

    /// The tenants that are configured at the moment.
    pub fn tenants(&self) -> Arc<Tenants> {
        self.0.tenants.load_full()
    }

    /// Whether any tenant has a limit that is checked on decoded batches.
    pub fn looks_inside(&self) -> bool {
        self.0.tenants.load().looks_inside()
    }

    /// Begins to check a batch that arrived at `now` against the limits of the caller's tenant; none if
    /// the tenant has no limits on batches.
    ///
    /// # Errors
    ///
    /// Fails with the answer to the caller when the tenant exceeds its rate.
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

    /// Replaces the tenants. Must be called within a tokio runtime: it spawns a task that fetches the
    /// keys of new issuers.
    pub fn set(&self, tenants: Arc<Tenants>) {
        self.0.tenants.store(Arc::clone(&tenants));
        tokio::spawn(tenants.warm_up());
    }

    /// Access to a route for callers that have the wanted permission.
    pub fn access(&self, wanted: Wanted) -> Arc<dyn Access> {
        Arc::new(Door {
            gate: self.clone(),
            wanted,
            logs_in: false,
        })
    }

    /// Like [`Gate::access`], but redirects unauthenticated browsers to the login page.
    pub fn access_or_login(&self, wanted: Wanted) -> Arc<dyn Access> {
        Arc::new(Door {
            gate: self.clone(),
            wanted,
            logs_in: true,
        })
    }

    /// The login and logout pages, for the route [`LOGIN_PATH`].
    pub fn login_pages(&self) -> Arc<dyn Handler> {
        let gate = self.clone();
        Arc::new(Pages::new(move || gate.tenants()))
    }
}

/// Route of the login and logout pages.
pub const LOGIN_PATH: &str = "/oidc/{tenant}/{action}";

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
    /// Whether unauthenticated browsers are redirected to the login page.
    logs_in: bool,
}

impl Access for Door {
    fn admit<'a>(&'a self, head: Head<'a>) -> Admission<'a> {
        Box::pin(async move {
            let tenants = self.gate.tenants();
            let permission = (self.wanted)(head.method);
            let decided = tenants.decide(&Shown::of(head), permission).await;
            decided.map_err(|mut refusal| {
                let unknown = refusal.rejection.kind == RejectionKind::Unauthenticated;
                if self.logs_in && unknown {
                    refusal.entrance = tenants.entrance(&head);
                }
                refusal
            })
        })
    }

    fn enter(&self, caller: &Caller, head: Head<'_>, length: Option<u64>) -> Result<Pass, Refusal> {
        let permission = (self.wanted)(head.method);
        let tenants = self.gate.tenants();
        let passes = tenants.enter(caller, permission, length, &self.gate.0.over)?;
        Ok(Some(Arc::new(passes)))
    }

    fn hidden(&self) -> Arc<[HeaderName]> {
        self.gate.tenants().hidden()
    }
}
