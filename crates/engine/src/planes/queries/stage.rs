//! The stage between a source of queries and the sinks that may answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arc_swap::ArcSwap;

use metrifold_model::{Rejection, RejectionKind};
use metrifold_telemetry::ComponentMetrics;

use crate::planes::{Node, Target, Wiring};

use super::{Answer, Plan, Queries, Query, edit};

/// Transforms and the sinks behind them. Validation ensures that each output leads to at most one
/// component.
#[derive(Debug)]
pub struct Stage(pub(super) Wiring<Queries>);

impl Stage {
    /// Answers a query: runs it through the transforms from `next` on, and passes it to the sink.
    pub(super) async fn ask(
        self: Arc<Self>,
        mut next: Option<Target>,
        mut query: Query,
    ) -> Result<Answer, Rejection> {
        loop {
            match next {
                Some(Target::Node(at)) => {
                    let node = &self.0.nodes[at];
                    let plan = match node.transform.reads_body(&query) {
                        None => apply(node, &mut query),
                        Some(most) => match edit::read_body(&mut query, most).await {
                            Ok(()) => apply(node, &mut query),
                            Err(rejection) => Err(refused(node, rejection)),
                        },
                    }?;
                    let output = node.outputs.get(plan.output);
                    next = output.and_then(|output| output.first()).copied();
                    if let Some(edit) = plan.edit {
                        return edit::ask(self, next, query, edit).await;
                    }
                }
                Some(Target::Edge(at)) => {
                    let edge = self.0.edges[at].clone();
                    if let (Some(told), Some(tenant)) = (&query.asked_for, &query.tenant) {
                        // Set only once: two queries of one caller have the same tenant.
                        let _ = told.set(tenant.clone());
                    }
                    let turn = match query.turns.take() {
                        Some(turns) => {
                            Some(turns.turn(query.tenant.as_ref(), query.deadline).await?)
                        }
                        None => None,
                    };
                    // Holding the stage makes a reload wait for queries in flight on it.
                    return edge.ask(query, (self, turn)).await;
                }
                None => {
                    let reason = "no sink takes these queries";
                    return Err(Rejection::new(RejectionKind::NotFound, reason));
                }
            }
        }
    }
}

/// Applies a transform. A panic becomes a rejection of the query.
fn apply(node: &Node<Queries>, query: &mut Query) -> Result<Plan, Rejection> {
    let applied = catch_unwind(AssertUnwindSafe(|| node.transform.apply(query)));
    let applied = applied.unwrap_or_else(|_| {
        let reason = "a transform panicked on the query";
        Err(Rejection::new(RejectionKind::Internal, reason))
    });
    let plan = applied.map_err(|rejection| refused(node, rejection))?;
    node.metrics.query_answered("<passed>");
    Ok(plan)
}

/// Counts a query that a transform refuses.
fn refused(node: &Node<Queries>, rejection: Rejection) -> Rejection {
    node.metrics.query_answered("<refused>");
    node.metrics.error(rejection.kind.as_str(), &rejection);
    rejection
}

/// The handle with which a source sends queries into its stage.
#[derive(Clone, Debug)]
pub struct Output {
    pub(super) stage: Arc<ArcSwap<Stage>>,
    pub(super) metrics: ComponentMetrics,
}

impl Output {
    /// Sends a query and returns its answer. Dropping the future, or the body of the answer,
    /// cancels the query all the way to the upstream.
    ///
    /// # Errors
    ///
    /// Fails when the query is refused on its way, or no sink could answer it in time.
    pub async fn ask(&self, query: Query) -> Result<Answer, Rejection> {
        let stage = self.stage.load_full();
        let entry = stage.0.entry.first().copied();
        stage.ask(entry, query).await
    }

    /// Metrics of the source.
    pub fn metrics(&self) -> &ComponentMetrics {
        &self.metrics
    }
}
