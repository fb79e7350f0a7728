//! Reports of rulers about the rules that they received, for the authors of the rules.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use serde::Serialize;

use metrifold_base::locked;
use metrifold_model::Tenant;
use metrifold_rules::{Group, StoredFile};

/// The reports of all rulers of the process: written by sinks, read by sources. A clone is a handle
/// to the same reports.
#[derive(Clone, Debug, Default)]
pub struct Reports(Arc<Mutex<BTreeMap<Arc<str>, Arc<Report>>>>);

/// The reports of a sink's rulers, by tenant.
pub type Report = HashMap<Tenant, Vec<GroupReport>>;

/// State of a rule group at a ruler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupReport {
    /// File that contains the group.
    pub file: Arc<str>,
    /// Name of the group.
    pub group: String,
    /// The rules of the file for which the report holds, as the sink has received them.
    #[serde(skip)]
    pub rules: Arc<StoredFile>,
    /// Name of the ruler.
    pub ruler: Arc<str>,
    /// Whether the ruler has loaded the group.
    pub state: GroupState,
    /// Time of the last change of `state`, in milliseconds since 1970.
    pub since: u64,
    /// Time at which the ruler last reported this version of the group, in milliseconds since 1970;
    /// `None` if it never has. An old one means that the ruler does not answer.
    pub confirmed: Option<u64>,
    /// Time of the last evaluation, as text from the ruler.
    pub last_evaluation: Option<String>,
    /// Error of that evaluation, or the reason why the ruler has not loaded the group.
    pub error: Option<String>,
}

/// Whether a ruler has loaded a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupState {
    /// The ruler does not have this version of the group yet, or has not said so.
    Pending,
    /// The ruler has loaded the group.
    Loaded,
    /// The ruler refuses the group, or the tenant's sources contradict each other; the version that the
    /// ruler had before stays.
    Refused,
}

impl GroupReport {
    /// The reported group, as the sink has received it.
    pub fn content(&self) -> Option<&Group> {
        let mut groups = self.rules.file().groups.iter();
        groups.find(|group| group.name == self.group)
    }
}

impl Reports {
    /// Replaces the reports of a sink's rulers.
    pub fn put(&self, sink: &Arc<str>, report: Report) {
        locked(&self.0).insert(sink.clone(), Arc::new(report));
    }

    /// Removes the reports of a sink.
    pub fn remove(&self, sink: &str) {
        locked(&self.0).remove(sink);
    }

    /// Whether no sink has reported.
    pub fn is_empty(&self) -> bool {
        locked(&self.0).is_empty()
    }

    /// The reports on a tenant's groups, each with the sink of its ruler.
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
