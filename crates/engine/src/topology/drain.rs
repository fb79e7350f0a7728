//! The end of components that a reload has replaced or removed: in the background, within a limit.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use metrifold_base::{Shutdown, Size};

use crate::planes::{Drain, Ending};

use super::Leftover;
use super::supervise::Task;

/// A sink that is there no more, and what led to it.
pub(super) type Removed = (Arc<str>, Task<()>, Arc<dyn Drain>);

/// What has been told to stop, and has to end.
pub(super) struct Retired {
    /// Those whose place another one has taken are among them.
    pub(super) sources: Vec<(Arc<str>, Task<()>)>,
    /// Sinks whose queue another one has taken over.
    pub(super) replaced: Vec<(Arc<str>, Task<()>)>,
    /// Sinks that are there no more.
    pub(super) removed: Vec<Removed>,
    /// Of the stages before.
    pub(super) in_use: watch::Sender<()>,
    /// Of the stages after: those count as in use as well while somebody sends through the ones
    /// before, who may be a source that was removed long ago and drains.
    pub(super) later: watch::Receiver<()>,
}

impl Retired {
    /// Lets requests and deliveries that are under way come to their end until `deadline` or
    /// until there is a `hurry`, and gives up what is left then.
    pub(super) async fn drain(self, deadline: Instant, mut hurry: Shutdown) -> Vec<Leftover> {
        let Self {
            mut sources,
            mut replaced,
            mut removed,
            in_use,
            later,
        } = self;
        let ending = async {
            // As long as somebody sends to a sink that was removed, it takes what he sends.
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
            // The deliveries of sinks that are cut off go back to their successors.
            cut("sink", replaced).await;
        }
        let mut left = Vec::new();
        for (sink, task, edge) in removed {
            edge.close(Ending::Removed);
            // Before its task is cut off, which gives up what is in flight.
            let queued = edge.left();
            drop(task);
            edge.abandon();
            edge.shut().await;
            if queued.batches == 0 {
                info!(%sink, "sink was removed and has drained");
                continue;
            }
            let (batches, samples, size) = (queued.batches, queued.samples, Size(queued.bytes));
            warn!(%sink, batches, samples, %size, "sink was removed and gave up what it had not delivered in time");
            left.push(Leftover {
                sink,
                queued,
                dropped: BTreeMap::new(),
            });
        }
        left
    }
}

/// Waits for a component's end. A task that has ended already is not waited for again.
async fn ended(task: &mut Task<()>) {
    if !task.is_finished() {
        // A supervisor does not panic; if it did, that would be its end, too.
        let _ = task.ended().await;
    }
}

async fn cut(kind: &str, tasks: Vec<(Arc<str>, Task<()>)>) {
    for (id, task) in tasks {
        if !task.is_finished() {
            warn!(component = %id, kind, "component was replaced and did not end in time");
        }
        drop(task);
    }
}
