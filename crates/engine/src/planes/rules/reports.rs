//! What rulers say of the rules that they were given, for those who wrote them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use serde::Serialize;

use metrifold_base::locked;
use metrifold_model::Tenant;

/// What all rulers of the process say: written by sinks, read by sources. A clone is a handle to the
/// same.
#[derive(Clone, Debug, Default)]
pub struct Reports(Arc<Mutex<BTreeMap<Arc<str>, Arc<Report>>>>);

/// What the rulers of a sink say, by tenant.
pub type Report = HashMap<Tenant, Vec<GroupReport>>;

/// What a ruler says of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupReport {
    /// The file in which the group stands.
    pub file: Arc<str>,
    /// The group's name.
    pub group: String,
    /// The ruler.
    pub ruler: Arc<str>,
    /// Whether the ruler has it.
    pub state: GroupState,
    /// Since when that is so, in milliseconds since 1970.
    pub since: u64,
    /// When the ruler evaluated it last, as the ruler says.
    pub last_evaluation: Option<String>,
    /// What was wrong with that, or why the ruler does not have it.
    pub error: Option<String>,
}

/// Whether a ruler has a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupState {
    /// It was written for it, which has not said yet that it has it.
    Pending,
    /// It has it.
    Loaded,
    /// It does not take it; what it had of it before stays.
    Refused,
}

impl Reports {
    /// Takes what the rulers of a sink say in the place of what they said before.
    pub fn put(&self, sink: &Arc<str>, report: Report) {
        locked(&self.0).insert(sink.clone(), Arc::new(report));
    }

    /// Forgets a sink.
    pub fn remove(&self, sink: &str) {
        locked(&self.0).remove(sink);
    }

    /// What is said of a tenant's groups, with the sink whose ruler says it.
    pub fn of(&self, tenant: &str) -> Vec<(Arc<str>, GroupReport)> {
        let reports = locked(&self.0).clone();
        let mut found = Vec::new();
        for (sink, report) in reports {
            let groups = report.get(tenant).into_iter().flatten();
            found.extend(groups.map(|group| (sink.clone(), group.clone())));
        }
        found
    }
}
