//! Tells the operator of tenants whose rules come from several sources that contradict each other.

use std::collections::BTreeMap;

use tracing::{error, info};

use metrifold_engine::planes::rules::{Conflict, Joined};
use metrifold_model::Tenant;
use metrifold_telemetry::ComponentMetrics;

/// The conflicts of a sink that were told: each is told once, until it ends.
#[derive(Debug, Default)]
pub(crate) struct Conflicts(BTreeMap<Tenant, Conflict>);

impl Conflicts {
    /// Logs and counts the conflicts that are new, and logs those that have ended.
    pub(crate) fn tell(&mut self, sink: &str, metrics: &ComponentMetrics, joined: &Joined) {
        for (tenant, conflict) in &joined.conflicts {
            // Changes on one of the sides are no news.
            let known = self.0.get(tenant);
            if known.is_none_or(|known| known.file != conflict.file) {
                metrics.error("conflict", conflict);
                error!(sink, %conflict, "the rules of a tenant were not delivered: its previous ones stay, and all other tenants go on");
            }
        }
        let ended = self.0.keys();
        for tenant in ended.filter(|tenant| !joined.conflicts.contains_key(*tenant)) {
            info!(sink, %tenant, "the sources of a tenant's rules agree again");
        }
        self.0.clone_from(&joined.conflicts);
    }
}
