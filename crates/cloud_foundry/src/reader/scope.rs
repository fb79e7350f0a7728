//! Filter of the requests for routes and processes.

use std::collections::HashMap;

use crate::foundation::Running;
use crate::metadata::Metadata;
use crate::resources::Instance;

use super::GUIDS;

/// Up to this number of applications, requests for routes and processes name their GUIDs.
const FEW_APPS: usize = 200;

/// Filter of the requests for routes and processes.
#[derive(Clone)]
pub(super) enum Scope {
    /// No application can have targets.
    Nothing,
    Apps(Vec<String>),
    Organizations(Vec<String>),
    All,
}

impl Scope {
    /// The filter that suffices for the applications that selectors take.
    pub(super) fn of(metadata: &Metadata, organizations: Option<Vec<String>>) -> Self {
        let apps: Vec<_> = metadata.taken().map(|app| app.guid.clone()).collect();
        match (apps.len(), organizations) {
            (0, _) => Self::Nothing,
            (1..=FEW_APPS, _) => Self::Apps(apps),
            (_, Some(organizations)) => Self::Organizations(organizations),
            (_, None) => Self::All,
        }
    }

    /// Query parameters of each request that the filter takes.
    pub(super) fn queries(&self) -> Vec<String> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Apps(apps) => {
                let chunks = apps.chunks(GUIDS);
                chunks
                    .map(|guids| format!("&app_guids={}", guids.join(",")))
                    .collect()
            }
            Self::Organizations(guids) => {
                vec![format!("&organization_guids={}", guids.join(","))]
            }
            Self::All => vec![String::new()],
        }
    }
}

/// Whether the processes show applications that are new or were started since the metadata was
/// read.
pub(super) fn outdated(metadata: &Metadata, processes: &[Running], scope: &Scope) -> bool {
    if matches!(scope, Scope::Nothing | Scope::Apps(_)) {
        return false;
    }
    let known: HashMap<&str, bool> = metadata
        .apps
        .iter()
        .map(|app| (app.guid.as_str(), app.started))
        .collect();
    processes.iter().any(|process| {
        let runs = process.instances.iter().any(Instance::runs);
        known
            .get(process.app.as_str())
            .is_none_or(|started| !started && runs)
    })
}
