//! What a ruler has of what it was brought, and how it goes with that.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use metrifold_base::locked;
use metrifold_engine::planes::rules::{GroupReport, GroupState, Report, Reports, RuleSet};
use metrifold_model::Tenant;
use metrifold_rules::{Version, decode_name};

use super::client::LoadedGroup;
use super::install::Installer;

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

    /// Takes what the ruler says it has. Returns a group that it should have and does not.
    pub(super) fn take(
        &mut self,
        loaded: Vec<LoadedGroup>,
        installer: &Installer,
    ) -> Option<String> {
        self.said.clear();
        for group in loaded {
            let Some((tenant, file)) = own_file(&group.file, installer.folder()) else {
                continue;
            };
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
        let good = installer.good()?;
        for (tenant, rules) in good.iter() {
            for (file, stored) in rules.files() {
                for group in stored
                    .file()
                    .groups
                    .iter()
                    .filter(|group| !group.rules.is_empty())
                {
                    let key = (tenant.to_string(), file.to_string(), group.name.clone());
                    if !self.said.contains_key(&key) && is_decodable(tenant, file) {
                        return Some(format!("group {:?} of tenant {tenant:?}", group.name));
                    }
                }
            }
        }
        None
    }

    /// How it goes with each group of a set.
    pub(super) fn report(&self, wanted: &RuleSet, installer: &Installer) -> Report {
        let mut report = Report::new();
        for (tenant, rules) in wanted.iter() {
            let since = self.since.get(tenant).map(|(_, since)| *since);
            let groups = rules.files().flat_map(|(file, stored)| {
                stored.file().groups.iter().map(move |group| (file, group))
            });
            let groups = groups.map(|(file, group)| {
                let refused = installer.refused().iter().find(|refused| {
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

/// The tenant and the file that a path of the ruler's is of, if it lies in the folder.
fn own_file(path: &str, folder: &Path) -> Option<(String, String)> {
    let path = Path::new(path);
    // The ruler may see the folder under another path, but hardly under another name.
    let same = path.parent()?.file_name()? == folder.file_name()?;
    same.then(|| decode_name(path.file_name()?.to_str()?))?
}

/// Whether the name of a tenant's file says which it is: one that would be too long does not.
fn is_decodable(tenant: &str, file: &str) -> bool {
    3 * (tenant.len() + file.len()) < 180
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}
