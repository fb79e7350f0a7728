//! What a ruler has of what it was brought, and how it goes with that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use metrifold_base::locked;
use metrifold_engine::planes::rules::{GroupReport, GroupState, Report, Reports, RuleSet};
use metrifold_model::Tenant;
use metrifold_rules::Version;

use super::way::{Heard, Way};

/// What all rulers of a sink say.
#[derive(Clone)]
pub(super) struct Board {
    sink: Arc<str>,
    reports: Reports,
    rulers: Arc<Mutex<BTreeMap<Arc<str>, Report>>>,
}

impl Board {
    pub(super) fn new(sink: Arc<str>, reports: Reports) -> Self {
        Self {
            sink,
            reports,
            rulers: Arc::default(),
        }
    }

    /// Takes what one of them says. A tenant has one ruler, or two while it moves.
    pub(super) fn put(&self, ruler: &Arc<str>, report: Report) {
        let mut rulers = locked(&self.rulers);
        rulers.insert(ruler.clone(), report);
        let mut all = Report::new();
        for report in rulers.values() {
            for (tenant, groups) in report {
                all.entry(tenant.clone())
                    .or_default()
                    .extend(groups.iter().cloned());
            }
        }
        self.reports.put(&self.sink, all);
    }
}

/// The state of one ruler and of the groups that it has, as its rules API tells it.
pub(super) struct Statuses {
    ruler: Arc<str>,
    /// Since when the ruler has which version of a tenant's rules.
    since: HashMap<Tenant, (Version, u64)>,
    /// By tenant, file and group.
    said: HashMap<(String, String, String), Said>,
}

/// What a ruler says of a group that it has.
struct Said {
    last_evaluation: Option<String>,
    error: Option<String>,
}

impl Statuses {
    pub(super) fn new(ruler: Arc<str>) -> Self {
        Self {
            ruler,
            since: HashMap::new(),
            said: HashMap::new(),
        }
    }

    /// Notes what the ruler has from now on.
    pub(super) fn loaded(&mut self, good: Option<&RuleSet>) {
        let Some(good) = good else { return };
        let now = now();
        self.since.retain(|tenant, _| good.get(tenant).is_some());
        for (tenant, rules) in good.iter() {
            let version = rules.version();
            let known = self.since.entry(tenant.clone()).or_insert((version, now));
            if known.0 != version {
                *known = (version, now);
            }
        }
    }

    /// Takes what the ruler says it has.
    pub(super) fn take(&mut self, heard: Heard) {
        match &heard.asked {
            None => self.said.clear(),
            Some(asked) => {
                let asked: BTreeSet<&str> = asked.iter().map(|tenant| &**tenant).collect();
                self.said
                    .retain(|(tenant, ..), _| !asked.contains(&**tenant));
            }
        }
        for (tenant, file, group) in heard.groups {
            let mut rules = group.rules.into_iter();
            let error = rules.find_map(|rule| {
                let error = rule.last_error.filter(|error| !error.is_empty())?;
                Some(format!("{}: {error}", rule.name))
            });
            let said = Said {
                last_evaluation: group.last_evaluation,
                error,
            };
            self.said.insert((tenant, file, group.name), said);
        }
    }

    /// How it goes with each group of a set.
    pub(super) fn report(&self, wanted: &RuleSet, way: &Way) -> Report {
        let mut report = Report::new();
        for (tenant, rules) in wanted.iter() {
            let since = self.since.get(tenant).map(|(_, since)| *since);
            let groups = rules.files().flat_map(|(file, stored)| {
                stored.file().groups.iter().map(move |group| (file, group))
            });
            let groups = groups.map(|(file, group)| {
                let refused = way.refused().iter().find(|refused| {
                    refused.tenant == *tenant && refused.file == *file && refused.group == *group
                });
                let key = (tenant.to_string(), file.to_string(), group.name.clone());
                let said = self.said.get(&key);
                let (state, error) = match (refused, said) {
                    (Some(refused), _) => (GroupState::Refused, Some(refused.reason.clone())),
                    (None, Some(said)) => (GroupState::Loaded, said.error.clone()),
                    (None, None) => (GroupState::Pending, None),
                };
                GroupReport {
                    file: file.clone(),
                    group: group.name.clone(),
                    ruler: self.ruler.clone(),
                    state,
                    since: since.unwrap_or_default(),
                    last_evaluation: said.and_then(|said| said.last_evaluation.clone()),
                    error,
                }
            });
            report.insert(tenant.clone(), groups.collect());
        }
        report
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}
