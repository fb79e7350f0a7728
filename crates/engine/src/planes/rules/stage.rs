//! The stage between a source of rules and its sinks.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use arc_swap::ArcSwap;
use tokio::task::spawn_blocking;

use metrifold_base::locked;
use metrifold_model::Tenant;
use metrifold_model::{Rejection, RejectionKind};
use metrifold_rules::{Change, TenantRules};
use metrifold_telemetry::ComponentMetrics;

use crate::planes::{Node, Target, Wiring};

use super::{RuleSet, Rules};

/// Number of changed tenants from which transforming their rules on several threads pays.
const WORTH_THREADS: usize = 64;

/// Transforms, and the sinks behind them.
#[derive(Debug)]
pub struct Stage {
    wiring: Wiring<Rules>,
    /// Last input and output of each transform.
    done: Mutex<Vec<Done>>,
}

/// Last input and output of a transform.
#[derive(Clone, Debug, Default)]
struct Done {
    given: RuleSet,
    made: RuleSet,
    /// Reasons why rules of the input were refused, by tenant.
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

    /// Takes over the outputs of the transforms that both stages have: a tenant whose newer rules are
    /// refused must keep its older ones when another part of the graph changes.
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

    /// Runs a set through all transforms and shows the results to the sinks, to each of them all at
    /// once.
    fn publish(&self, source: &Arc<str>, set: &RuleSet) {
        // Held until the sinks have the set, so that the newer of two sets arrives last.
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

    /// Runs a tenant's rules through all transforms without publishing them. Returns what the sinks
    /// would get.
    fn check(
        &self,
        tenant: &Tenant,
        rules: &Arc<TenantRules>,
    ) -> Result<Vec<Arc<TenantRules>>, Rejection> {
        let mut arrived = Vec::new();
        let mut work: VecDeque<(Target, Arc<TenantRules>)> = VecDeque::new();
        work.extend(self.wiring.entry.iter().map(|&to| (to, rules.clone())));
        while let Some((target, rules)) = work.pop_front() {
            match target {
                Target::Edge(_) => arrived.push(rules),
                Target::Node(at) => {
                    let node = &self.wiring.nodes[at];
                    let made = apply(node, tenant, &rules)?;
                    for &to in node.outputs.iter().flatten() {
                        work.push_back((to, made.clone()));
                    }
                }
            }
        }
        Ok(arrived)
    }
}

impl Done {
    /// Updates the transform's output for a new input, running it only on the tenants that changed.
    fn advance(&mut self, node: &Node<Rules>, set: RuleSet) {
        let changes = self.given.diff(&set);
        for (change, outcome) in changes.iter().zip(apply_all(node, &changes)) {
            let tenant = change.tenant.clone();
            let made = match outcome {
                Some(Ok(rules)) => {
                    self.refused.remove(&tenant);
                    self.made.with(tenant, rules)
                }
                Some(Err(rejection)) => {
                    let text = format!("rules of tenant {tenant:?}: {rejection}");
                    node.metrics.error(rejection.kind.as_str(), text);
                    self.refused.insert(tenant, rejection.reason);
                    continue;
                }
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

/// Result of a transform for a tenant's new rules; `None` if the tenant has none any more.
type Outcome = Option<Result<Arc<TenantRules>, Rejection>>;

/// Applies a transform to the new rules of all changes, on several threads if there are many.
fn apply_all(node: &Node<Rules>, changes: &[Change]) -> Vec<Outcome> {
    let one = |change: &Change| {
        let new = change.new.as_ref();
        new.map(|rules| apply(node, &change.tenant, rules))
    };
    let all = |changes: &[Change]| changes.iter().map(one).collect::<Vec<_>>();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    if changes.len() < WORTH_THREADS || threads == 1 {
        return all(changes);
    }
    let (own, others) = changes.split_at(changes.len().div_ceil(threads));
    thread::scope(|scope| {
        let shares = others.chunks(own.len());
        let spawned: Vec<_> = shares.map(|share| scope.spawn(|| all(share))).collect();
        let mut outcomes = all(own);
        for thread in spawned {
            match thread.join() {
                Ok(more) => outcomes.extend(more),
                // Continues in the caller, as without threads.
                Err(panic) => resume_unwind(panic),
            }
        }
        outcomes
    })
}

/// Applies a transform. A panic becomes a refusal of the tenant's change.
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

/// The handle with which a source publishes into its stage.
#[derive(Clone, Debug)]
pub struct Output {
    pub(super) source: Arc<str>,
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: ComponentMetrics,
}

/// State that a source shares with its predecessors and successors.
#[derive(Debug)]
pub(super) struct Shared {
    stage: ArcSwap<Stage>,
    /// Number of publications that were begun.
    begun: AtomicU64,
    newest: Mutex<Newest>,
}

/// The set that was published last. It is published again when the stage is replaced.
#[derive(Debug, Default)]
struct Newest {
    set: Option<RuleSet>,
    /// Number of its publication.
    number: u64,
}

impl Shared {
    pub(super) fn new(stage: Arc<Stage>) -> Self {
        Self {
            stage: ArcSwap::new(stage),
            begun: AtomicU64::new(0),
            newest: Mutex::default(),
        }
    }
}

impl Output {
    /// Publishes the complete rules of all tenants of the source. Tenants that are missing are
    /// removed. The transforms run outside of the async workers; a publication that was begun takes
    /// place even if the future is dropped.
    pub async fn publish(&self, set: RuleSet) {
        let (output, number) = (self.clone(), self.begin());
        let published = spawn_blocking(move || output.publish_now(set, number)).await;
        match published {
            // Continues in the source, as without another thread.
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // The runtime ends, and the process with it.
            Ok(()) | Err(_) => {}
        }
    }

    pub(super) fn begin(&self) -> u64 {
        self.shared.begun.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Publishes a set, unless one whose publication was begun later has overtaken it.
    pub(super) fn publish_now(&self, set: RuleSet, number: u64) {
        let mut newest = locked(&self.shared.newest);
        if number < newest.number {
            return;
        }
        self.metrics.rules_published(set.len());
        self.shared.stage.load().publish(&self.source, &set);
        *newest = Newest {
            set: Some(set),
            number,
        };
    }

    /// Checks whether all transforms accept a tenant's rules, without publishing them. Returns what
    /// each sink would get.
    ///
    /// # Errors
    ///
    /// Fails with the rejection of the first transform that refuses them.
    pub fn check(
        &self,
        tenant: &Tenant,
        rules: &Arc<TenantRules>,
    ) -> Result<Vec<Arc<TenantRules>>, Rejection> {
        self.shared.stage.load().check(tenant, rules)
    }

    /// Reasons why the newest rules of a tenant were refused, so that older ones stay in force.
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

    /// Publishes the last set through another stage.
    pub(super) fn redirect(&self, stage: Arc<Stage>) {
        let newest = locked(&self.shared.newest);
        if let Some(set) = &newest.set {
            stage.inherit(&self.shared.stage.load());
            stage.publish(&self.source, set);
        }
        self.shared.stage.store(stage);
    }
}
