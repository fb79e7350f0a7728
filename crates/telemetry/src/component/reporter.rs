//! The right to report a component's state, which the newest instance of the component holds.

use metrifold_base::locked as lock;

use crate::state::{State, StateChange};

use super::ComponentMetrics;

/// Reports the state of a component.
#[derive(Debug)]
pub struct Reporter {
    pub(super) metrics: ComponentMetrics,
    pub(super) turn: u64,
}

impl Reporter {
    /// Reports a state, unless a successor has taken the component's place.
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
        // The lock is held, so that watchers see the changes in order.
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
