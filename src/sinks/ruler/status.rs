//! State of the delivered rules: which groups a ruler has loaded, and how their evaluation goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use metrifold_base::locked;
use metrifold_engine::planes::rules::{
    Conflict, GroupReport, GroupState, Joined, Report, Reports, RuleSet,
};
use metrifold_rules::{Group, StoredFile, TenantRules};

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
    /// The set that the ruler has accepted.
    good: RuleSet,
    /// States of groups by tenant, file and group.
    said: HashMap<(String, String, String), Known>,
    /// The last report, for how long each state has lasted.
    last: Report,
}

/// A group's state as the ruler reported it.
struct Known {
    last_evaluation: Option<String>,
    error: Option<String>,
    /// When it did.
    at: u64,
}

impl Statuses {
    pub(super) fn new(ruler: Arc<str>) -> Self {
        Self {
            ruler,
            good: RuleSet::default(),
            said: HashMap::new(),
            last: Report::new(),
        }
    }

    /// Records the set that the ruler has accepted.
    pub(super) fn loaded(&mut self, good: Option<&RuleSet>) {
        let Some(good) = good else { return };
        let changes = self.good.diff(good);
        let changed: BTreeSet<&str> = changes.iter().map(|change| &*change.tenant).collect();
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
        let at = now();
        for said in heard.groups {
            let known = Known {
                last_evaluation: said.last_evaluation,
                error: said.error,
                at,
            };
            let key = (said.tenant, said.file, said.group);
            self.said.insert(key, known);
        }
    }

    /// Reports the state of each group of a set.
    pub(super) fn report(&mut self, wanted: &Joined, way: &Way) -> Report {
        let mut report = Report::new();
        let mut all_refused: HashMap<&str, Vec<&Refused>> = HashMap::new();
        for refused in way.refused() {
            all_refused
                .entry(&refused.tenant)
                .or_default()
                .push(refused);
        }
        let at = now();
        for (tenant, rules) in wanted.set.iter() {
            let own_refused = all_refused.get(&**tenant);
            let good = self.good.get(tenant);
            let has_all = good == Some(rules);
            let groups = groups(rules).map(|(file, stored, group)| {
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
                    since: at,
                    confirmed: said.map(|said| said.at),
                    last_evaluation: said.and_then(|said| said.last_evaluation.clone()),
                    error,
                }
            });
            report.insert(tenant.clone(), groups.collect());
        }
        for (tenant, conflict) in &wanted.conflicts {
            report.insert(tenant.clone(), self.in_conflict(conflict, at));
        }
        for (tenant, groups) in &mut report {
            if let Some(last) = self.last.get(tenant) {
                keep_since(groups, last);
            }
        }
        self.last.clone_from(&report);
        report
    }

    /// The groups of all sides of a conflict.
    fn in_conflict(&self, conflict: &Conflict, at: u64) -> Vec<GroupReport> {
        let groups = conflict.sides.iter().flat_map(|rules| groups(rules));
        let groups = groups.map(|(file, stored, group)| GroupReport {
            file: file.clone(),
            group: group.name.clone(),
            rules: stored.clone(),
            ruler: self.ruler.clone(),
            state: GroupState::Refused,
            since: at,
            confirmed: None,
            last_evaluation: None,
            error: Some(conflict.to_string()),
        });
        groups.collect()
    }
}

/// Keeps the times of states that have not changed.
fn keep_since(groups: &mut [GroupReport], last: &[GroupReport]) {
    for (at, group) in groups.iter_mut().enumerate() {
        let is_same_name =
            |last: &&GroupReport| last.group == group.group && last.file == group.file;
        let before = last.get(at).filter(is_same_name);
        let Some(before) = before.or_else(|| last.iter().find(is_same_name)) else {
            continue;
        };
        let is_same_version =
            Arc::ptr_eq(&before.rules, &group.rules) || before.content() == group.content();
        if before.state == group.state && is_same_version {
            group.since = before.since;
        }
    }
}

fn groups(rules: &TenantRules) -> impl Iterator<Item = (&Arc<str>, &Arc<StoredFile>, &Group)> {
    rules.files().flat_map(|(file, stored)| {
        let groups = stored.file().groups.iter();
        groups.map(move |group| (file, stored, group))
    })
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
