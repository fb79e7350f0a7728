//! Asking again and again.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use metrifold_base::{BoxFuture, RunError};

use super::slot::Feed;

/// Something that is asked now and then.
pub(crate) trait Polled: Send + 'static {
    /// Asks once, and tells the feed what came of it.
    fn ask<'a>(
        &'a mut self,
        feed: &'a Feed,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), RunError>> + Send + 'a>>;
}

/// Asks at once, and then once in every `pause`.
pub(crate) fn poll(
    mut polled: impl Polled,
    pause: Duration,
    feed: Feed,
) -> BoxFuture<Result<(), RunError>> {
    Box::pin(async move {
        let mut ticks = interval(pause);
        // An attempt that takes longer than the pause is followed by one pause.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            polled.ask(&feed).await?;
        }
    })
}

/// Does what takes a while, on a thread where it keeps nobody waiting.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RunError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| RunError(error.to_string()))
}
