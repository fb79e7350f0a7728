//! The running graph.
pub struct Input {}
pub struct Output {}
/// Tells a component to stop.
pub struct Shutdown {}
