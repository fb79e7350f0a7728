//! Metrics of queues on disk that no sink reads.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use metrifold_engine::config::queues;
use metrifold_engine::reload::Board;
use metrifold_telemetry::{Metric, Telemetry};

/// Interval at which the queues are checked for changes.
const EVERY: Duration = Duration::from_secs(5);

/// Keeps the metrics up to date; never returns while the runtime lives.
pub(super) async fn show(board: Arc<Board>, telemetry: Telemetry) {
    let orphans = telemetry.gauge(Metric::OrphanedQueues, Vec::new());
    let batches = telemetry.gauge(Metric::OrphanedBatches, Vec::new());
    let mut seen = None;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let config = board.config();
        let look = move || {
            let now = queues::fingerprint(&config);
            let new = (seen != Some(now)).then(|| queues::orphans(&config));
            (now, new)
        };
        // Fails only when the runtime shuts down.
        let Ok((now, new)) = tokio::task::spawn_blocking(look).await else {
            return;
        };
        seen = Some(now);
        if let Some(found) = new {
            let held = found.iter().map(queues::Found::orphaned_batches);
            let held: Vec<_> = held.filter(|batches| *batches > 0).collect();
            orphans.set(held.len() as f64);
            batches.set(held.iter().sum::<u64>() as f64);
        }
    }
}
