//! The plane of rules: a source publishes the complete rules of all its tenants, again whenever they
//! change; a sink always sees the newest, never a part of a change.
//!
//! Rule sets are state, not a stream: nothing queues, and a slow sink skips intermediate sets. An
//! update costs in proportion to its changes: a [`RuleSet`] is a persistent map, and transforms run
//! only on the tenants that differ from the previous set.

mod edge;
mod plane;
mod reports;
mod stage;

use std::fmt::Debug;
use std::sync::Arc;

use metrifold_model::Rejection;
use metrifold_model::Tenant;
use metrifold_rules::TenantRules;

pub use edge::{Conflict, Edge, Input, Joined, View};
pub use metrifold_rules::RuleSet;
pub use plane::Rules;
pub use reports::{GroupReport, GroupState, Report, Reports};
pub use stage::{Output, Stage};

/// A transform of rules: synchronous, without I/O, one tenant at a time.
pub trait Transform: Debug + Send + Sync {
    /// Transforms a tenant's rules.
    ///
    /// # Errors
    ///
    /// Fails when the rules are refused. The tenant's previous result stays in force, and other
    /// tenants are not affected.
    fn apply(
        &self,
        tenant: &Tenant,
        rules: &Arc<TenantRules>,
    ) -> Result<Arc<TenantRules>, Rejection>;
}

#[cfg(test)]
mod tests;
