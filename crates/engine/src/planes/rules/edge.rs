//! The edge into a sink of rules: it holds the newest set of every source that leads there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;

use metrifold_base::BoxFuture;
use metrifold_model::Tenant;
use metrifold_model::ledger::Tally;
use metrifold_rules::TenantRules;
use metrifold_telemetry::ComponentMetrics;

use crate::planes::{self, Drain, Ending};

use super::RuleSet;

/// The edge into a sink of rules.
#[derive(Debug)]
pub struct Edge {
    metrics: ComponentMetrics,
    view: watch::Sender<View>,
}

/// The sink's end of the edge.
#[derive(Debug)]
pub struct Input(watch::Receiver<View>);

/// The newest sets of all sources of a sink, as a consistent snapshot.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Sets by source: `None` for a source that has not published yet, and several sets for one that
    /// leads to the sink on several paths.
    sources: BTreeMap<Arc<str>, Option<Vec<RuleSet>>>,
}

/// The sets of all sources of a sink, joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// The rules of all tenants, but for those in `conflicts`.
    pub set: RuleSet,
    /// Tenants whose rules are not known, as their sources contradict each other.
    pub conflicts: BTreeMap<Tenant, Conflict>,
}

/// A file of a tenant that two sources have with different rules.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "file {file:?} of tenant {tenant:?} comes from more than one source: rename one, or give the sources sinks of their own"
)]
pub struct Conflict {
    /// Tenant of the rules; empty for rules without a tenant.
    pub tenant: Tenant,
    /// Name of the file.
    pub file: Arc<str>,
    /// The tenant's rules of each source.
    pub sides: Vec<Arc<TenantRules>>,
}

impl Edge {
    /// An edge without published rules.
    pub(crate) fn new(metrics: ComponentMetrics) -> Self {
        Self {
            metrics,
            view: watch::Sender::new(View::default()),
        }
    }

    /// Replaces the sets that a source publishes here. Ignored if the source does not lead here any
    /// more.
    pub(super) fn publish(&self, source: &Arc<str>, sets: Vec<RuleSet>) {
        self.view.send_if_modified(|view| {
            let known = view.sources.get_mut(source);
            let is_wired = known.is_some();
            if let Some(known) = known {
                *known = Some(sets);
            }
            is_wired
        });
    }
}

impl Input {
    /// Waits for a view newer than the last one; `None` when no more can come.
    pub async fn changed(&mut self) -> Option<View> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().clone())
    }
}

impl View {
    /// The sources that have not published yet. While there are any, rules that are missing from the
    /// view must not be taken for deleted.
    pub fn awaited(&self) -> impl Iterator<Item = &Arc<str>> {
        let awaited = |(id, sets): (_, &Option<_>)| sets.is_none().then_some(id);
        self.sources.iter().filter_map(awaited)
    }

    /// Joins the sets of all sources. A tenant of which two of them have the same file with different
    /// rules is set aside, and holds up no other.
    pub fn joined(&self) -> Joined {
        let sets: Vec<&RuleSet> = self.sources.values().flatten().flatten().collect();
        let Some((first, others)) = sets.split_first() else {
            return Joined::default();
        };
        let mut joined = Joined {
            set: (*first).clone(),
            conflicts: BTreeMap::new(),
        };
        for set in others {
            for (tenant, rules) in set.iter() {
                joined.add(tenant, rules);
            }
        }
        for (tenant, conflict) in &mut joined.conflicts {
            let sides = sets.iter().filter_map(|set| set.get(tenant));
            conflict.sides = sides.cloned().collect();
        }
        joined
    }
}

impl Joined {
    fn add(&mut self, tenant: &Tenant, rules: &Arc<TenantRules>) {
        if self.conflicts.contains_key(tenant) {
            return;
        }
        let joined = match self.set.get(tenant) {
            None => Ok(rules.clone()),
            Some(known) => join(known, rules).map(Arc::new),
        };
        match joined {
            Ok(rules) => self.set = self.set.with(tenant.clone(), rules),
            Err(file) => {
                self.set = self.set.without(tenant);
                let conflict = Conflict {
                    tenant: tenant.clone(),
                    file,
                    sides: Vec::new(),
                };
                self.conflicts.insert(tenant.clone(), conflict);
            }
        }
    }

    /// The set, with the tenants that were set aside as they are in `old`.
    #[must_use]
    pub fn keeping(&self, old: &RuleSet) -> RuleSet {
        let aside = self.conflicts.keys();
        let kept = aside.filter_map(|tenant| Some((tenant, old.get(tenant)?)));
        kept.fold(self.set.clone(), |set, (tenant, rules)| {
            set.with(tenant.clone(), rules.clone())
        })
    }
}

/// Joins two sources' rules of a tenant; fails with the name of a file that differs between them.
fn join(known: &TenantRules, rules: &TenantRules) -> Result<TenantRules, Arc<str>> {
    let mut joined = known.clone();
    for (name, file) in rules.files() {
        match joined.file(name) {
            Some(same) if same == file => {}
            Some(_) => return Err(name.clone()),
            None => joined = joined.with_file(name.clone(), file.clone()),
        }
    }
    Ok(joined)
}

impl planes::Edge for Edge {
    type Input = Input;

    fn input(self: &Arc<Self>) -> Input {
        let mut input = self.view.subscribe();
        // A set that is there already is new to the sink.
        input.mark_changed();
        Input(input)
    }

    fn metrics(&self) -> &ComponentMetrics {
        &self.metrics
    }

    /// The sources publish to the new edge as well, so nothing has to be moved.
    fn take_over(&self, _predecessor: Option<&Self>) {}

    fn wired(&self, sources: &BTreeSet<Arc<str>>) {
        self.view.send_if_modified(|view| {
            let before = view.sources.len();
            view.sources.retain(|id, _| sources.contains(id));
            let mut changed = view.sources.len() != before;
            for id in sources {
                view.sources.entry(id.clone()).or_insert_with(|| {
                    changed = true;
                    None
                });
            }
            changed
        });
    }
}

impl Drain for Edge {
    /// Nothing is lost with the edge: the sources still have their sets.
    fn close(&self, _ending: Ending) {}

    fn store(self: Arc<Self>, _deadline: Instant) -> BoxFuture<()> {
        Box::pin(async {})
    }

    fn secure(self: Arc<Self>, _deadline: Instant) -> BoxFuture<()> {
        Box::pin(async {})
    }

    fn left(&self) -> Tally {
        Tally::default()
    }

    fn abandon(&self) {}

    fn shut(self: Arc<Self>) -> BoxFuture<()> {
        Box::pin(async {})
    }
}
