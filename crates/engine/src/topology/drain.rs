//! The end of components that a reload has replaced or removed: in the background, within a time
//! limit.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use metrifold_base::{Shutdown, Size};
use metrifold_model::ledger::{Reason, Tally};

use crate::planes::{Drain, Ending};

use super::Leftover;
use super::supervise::Task;

/// A removed sink: its name, its task and its edge.
pub(super) type Removed = (Arc<str>, Task<()>, Arc<dyn Drain>);

/// Components that have been told to stop and have to end.
pub(super) struct Retired {
    /// Replaced and removed sources.
    pub(super) sources: Vec<(Arc<str>, Task<()>)>,
    /// Sinks whose queue a successor has taken over.
    pub(super) replaced: Vec<(Arc<str>, Task<()>)>,
    /// Sinks that have no successor.
    pub(super) removed: Vec<Removed>,
    /// Closes once nobody sends through the stages before this reload.
    pub(super) in_use: watch::Sender<()>,
    /// Receiver of the stages after this reload: held while anybody sends through the stages before
    /// it, so that the later stages count as in use too. A sender may be a source that was removed
    /// several reloads ago and still drains.
    pub(super) later: watch::Receiver<()>,
}

impl Retired {
    /// Waits until requests and deliveries in flight have ended, `deadline` has passed or `hurry`
    /// is set. Gives up the rest.
    pub(super) async fn drain(self, deadline: Instant, mut hurry: Shutdown) -> Vec<Leftover> {
        let Self {
            mut sources,
            mut replaced,
            mut removed,
            in_use,
            later,
        } = self;
        let ending = async {
            // A removed sink accepts items for as long as anybody sends to it.
            in_use.closed().await;
            drop(later);
            for (_, _, edge) in &removed {
                edge.close(Ending::Removed);
                edge.clone().secure(deadline).await;
            }
            for (_, task) in sources.iter_mut().chain(&mut replaced) {
                ended(task).await;
            }
            for (_, task, _) in &mut removed {
                ended(task).await;
            }
        };
        let in_time = tokio::select! {
            () = ending => true,
            () = sleep_until(deadline) => false,
            () = hurry.wait() => false,
        };
        if !in_time {
            cut("source", sources).await;
            // Deliveries that are cut off return to the queue that the sink's successor serves.
            cut("sink", replaced).await;
        }
        let mut left = Vec::new();
        for (sink, task, edge) in removed {
            edge.close(Ending::Removed);
            // Both are read before the task is dropped, which gives up the batches in flight: those
            // are counted as queued. Batches with which the sink died earlier are among the dropped.
            let queued = edge.left();
            let mut dropped = edge.dropped();
            dropped.retain(|reason, _| *reason == Reason::Removed);
            drop(task);
            edge.abandon();
            edge.shut().await;
            for died in dropped.values() {
                tell(&sink, *died, "see the errors of the sink before");
            }
            if queued.batches == 0 && dropped.is_empty() {
                info!(%sink, "sink was removed and has ended: nothing is left in memory");
                continue;
            }
            if queued.batches > 0 {
                tell(
                    &sink,
                    queued,
                    "give the sink a queue on disk, keep its name, or raise --drain-limit",
                );
            }
            left.push(Leftover {
                sink,
                queued,
                dropped,
            });
        }
        left
    }
}

/// Logs what a removed sink had, in the words of the process' end.
fn tell(sink: &str, lost: Tally, advice: &str) {
    let Tally {
        batches,
        samples,
        uncounted,
        bytes,
    } = lost;
    let (reason, size) = (Reason::Removed.as_str(), Size(bytes));
    error!(%sink, reason, batches, samples, uncounted_batches = uncounted, %size, advice, "left undelivered");
}

/// Waits until a component has ended; returns at once if it has.
async fn ended(task: &mut Task<()>) {
    if !task.is_finished() {
        // A panic of the supervisor would be an end as well.
        let _ = task.ended().await;
    }
}

async fn cut(kind: &str, tasks: Vec<(Arc<str>, Task<()>)>) {
    for (id, task) in tasks {
        if !task.is_finished() {
            warn!(component = %id, kind, "component was replaced but did not stop in time, and was aborted");
        }
        drop(task);
    }
}
