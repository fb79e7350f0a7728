//! Whether a component runs, and who may say so.

use std::sync::Arc;

use metrifold_base::locked as lock;
use metrifold_model::Kind;

use super::ComponentMetrics;

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

/// Whether a component runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Built, not started.
    Built,
    /// Runs.
    Running,
    /// Died, and will be built anew.
    Restarting,
    /// Has ended as it should.
    Ended,
}

/// Says whether a component runs.
#[derive(Debug)]
pub struct Reporter {
    pub(crate) metrics: ComponentMetrics,
    pub(crate) turn: u64,
}

impl Reporter {
    /// Says so, unless a successor has taken the component's place.
    pub fn set(&self, new: State) {
        let component = &self.metrics.0;
        let mut state = lock(&component.state);
        if state.0 != self.turn {
            return;
        }
        state.1 = new;
        match new {
            State::Restarting => component.restarts.increment(1),
            State::Running => component.trouble.succeeded(),
            State::Built | State::Ended => {}
        }
        component.up.set(f64::from(new == State::Running));
        // With the lock held, so that changes are told in their order.
        if let Some(tell) = component.telemetry.shared.states.get() {
            tell(StateChange {
                id: component.id.clone(),
                kind: component.kind,
                type_name: component.type_name.clone(),
                state: new,
            });
        }
    }
}
