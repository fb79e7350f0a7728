//! Waiting for what can be observed, never longer than a bound.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(5);

/// A time until which something has to have happened.
#[derive(Debug)]
pub struct Deadline {
    what: String,
    limit: Duration,
    end: Instant,
}

impl Deadline {
    /// Begins to wait for `what`, for [`PATIENCE`] at most.
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

    /// Panics when the time is over.
    #[track_caller]
    pub fn check(&self) {
        let Self { what, limit, end } = self;
        assert!(
            Instant::now() < *end,
            "waited {limit:?} in vain until {what}"
        );
    }

    /// Panics when the time is over, and pauses between two looks.
    #[track_caller]
    pub fn pause(&self) {
        self.check();
        std::thread::sleep(LOOK);
    }

    /// What is left of the time.
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }
}

/// Looks until there is something to see.
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

/// Looks until it is so.
#[track_caller]
pub fn until_so(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}

/// Raises a flag when the thread that holds it panics, so that threads which go on until the flag
/// is raised do not go on for ever, and whoever joins them learns of the panic.
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
