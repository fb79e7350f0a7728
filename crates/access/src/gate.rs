//! The gate of the process: who is let in by the tenants that are configured at the moment.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderName;

use metrifold_http::Refusal;
use metrifold_http::access::{Access, Admission, Doors, Head, Pass, Wanted};
use metrifold_model::Caller;

use crate::shown::Shown;
use crate::tenants::Tenants;

/// Lets callers in by the tenants that are configured at the moment. A clone is a handle to the same.
#[derive(Clone, Default)]
pub struct Gate(Arc<ArcSwap<Tenants>>);

impl Gate {
    /// A gate that lets nobody in yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tenants by which it decides.
    pub fn tenants(&self) -> Arc<Tenants> {
        self.0.load_full()
    }

    /// Decides by these tenants from now on. Must be called inside of a tokio runtime: issuers of which
    /// nothing is known are asked for their keys.
    pub fn set(&self, tenants: Arc<Tenants>) {
        self.0.store(Arc::clone(&tenants));
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
        let passes = self
            .gate
            .tenants()
            .enter(caller, permission, head.headers)?;
        Ok(Some(Arc::new(passes)))
    }

    fn hidden(&self) -> Arc<[HeaderName]> {
        self.gate.tenants().hidden()
    }
}
