//! Resource usage of instances.

use std::collections::HashSet;

use tokio::time::Instant;
use tracing::debug;

use crate::foundation::Foundation;
use crate::resources::{Instance, Stats};

use super::Reader;

impl Reader {
    /// Measures the usage of instances, processes with the oldest attempt first.
    pub(crate) async fn measure(&mut self, foundation: &Foundation) {
        let (Some(usages), Some(interval)) = (self.usages.clone(), self.stats_interval) else {
            return;
        };
        let taken = foundation.metadata.taken();
        let processes = taken.flat_map(|app| foundation.of_app(&app.guid));
        let running = processes.filter(|it| it.instances.iter().any(Instance::runs));
        let processes: HashSet<&str> = running.map(|it| it.guid.as_str()).collect();
        if processes.is_empty() {
            // The instances may be those known so far: see `tell`.
            return;
        }
        let measured = usages.retain(&processes);
        self.unmeasured
            .retain(|process, _| processes.contains(process.as_str()));
        let mut due: Vec<(Option<Instant>, &str)> = processes
            .into_iter()
            .map(|process| {
                let tried = self.unmeasured.get(process).copied();
                (measured.get(process).copied().max(tried), process)
            })
            .filter(|(at, _)| at.is_none_or(|at| at.elapsed() >= interval))
            .collect();
        due.sort_unstable();
        for (_, process) in due.into_iter().take(self.stats_left()) {
            if !self.api.pace.blocked().is_zero() {
                return;
            }
            let path = format!("/v3/processes/{process}/stats");
            match self.api.one::<Stats>(&path).await {
                Ok(stats) => {
                    self.unmeasured.remove(process);
                    usages.put(process, stats.resources);
                }
                Err(error) => {
                    self.unmeasured.insert(process.to_owned(), Instant::now());
                    debug!(%error, "cannot read the resource usage of instances");
                    if error.is_general() {
                        return;
                    }
                }
            }
        }
    }
}
