//! The last error of a component, whether it is over, and since when its far end has been failing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::lock;

/// The last error of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// When it occurred.
    pub time: SystemTime,
    /// The text of the error.
    pub text: String,
    /// When an attempt succeeded again; `None` while it has not, and for errors that no success
    /// ends, such as a refused batch.
    pub over: Option<SystemTime>,
}

/// The last error of a component, and the time since when its far end has been failing.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// Whether a success would change the state, so that the common success takes no lock.
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
    /// Records an error that no later success ends.
    pub(super) fn happened(&self, text: String) {
        lock(&self.state).happened(text, false);
    }

    /// Records a failed attempt; the next success ends the error.
    pub(super) fn failed(&self, text: String) {
        let mut state = lock(&self.state);
        state.happened(text, true);
        state.failing_since.get_or_insert_with(SystemTime::now);
        self.open.store(true, Ordering::Relaxed);
    }

    /// Records a successful attempt.
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

    /// Time since the first failed attempt after the last success; `None` if the last attempt
    /// succeeded.
    pub(super) fn failing_for(&self) -> Option<Duration> {
        let since = lock(&self.state).failing_since?;
        // A clock that was set back yields zero.
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
