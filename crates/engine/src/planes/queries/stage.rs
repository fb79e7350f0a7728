//! What lies between a source of queries and the sinks that may answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arc_swap::ArcSwap;

use metrifold_model::{Rejection, RejectionKind};
use metrifold_telemetry::ComponentMetrics;

use crate::planes::{Node, Target, Wiring};

use super::{Answer, Edge, Queries, Query};

/// Transforms and the sinks behind them. Each output leads to one component at most, which
/// validation has made sure of.
#[derive(Debug)]
pub struct Stage(pub(super) Wiring<Queries>);

impl Stage {
    /// Runs a query through the transforms and finds the sink that answers it.
    fn route(&self, query: &mut Query) -> Result<&Arc<Edge>, Rejection> {
        let mut next = self.0.entry.first();
        loop {
            match next {
                Some(&Target::Node(node)) => {
                    let node = &self.0.nodes[node];
                    let output = apply(node, query)?;
                    next = node.outputs.get(output).and_then(|output| output.first());
                }
                Some(&Target::Edge(edge)) => return Ok(&self.0.edges[edge]),
                None => {
                    let reason = "no sink takes these queries";
                    return Err(Rejection::new(RejectionKind::NotFound, reason));
                }
            }
        }
    }
}

/// Applies a transform, whose panic costs nothing but the query.
fn apply(node: &Node<Queries>, query: &mut Query) -> Result<usize, Rejection> {
    let applied = catch_unwind(AssertUnwindSafe(|| node.transform.apply(query)));
    let applied = applied.unwrap_or_else(|_| {
        let reason = "a transform panicked on the query";
        Err(Rejection::new(RejectionKind::Internal, reason))
    });
    match &applied {
        Ok(_) => node.metrics.query_answered("<passed>"),
        Err(rejection) => {
            node.metrics.query_answered("<refused>");
            node.metrics.error(rejection.kind.as_str(), rejection);
        }
    }
    applied
}

/// A source's end of its stage.
#[derive(Clone, Debug)]
pub struct Output {
    pub(super) stage: Arc<ArcSwap<Stage>>,
    pub(super) metrics: ComponentMetrics,
}

impl Output {
    /// Has a query answered. Dropping the future, or the body of the answer, gives the query up all
    /// the way to the far end.
    ///
    /// # Errors
    ///
    /// Fails when the query is refused on its way, or nobody could answer it in time.
    pub async fn ask(&self, mut query: Query) -> Result<Answer, Rejection> {
        let stage = self.stage.load_full();
        let edge = stage.route(&mut query)?.clone();
        // A reload waits for queries that are under way on the stages of before.
        edge.ask(query, stage).await
    }

    /// The meters of the source.
    pub fn metrics(&self) -> &ComponentMetrics {
        &self.metrics
    }
}
