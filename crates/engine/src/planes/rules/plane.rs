//! Implements the engine's plane for rules.

use std::sync::Arc;

use metrifold_model::Signal;
use metrifold_telemetry::ComponentMetrics;

use crate::planes::{Plane, SourceContext, Wiring};

use super::stage::Shared;
use super::{Edge, Output, Stage, Transform};

/// The plane of rules.
#[derive(Debug)]
pub struct Rules;

impl Plane for Rules {
    const SIGNAL: Signal = Signal::Rules;
    type Transform = dyn Transform;
    type Edge = Edge;
    type Output = Output;
    type Stage = Stage;

    /// Each source bounds the rules that it publishes.
    fn stage(wiring: Wiring<Self>, _source: SourceContext<'_>) -> Stage {
        Stage::new(wiring)
    }

    fn output(id: &Arc<str>, stage: Arc<Stage>, metrics: ComponentMetrics) -> Output {
        Output {
            source: id.clone(),
            shared: Arc::new(Shared::new(stage)),
            metrics,
        }
    }

    fn succeed(output: &Output, metrics: ComponentMetrics) -> Output {
        Output {
            source: output.source.clone(),
            shared: output.shared.clone(),
            metrics,
        }
    }

    fn redirect(output: &Output, stage: Arc<Stage>) {
        output.redirect(stage);
    }
}
