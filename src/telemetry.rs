//! Metrics and logs of Metrifold itself.
/// Held handles of one component's metrics.
#[derive(Clone, Debug, Default)]
pub struct ComponentMetrics {}
