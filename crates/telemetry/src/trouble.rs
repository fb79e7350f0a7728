//! The last error of a component, whether it is over, and since when its far end has been failing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::lock;

/// The last error of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// When it was.
    pub time: SystemTime,
    /// The text of the error.
    pub text: String,
    /// When what had failed succeeded again. What passes by itself, such as a batch that was
    /// refused, has no such end.
    pub over: Option<SystemTime>,
}

/// The errors of a component, and which of them are over.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// Whether a success would end something: all that is looked at with every success.
    open: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failing_since: Option<SystemTime>,
    last: Option<LastError>,
    /// Whether a success ends the last error.
    ends: bool,
}

impl Trouble {
    /// Something went wrong that is over as it happens.
    pub(super) fn happened(&self, text: String) {
        lock(&self.state).happened(text, false);
    }

    /// An attempt has failed, which the next success ends.
    pub(super) fn failed(&self, text: String) {
        let mut state = lock(&self.state);
        state.happened(text, true);
        state.failing_since.get_or_insert_with(SystemTime::now);
        self.open.store(true, Ordering::Relaxed);
    }

    /// An attempt has succeeded.
    pub(super) fn succeeded(&self) {
        if !self.open.load(Ordering::Relaxed) {
            return;
        }
        let mut state = lock(&self.state);
        self.open.store(false, Ordering::Relaxed);
        state.failing_since = None;
        if state.ends
            && let Some(last) = &mut state.last
        {
            last.over.get_or_insert_with(SystemTime::now);
        }
    }

    /// For how long attempts have failed without one that did not; none if the last one did not.
    pub(super) fn failing_for(&self) -> Option<Duration> {
        let since = lock(&self.state).failing_since?;
        // A clock that was set back says nothing.
        Some(since.elapsed().unwrap_or_default())
    }

    pub(super) fn last(&self) -> Option<LastError> {
        lock(&self.state).last.clone()
    }
}

impl State {
    fn happened(&mut self, text: String, ends: bool) {
        self.ends = ends;
        self.last = Some(LastError {
            time: SystemTime::now(),
            text,
            over: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_ends_what_has_failed_and_not_what_has_happened() {
        let trouble = Trouble::default();
        let over = || trouble.last().unwrap().over.is_some();
        trouble.failed("endpoint answered 503".into());
        trouble.failed("endpoint answered 502".into());
        assert!(!over() && trouble.failing_for().is_some());
        trouble.succeeded();
        assert!(over() && trouble.failing_for().is_none());
        assert_eq!(trouble.last().unwrap().text, "endpoint answered 502");
        trouble.happened("a batch is refused".into());
        trouble.succeeded();
        assert!(!over());
        trouble.failed("endpoint answered 503".into());
        trouble.happened("a batch is refused".into());
        assert!(trouble.failing_for().is_some());
        trouble.succeeded();
        assert!(!over() && trouble.failing_for().is_none());
    }
}
