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

/// Two sets that cannot be joined.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "file {file:?} of tenant {tenant:?} comes from more than one source: rename one, or give the sources sinks of their own"
)]
pub struct Conflict {
    /// Tenant of the rules; empty for rules without a tenant.
    pub tenant: Tenant,
    /// Name of the file.
    pub file: Arc<str>,
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

    /// Joins the sets of all sources.
    ///
    /// # Errors
    ///
    /// Fails when two of them have the same file of a tenant with different rules.
    pub fn joined(&self) -> Result<RuleSet, Conflict> {
        let mut sets = self.sources.values().flatten().flatten();
        let Some(first) = sets.next() else {
            return Ok(RuleSet::default());
        };
        sets.try_fold(first.clone(), join)
    }
}

fn join(joined: RuleSet, set: &RuleSet) -> Result<RuleSet, Conflict> {
    set.iter().try_fold(joined, |joined, (tenant, rules)| {
        let rules = match joined.get(tenant) {
            Some(known) => Arc::new(join_tenant(tenant, known, rules)?),
            None => rules.clone(),
        };
        Ok(joined.with(tenant.clone(), rules))
    })
}

fn join_tenant(
    tenant: &Tenant,
    known: &TenantRules,
    rules: &TenantRules,
) -> Result<TenantRules, Conflict> {
    let mut joined = known.clone();
    for (name, file) in rules.files() {
        match joined.file(name) {
            Some(same) if same == file => {}
            Some(_) => {
                return Err(Conflict {
                    tenant: tenant.clone(),
                    file: name.clone(),
                });
            }
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
