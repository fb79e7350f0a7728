//! State of the delivered rules: which groups a ruler has loaded, and how their evaluation goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use metrifold_base::locked;
use metrifold_engine::planes::rules::{GroupReport, GroupState, Report, Reports, RuleSet};
use metrifold_model::Tenant;
use metrifold_rules::{Group, TenantRules};

use super::way::{Heard, Refused, Way};

/// The reports of all rulers of a sink, merged.
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

    /// Publishes the report of one ruler. A tenant has one ruler, or two while it moves.
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

/// The state of one ruler and of its groups, as its rules API reports it.
pub(super) struct Statuses {
    ruler: Arc<str>,
    /// The set that the ruler has accepted, and the time since when it has the rules of each tenant.
    good: RuleSet,
    since: HashMap<Tenant, u64>,
    /// States of groups by tenant, file and group.
    said: HashMap<(String, String, String), Said>,
}

/// A group's state as the ruler reports it.
struct Said {
    last_evaluation: Option<String>,
    error: Option<String>,
}

impl Statuses {
    pub(super) fn new(ruler: Arc<str>) -> Self {
        Self {
            ruler,
            good: RuleSet::default(),
            since: HashMap::new(),
            said: HashMap::new(),
        }
    }

    /// Records the set that the ruler has accepted.
    pub(super) fn loaded(&mut self, good: Option<&RuleSet>) {
        let Some(good) = good else { return };
        let now = now();
        let mut changed = BTreeSet::new();
        for change in self.good.diff(good) {
            match change.new {
                Some(_) => self.since.insert(change.tenant.clone(), now),
                None => self.since.remove(&change.tenant),
            };
            changed.insert(change.tenant);
        }
        // Earlier answers of the ruler concern the rules that it had then.
        self.said
            .retain(|(tenant, ..), _| !changed.contains(&**tenant));
        self.good = good.clone();
    }

    /// Records the groups that the ruler reports.
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

    /// Reports the state of each group of a set.
    pub(super) fn report(&self, wanted: &RuleSet, way: &Way) -> Report {
        let mut report = Report::new();
        let mut all_refused: HashMap<&str, Vec<&Refused>> = HashMap::new();
        for refused in way.refused() {
            all_refused
                .entry(&refused.tenant)
                .or_default()
                .push(refused);
        }
        for (tenant, rules) in wanted.iter() {
            let own_refused = all_refused.get(&**tenant);
            let since = self.since.get(tenant).copied();
            let good = self.good.get(tenant);
            let has_all = good == Some(rules);
            let groups = rules.files().flat_map(|(file, stored)| {
                let groups = stored.file().groups.iter();
                groups.map(move |group| (file, stored, group))
            });
            let groups = groups.map(|(file, stored, group)| {
                // The ruler may still have an earlier version of the group.
                let has = || good.is_some_and(|good| has(good, file, group));
                let refused = own_refused.into_iter().flatten();
                let refused = refused
                    .copied()
                    .find(|refused| refused.file == *file && refused.group == *group);
                let key = (tenant.to_string(), file.to_string(), group.name.clone());
                let said = self.said.get(&key).filter(|_| has_all || has());
                let (state, error) = match (refused, said) {
                    (Some(refused), _) => (GroupState::Refused, Some(refused.reason.clone())),
                    (None, Some(said)) => (GroupState::Loaded, said.error.clone()),
                    (None, None) => (GroupState::Pending, None),
                };
                GroupReport {
                    file: file.clone(),
                    group: group.name.clone(),
                    rules: stored.clone(),
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

/// Whether a tenant's rules have exactly this group.
fn has(rules: &TenantRules, file: &str, group: &Group) -> bool {
    let stored = rules.file(file);
    stored.is_some_and(|stored| stored.file().groups.contains(group))
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}
