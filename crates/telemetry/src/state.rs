//! The state of a component.

use std::sync::Arc;

use metrifold_model::Kind;

/// A component whose state has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Its name.
    pub id: Arc<str>,
    /// Its kind.
    pub kind: Kind,
    /// Its `type`.
    pub type_name: Arc<str>,
    /// The state from now on.
    pub state: State,
}

/// The state of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Built, not started.
    Built,
    /// Running.
    Running,
    /// Died, and waits to be built anew.
    Restarting,
    /// Ended normally.
    Ended,
}
