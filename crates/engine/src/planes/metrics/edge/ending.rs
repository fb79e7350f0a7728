//! The end of an edge: what is stored last, what is given up, and what senders hear of that.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use metrifold_base::Size;
use metrifold_codec::remote_write::Unsent;
use metrifold_model::ledger::{Reason, Tally};

use super::Edge;
use crate::planes::Ending;

/// How long closing a queue on disk may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

impl Ending {
    /// The reason under which it is counted that a batch was given up, and what its sender hears.
    pub(super) fn reason(self) -> (Reason, &'static str) {
        match self {
            Self::Shutdown => (Reason::Shutdown, "shut down before it was delivered"),
            Self::Removed => (Reason::Removed, "sink was removed before it was delivered"),
        }
    }
}

impl Edge {
    /// Ends the sink's input once it is empty.
    pub(crate) fn close(&self, ending: Ending) {
        // Only the first reason counts.
        let _ = self.pipe.ending.set(ending);
        if let Some(spill) = self.pipe.spill.get() {
            spill.begin_close();
        }
        self.pipe.queue.close();
    }

    /// Stores what only memory has, until `deadline`.
    pub(crate) async fn store(&self, deadline: Instant) {
        if let Some(spill) = self.spill() {
            spill.secure(deadline).await;
        }
    }

    /// The same, once nothing more comes. If the sink fails, it is to try no more.
    pub(crate) async fn secure(&self, deadline: Instant) {
        self.store(deadline).await;
        if self.spill().is_some_and(|spill| spill.is_failing()) {
            // What is under way comes back, and stays on disk.
            self.pass_turn();
        }
    }

    /// What memory alone has, deliveries in flight included.
    pub(crate) fn left(&self) -> Tally {
        let held = self.pipe.held();
        let mut left = held.none;
        for tally in held.named.values() {
            left += *tally;
        }
        left
    }

    /// What this process has dropped so far, by reason.
    pub(crate) fn dropped(&self) -> BTreeMap<Reason, Tally> {
        self.pipe.ledger().total.of_this_process().dropped
    }

    /// Gives up what nobody will take any more.
    pub(crate) fn abandon(&self) {
        for waiting in self.pipe.queue.end() {
            self.give_up_at_end(waiting);
        }
        let exemplars = self.pipe.companions.give_up();
        if exemplars > 0 {
            self.metrics
                .discarded_exemplars(Unsent::WITHOUT_SAMPLE, exemplars);
            info!(sink = %self.id, exemplars, "exemplars were given up for which no sample of their series came");
        }
    }

    /// Closes the queue on disk, once nobody sends and nobody takes any more.
    pub(crate) async fn shut(&self) {
        let Some(spill) = self.pipe.spill.get().cloned() else {
            return;
        };
        spill.close();
        let closing = spill.clone();
        let closed = tokio::task::spawn_blocking(move || closing.disk().close());
        if timeout(CLOSE_LIMIT, closed).await.is_err() {
            warn!(sink = %self.id, "queue on disk was not closed in time: some of what was delivered last is delivered again");
        }
        let queued = spill.snapshot().total.queued();
        if queued.batches > 0 {
            let size = Size(queued.bytes);
            let path = spill.path().display();
            info!(sink = %self.id, batches = queued.batches, %size, folder = %path, "what was not delivered stays on disk");
        }
    }
}
