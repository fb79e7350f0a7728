//! Implements the engine's plane for queries.

use std::sync::Arc;

use arc_swap::ArcSwap;

use metrifold_model::Signal;
use metrifold_telemetry::ComponentMetrics;

use crate::planes::{Plane, SourceContext, Wiring};

use super::{Edge, Output, Stage, Transform};

/// The plane of queries.
#[derive(Debug)]
pub struct Queries;

impl Plane for Queries {
    const SIGNAL: Signal = Signal::Queries;
    type Transform = dyn Transform;
    type Edge = Edge;
    type Output = Output;
    type Stage = Stage;

    /// Queries are streamed, so their memory is not counted.
    fn stage(wiring: Wiring<Self>, _source: SourceContext<'_>) -> Stage {
        Stage(wiring)
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
