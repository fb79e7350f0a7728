//! Waits with a bound for observable states.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest time that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two polls.
const LOOK: Duration = Duration::from_millis(5);

/// The end of a wait.
#[derive(Debug)]
pub struct Deadline {
    what: String,
    limit: Duration,
    end: Instant,
}

impl Deadline {
    /// Starts a wait for `what` of at most [`PATIENCE`].
    pub fn new(what: &str) -> Self {
        Self::within(PATIENCE, what)
    }

    pub fn within(limit: Duration, what: &str) -> Self {
        Self {
            what: what.to_owned(),
            limit,
            end: Instant::now() + limit,
        }
    }

    /// Panics if the time is up.
    #[track_caller]
    pub fn check(&self) {
        let Self { what, limit, end } = self;
        assert!(
            Instant::now() < *end,
            "waited {limit:?} in vain until {what}"
        );
    }

    /// Panics if the time is up, or else pauses until the next poll.
    #[track_caller]
    pub fn pause(&self) {
        self.check();
        std::thread::sleep(LOOK);
    }

    /// Time that is left.
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }
}

/// Polls `look` until it returns something.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Deadline::new(what);
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        deadline.pause();
    }
}

/// Polls `look` until it returns true.
#[track_caller]
pub fn until_so(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}

/// Raises a flag when its thread panics, so that other threads that run until the flag is raised
/// end, and joining them shows the panic.
#[derive(Debug)]
pub struct StopOnPanic<'a>(pub &'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_is_over_says_what_was_awaited() {
        let deadline = Deadline::within(Duration::ZERO, "pigs fly");
        let panic = std::panic::catch_unwind(|| deadline.check()).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert_eq!(message, "waited 0ns in vain until pigs fly");
    }

    #[test]
    fn a_panic_stops_the_others() {
        let stop = AtomicBool::new(false);
        let panic = std::panic::catch_unwind(|| {
            let _guard = StopOnPanic(&stop);
            panic!("as intended");
        });
        assert!(panic.is_err() && stop.load(Ordering::SeqCst));
        let calm = AtomicBool::new(false);
        drop(StopOnPanic(&calm));
        assert!(!calm.load(Ordering::SeqCst));
    }
}
