//! The current state of a foundation: its applications, and the processes that run them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::metadata::Metadata;
use crate::resources::{Instance, Measured, Process};

/// Current state of a foundation.
pub(crate) struct Foundation {
    pub(crate) metadata: Arc<Metadata>,
    /// Processes by application.
    processes: HashMap<String, Vec<Running>>,
}

/// A process and its instances.
pub(crate) struct Running {
    pub(crate) app: String,
    pub(crate) guid: String,
    pub(crate) process_type: String,
    pub(crate) created_at: String,
    pub(crate) revision: Option<String>,
    /// The instances. The state of an instance is empty while unknown.
    pub(crate) instances: Vec<Instance>,
}

impl Instance {
    /// The instance of a measurement.
    pub(crate) fn of(measured: &Measured) -> Self {
        Self {
            index: measured.index,
            state: measured.state.clone(),
        }
    }

    /// Whether it takes requests; an unknown state counts as running.
    pub(crate) fn runs(&self) -> bool {
        self.state == "RUNNING" || self.state.is_empty()
    }
}

impl Running {
    pub(crate) fn new(process: Process) -> Self {
        let relationships = process.relationships;
        let revision = relationships.revision.as_ref();
        Self {
            app: relationships.app.guid().to_owned(),
            revision: revision.map(|it| it.guid().to_owned()),
            guid: process.guid,
            process_type: process.r#type,
            created_at: process.created_at,
            instances: process.process_instances.unwrap_or_default(),
        }
    }
}

impl Foundation {
    pub(crate) fn new(metadata: Arc<Metadata>, all: Vec<Running>) -> Self {
        let mut processes: HashMap<String, Vec<Running>> = HashMap::new();
        for process in all {
            processes
                .entry(process.app.clone())
                .or_default()
                .push(process);
        }
        for of_app in processes.values_mut() {
            of_app.sort_by(|a, b| (&a.created_at, &a.guid).cmp(&(&b.created_at, &b.guid)));
        }
        Self {
            metadata,
            processes,
        }
    }

    /// Whether no process at all was listed.
    pub(crate) fn has_no_processes(&self) -> bool {
        self.processes.is_empty()
    }

    /// All processes of an application, oldest first.
    pub(crate) fn of_app(&self, app: &str) -> &[Running] {
        self.processes.get(app).map_or(&[], Vec::as_slice)
    }

    /// The processes of a type, oldest first. There are several during a rolling deployment.
    pub(crate) fn processes(&self, app: &str, process_type: &str) -> Vec<&Running> {
        self.of_app(app)
            .iter()
            .filter(|it| it.process_type == process_type)
            .collect()
    }
}
