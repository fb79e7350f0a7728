//! Processes and the states of their instances.

use std::collections::{BTreeSet, HashMap, HashSet};

use tokio::time::Instant;

use metrifold_discovery::{Failure, exchange::escape};

use crate::api::ApiError;
use crate::foundation::Running;
use crate::resources::{Instance, Process, Stats};

use super::scope::Scope;
use super::{Reader, still};

/// The instances of a process as they are known since the refresh in which they were requested.
pub(super) struct Heard {
    refresh: u64,
    desired: u32,
    instances: Vec<Instance>,
}

impl Reader {
    pub(super) async fn read_processes(&mut self, scope: &Scope) -> Result<Vec<Running>, ApiError> {
        let types: BTreeSet<_> = self.selectors.iter().flat_map(|it| &it.processes).collect();
        let types: Vec<_> = types.into_iter().map(|it| escape(it)).collect();
        let types = format!("&types={}", types.join(","));
        let mut processes = Vec::new();
        for query in scope.queries() {
            let query = format!("{types}{query}");
            processes.extend(self.list_processes(&query).await?);
        }
        if processes.iter().any(|it| it.process_instances.is_none()) {
            self.ask_for_stats(&mut processes).await?;
        } else if !processes.is_empty() {
            self.heard.clear();
        }
        Ok(processes.into_iter().map(Running::new).collect())
    }

    async fn list_processes(&mut self, query: &str) -> Result<Vec<Process>, ApiError> {
        let path = "/v3/processes";
        if !still(self.no_embed) {
            let with = format!("&embed=process_instances{query}");
            match self.api.list(path, &with).await {
                Ok(list) => return Ok(list.resources),
                Err(error) if error.status == Some(400) => {}
                Err(error) => return Err(error),
            }
        }
        let list = self.api.list(path, query).await?;
        self.no_embed.get_or_insert_with(Instant::now);
        Ok(list.resources)
    }

    /// Requests instances where the platform does not list them with processes: at most `max_stats`
    /// requests per refresh and within the rate limit, for new and changed processes first, and then
    /// for the oldest answers. Other processes, and those whose instances cannot be read, keep the
    /// states known so far.
    async fn ask_for_stats(&mut self, processes: &mut [Process]) -> Result<(), ApiError> {
        let live: HashSet<&str> = processes.iter().map(|it| it.guid.as_str()).collect();
        self.heard.retain(|guid, _| live.contains(guid.as_str()));
        let mut order: Vec<usize> = (0..processes.len()).collect();
        order.retain(|at| processes[*at].process_instances.is_none());
        order.sort_by_key(|at| {
            let process = &processes[*at];
            let heard = self.heard.get(&process.guid);
            let same = heard.filter(|it| it.desired == process.instances);
            same.map_or(0, |it| it.refresh)
        });
        let mut failed = None;
        let mut failures = 0;
        for at in order.iter().take(self.stats_left()) {
            if !self.api.pace.blocked().is_zero() {
                break;
            }
            self.asked_for_stats += 1;
            let process = &processes[*at];
            let path = format!("/v3/processes/{}/stats", process.guid);
            let read = self.api.one::<Stats>(&path).await;
            let (instances, error) = match read {
                Ok(stats) => {
                    let states = stats.resources.iter().map(Instance::of);
                    let states = states.collect();
                    if let Some(usages) = &self.usages {
                        usages.put(&process.guid, stats.resources);
                    }
                    (states, None)
                }
                // The process has gone since the list was read.
                Err(error) if error.status == Some(404) => (Vec::new(), None),
                Err(error) => (known(&self.heard, process), Some(error)),
            };
            // Also after a failure: the next refresh begins with another process.
            let heard = Heard {
                refresh: self.refreshes,
                desired: process.instances,
                instances,
            };
            self.heard.insert(process.guid.clone(), heard);
            match error {
                Some(error) if error.is_general() => return Err(error),
                Some(error) => {
                    failures += 1;
                    failed.get_or_insert(error.failure);
                }
                None => {}
            }
        }
        self.states_failed = failed.map(|first| {
            let text = format!(
                "cannot read the states of instances, which stay as they are known, of {failures} processes: {first}"
            );
            Failure::new(first.reason, text)
        });
        for at in order {
            let process = &mut processes[at];
            process.process_instances = Some(known(&self.heard, process));
        }
        Ok(())
    }
}

/// The instances of a process as far as they are known: the desired ones, with an empty state where
/// none has been read.
fn known(heard: &HashMap<String, Heard>, process: &Process) -> Vec<Instance> {
    let heard = heard.get(&process.guid);
    if let Some(heard) = heard.filter(|it| it.desired == process.instances) {
        return heard.instances.clone();
    }
    let before = heard.map_or(&[][..], |it| it.instances.as_slice());
    let each = (0..process.instances).map(|index| {
        let before = before.iter().find(|it| it.index == index);
        let state = before.map(|it| it.state.clone()).unwrap_or_default();
        Instance { index, state }
    });
    each.collect()
}
