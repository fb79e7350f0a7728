//! Providers that ask at an interval.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use metrifold_base::{BoxFuture, RunError};

use super::slot::Feed;

/// A provider that asks once per interval.
pub(crate) trait Polled: Send + 'static {
    /// Asks once, and reports the outcome to the feed.
    fn ask<'a>(
        &'a mut self,
        feed: &'a Feed,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), RunError>> + Send + 'a>>;
}

/// Asks at once, and then every `pause`.
pub(crate) fn poll(
    mut polled: impl Polled,
    pause: Duration,
    feed: Feed,
) -> BoxFuture<Result<(), RunError>> {
    Box::pin(async move {
        let mut ticks = interval(pause);
        // After an attempt that takes longer than the pause, the next one starts at once, and the
        // pauses count from there.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            polled.ask(&feed).await?;
        }
    })
}

/// Runs blocking work on a thread of its own, off the workers.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RunError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| RunError(error.to_string()))
}
