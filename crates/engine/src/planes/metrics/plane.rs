//! Implements the engine's plane for batches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use metrifold_base::BoxFuture;
use metrifold_model::Signal;
use metrifold_model::ledger::{Reason, Tally};
use metrifold_telemetry::ComponentMetrics;

use crate::planes::{self, Drain, Ending, Node, Plane, SourceContext, Wiring};

use super::held::HeldToLimits;
use super::{Edge, Input, Output, Stage, Transform};

/// The plane of batches.
#[derive(Debug)]
pub struct Metrics;

impl Plane for Metrics {
    const SIGNAL: Signal = Signal::Metrics;
    type Transform = dyn Transform;
    type Edge = Edge;
    type Output = Output;
    type Stage = Stage;

    fn stage(wiring: Wiring<Self>, source: SourceContext<'_>) -> Stage {
        let mut nodes = wiring.nodes;
        nodes.push(Node {
            transform: Arc::new(HeldToLimits::new(source.access)),
            metrics: source.metrics,
            outputs: vec![wiring.entry.clone()],
        });
        Stage {
            entry: wiring.entry,
            guard: Some(nodes.len() - 1),
            nodes,
            edges: wiring.edges,
            memory: source.memory.clone(),
            _in_use: Some(wiring.in_use),
        }
    }

    fn output(_id: &Arc<str>, stage: Arc<Stage>, metrics: ComponentMetrics) -> Output {
        Output {
            stage: Arc::new(ArcSwap::new(stage)),
            metrics,
        }
    }

    fn succeed(output: &Output, metrics: ComponentMetrics) -> Output {
        Output {
            stage: output.stage.clone(),
            metrics,
        }
    }

    fn redirect(output: &Output, stage: Arc<Stage>) {
        output.stage.store(stage);
    }
}

impl planes::Edge for Edge {
    type Input = Input;

    fn input(self: &Arc<Self>) -> Input {
        Input(self.clone())
    }

    fn metrics(&self) -> &ComponentMetrics {
        &self.metrics
    }

    fn take_over(&self, predecessor: Option<&Self>) {
        Self::take_over(self, predecessor);
    }

    /// A queue accepts batches from any source.
    fn wired(&self, _sources: &BTreeSet<Arc<str>>) {}
}

impl Drain for Edge {
    fn close(&self, ending: Ending) {
        Self::close(self, ending);
    }

    fn store(self: Arc<Self>, deadline: Instant) -> BoxFuture<()> {
        Box::pin(async move { Self::store(&self, deadline).await })
    }

    fn secure(self: Arc<Self>, deadline: Instant) -> BoxFuture<()> {
        Box::pin(async move { Self::secure(&self, deadline).await })
    }

    fn left(&self) -> Tally {
        Self::left(self)
    }

    fn abandon(&self) {
        Self::abandon(self);
    }

    fn dropped(&self) -> BTreeMap<Reason, Tally> {
        Self::dropped(self)
    }

    fn shut(self: Arc<Self>) -> BoxFuture<()> {
        Box::pin(async move { Self::shut(&self).await })
    }
}
