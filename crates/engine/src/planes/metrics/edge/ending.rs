//! The end of an edge: the last batches are stored or given up, and their senders are told.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use metrifold_base::Size;
use metrifold_codec::remote_write::Unsent;
use metrifold_model::ledger::{Reason, Tally};

use super::Edge;
use crate::planes::Ending;

/// Limit on closing a queue on disk.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

impl Ending {
    /// The reason under which given-up batches are counted, and the text for their senders.
    pub(super) fn reason(self) -> (Reason, &'static str) {
        match self {
            Self::Shutdown => (Reason::Shutdown, "shut down before it was delivered"),
            Self::Removed => (Reason::Removed, "sink was removed before it was delivered"),
        }
    }
}

impl Edge {
    /// Closes the queue: the sink's input ends once it is empty.
    pub(crate) fn close(&self, ending: Ending) {
        // Only the first reason is kept.
        let _ = self.pipe.ending.set(ending);
        if let Some(spill) = self.pipe.spill.get() {
            spill.begin_close();
        }
        self.pipe.queue.close();
    }

    /// Stores the batches that are in memory alone, until `deadline`.
    pub(crate) async fn store(&self, deadline: Instant) {
        if let Some(spill) = self.spill() {
            spill.secure(deadline).await;
        }
    }

    /// Stores them once nothing more arrives. If the endpoint fails, the sink stops retrying.
    pub(crate) async fn secure(&self, deadline: Instant) {
        self.store(deadline).await;
        if self.spill().is_some_and(|spill| spill.is_failing()) {
            // Batches in flight return, and stay on disk.
            self.pass_turn();
        }
    }

    /// Counts of the batches that are in memory alone, those in flight included. They come from the
    /// accounts, since the places that hold the batches cannot be read at one moment: a batch
    /// between two places would be missed, and its loss not be told.
    pub(crate) fn left(&self) -> Tally {
        self.pipe.accounts.queued()
    }

    /// Counts of the batches that this process has dropped so far, by reason.
    pub(crate) fn dropped(&self) -> BTreeMap<Reason, Tally> {
        self.pipe.ledger().total.of_this_process().dropped
    }

    /// Gives up the batches that no sink will receive any more.
    pub(crate) fn abandon(&self) {
        for waiting in self.pipe.queue.end() {
            self.give_up_at_end(waiting);
        }
        self.pipe.losses.flush(true);
        let exemplars = self.pipe.companions.give_up();
        if exemplars > 0 {
            self.metrics
                .discarded_exemplars(Unsent::WITHOUT_SAMPLE, exemplars);
            info!(sink = %self.id, exemplars, "dropped exemplars of series without samples");
        }
    }

    /// Closes the queue on disk, once nobody sends or receives any more.
    pub(crate) async fn shut(&self) {
        let Some(spill) = self.pipe.spill.get().cloned() else {
            return;
        };
        spill.close();
        let closing = spill.clone();
        let closed = tokio::task::spawn_blocking(move || closing.disk().close());
        if timeout(CLOSE_LIMIT, closed).await.is_err() {
            warn!(sink = %self.id, "queue on disk was not closed in time: batches that were delivered last may be delivered again");
        }
        let snapshot = spill.snapshot();
        for (reason, tally) in spill.newly_dropped(&snapshot) {
            self.pipe.losses.note(reason, tally);
        }
        self.pipe.losses.flush(true);
        let queued = snapshot.total.queued();
        if queued.batches > 0 {
            let size = Size(queued.bytes);
            let path = spill.path().display();
            info!(sink = %self.id, batches = queued.batches, %size, folder = %path, "undelivered batches stay on disk");
        }
    }
}
