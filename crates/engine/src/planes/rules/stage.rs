//! What lies between a source of rules and the sinks that see them.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use metrifold_base::locked;
use metrifold_model::Tenant;
use metrifold_model::{Rejection, RejectionKind};
use metrifold_rules::TenantRules;
use metrifold_telemetry::ComponentMetrics;

use crate::planes::{Node, Target, Wiring};

use super::{RuleSet, Rules};

/// Transforms, and the sinks behind them.
#[derive(Debug)]
pub struct Stage {
    wiring: Wiring<Rules>,
    /// What each transform was given last, and what it made of that.
    done: Mutex<Vec<Done>>,
}

/// What a transform was given last, and what it made of that.
#[derive(Clone, Debug, Default)]
struct Done {
    given: RuleSet,
    made: RuleSet,
    /// Why rules that were given did not go on, by tenant.
    refused: BTreeMap<Tenant, String>,
}

impl Stage {
    pub(super) fn new(wiring: Wiring<Rules>) -> Self {
        let done = vec![Done::default(); wiring.nodes.len()];
        Self {
            wiring,
            done: Mutex::new(done),
        }
    }

    /// Goes on from what the transforms have made that are in both stages: an edit elsewhere must not
    /// cost a tenant the rules that stay while newer ones are rejected.
    fn inherit(&self, old: &Self) {
        let before = locked(&old.done).clone();
        let before: Vec<_> = old.wiring.nodes.iter().zip(before).collect();
        let mut done = locked(&self.done);
        for (node, done) in self.wiring.nodes.iter().zip(done.iter_mut()) {
            let same =
                |(it, _): &&(&Node<Rules>, Done)| Arc::ptr_eq(&it.transform, &node.transform);
            if let Some((_, known)) = before.iter().find(same) {
                done.clone_from(known);
            }
        }
    }

    /// Runs a set through all transforms and shows the sinks what came of it, each of them all of
    /// it at once.
    fn publish(&self, source: &Arc<str>, set: &RuleSet) {
        // Held until the sinks have it: of two sets, the newer one must be seen last.
        let mut done = locked(&self.done);
        let mut arrived = vec![Vec::new(); self.wiring.edges.len()];
        let mut work: VecDeque<(Target, RuleSet)> = VecDeque::new();
        work.extend(self.wiring.entry.iter().map(|&to| (to, set.clone())));
        while let Some((target, set)) = work.pop_front() {
            match target {
                Target::Edge(edge) => arrived[edge].push(set),
                Target::Node(at) => {
                    let node = &self.wiring.nodes[at];
                    done[at].advance(node, set);
                    for &to in node.outputs.iter().flatten() {
                        work.push_back((to, done[at].made.clone()));
                    }
                }
            }
        }
        for (edge, sets) in self.wiring.edges.iter().zip(arrived) {
            edge.publish(source, sets);
        }
    }

    /// Runs a tenant's rules through all transforms, and shows them to nobody.
    fn check(&self, tenant: &Tenant, rules: &Arc<TenantRules>) -> Result<(), Rejection> {
        let mut work: VecDeque<(Target, Arc<TenantRules>)> = VecDeque::new();
        work.extend(self.wiring.entry.iter().map(|&to| (to, rules.clone())));
        while let Some((target, rules)) = work.pop_front() {
            if let Target::Node(at) = target {
                let node = &self.wiring.nodes[at];
                let made = apply(node, tenant, &rules)?;
                for &to in node.outputs.iter().flatten() {
                    work.push_back((to, made.clone()));
                }
            }
        }
        Ok(())
    }
}

impl Done {
    /// Has a transform make of a set what goes on: of the tenants alone that changed.
    fn advance(&mut self, node: &Node<Rules>, set: RuleSet) {
        for change in self.given.diff(&set) {
            let tenant = change.tenant;
            let made = match change.new {
                Some(rules) => match apply(node, &tenant, &rules) {
                    Ok(rules) => {
                        self.refused.remove(&tenant);
                        self.made.with(tenant, rules)
                    }
                    Err(rejection) => {
                        let text = format!("rules of tenant {tenant:?}: {rejection}");
                        node.metrics.error(rejection.kind.as_str(), text);
                        self.refused.insert(tenant, rejection.reason);
                        continue;
                    }
                },
                None => {
                    self.refused.remove(&tenant);
                    self.made.without(&tenant)
                }
            };
            self.made = made;
        }
        node.metrics.rules_published(self.made.len());
        self.given = set;
    }
}

/// Applies a transform, whose panic costs nothing but the tenant's change.
fn apply(
    node: &Node<Rules>,
    tenant: &Tenant,
    rules: &Arc<TenantRules>,
) -> Result<Arc<TenantRules>, Rejection> {
    let applied = catch_unwind(AssertUnwindSafe(|| node.transform.apply(tenant, rules)));
    applied.unwrap_or_else(|_| {
        let reason = "the transform panicked";
        Err(Rejection::new(RejectionKind::Internal, reason))
    })
}

/// A source's end of its stage.
#[derive(Clone, Debug)]
pub struct Output {
    pub(super) source: Arc<str>,
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: ComponentMetrics,
}

/// What all ends of a source share, those of its successors included.
#[derive(Debug)]
pub(super) struct Shared {
    stage: ArcSwap<Stage>,
    /// What was published last. It is shown again when the stage is another one.
    newest: Mutex<Option<RuleSet>>,
}

impl Shared {
    pub(super) fn new(stage: Arc<Stage>) -> Self {
        Self {
            stage: ArcSwap::new(stage),
            newest: Mutex::default(),
        }
    }
}

impl Output {
    /// Publishes the complete rules of all tenants of the source. What is not among them is gone.
    pub fn publish(&self, set: RuleSet) {
        let mut newest = locked(&self.shared.newest);
        self.metrics.rules_published(set.len());
        self.shared.stage.load().publish(&self.source, &set);
        *newest = Some(set);
    }

    /// Says whether all transforms on the way take a tenant's rules, which are not published.
    ///
    /// # Errors
    ///
    /// Fails with what the first of them says that does not.
    pub fn check(&self, tenant: &Tenant, rules: &Arc<TenantRules>) -> Result<(), Rejection> {
        self.shared.stage.load().check(tenant, rules)
    }

    /// Why the newest rules of a tenant did not go on, so that older ones stay behind.
    pub fn refused(&self, tenant: &str) -> Vec<String> {
        let stage = self.shared.stage.load();
        let done = locked(&stage.done);
        let reasons = done
            .iter()
            .filter_map(|done| done.refused.get(tenant).cloned());
        reasons.collect()
    }

    /// The source's metrics.
    pub fn metrics(&self) -> &ComponentMetrics {
        &self.metrics
    }

    /// Shows the sinks behind another stage what was published last.
    pub(super) fn redirect(&self, stage: Arc<Stage>) {
        let newest = locked(&self.shared.newest);
        if let Some(set) = &*newest {
            stage.inherit(&self.shared.stage.load());
            stage.publish(&self.source, set);
        }
        self.shared.stage.store(stage);
    }
}
