//! The plane of rules: a source publishes the complete rules of all its tenants, again whenever they
//! change; a sink always sees the newest, never a part of a change.
//!
//! This is state, not a stream: nothing queues, and who is slow misses what was there in between.
//! An update costs what changed: a [`RuleSet`] is a persistent map, and transforms run on the
//! tenants alone that differ from the set before.

mod edge;
mod plane;
mod reports;
mod stage;

use std::fmt::Debug;
use std::sync::Arc;

use metrifold_model::Rejection;
use metrifold_model::Tenant;
use metrifold_rules::TenantRules;

pub use edge::{Conflict, Edge, Input, View};
pub use metrifold_rules::RuleSet;
pub use plane::Rules;
pub use reports::{GroupReport, GroupState, Report, Reports};
pub use stage::{Output, Stage};

/// A transform of rules: synchronous, without I/O, one tenant at a time.
pub trait Transform: Debug + Send + Sync {
    /// Makes of a tenant's rules what goes on.
    ///
    /// # Errors
    ///
    /// Fails when they cannot go on; what went on of the tenant's before stays then, and other
    /// tenants are not concerned.
    fn apply(
        &self,
        tenant: &Tenant,
        rules: &Arc<TenantRules>,
    ) -> Result<Arc<TenantRules>, Rejection>;
}

#[cfg(test)]
mod tests;
