//! Estimates when a sender that found no room should retry.

use metrifold_queue::LONGEST_RETRY;

use super::Edge;

impl Edge {
    /// Seconds after which a retry is worthwhile, as far as the queue can tell.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        match self.pipe.spill.get() {
            Some(spill) => Some(spill.retry_after()),
            None => self.memory_retry_after(),
        }
    }

    /// The same estimate, if the queue keeps requests in memory: a queue in memory does while it has
    /// batches, and a queue on disk only while it is full.
    pub(crate) fn holds_up(&self) -> Option<u64> {
        let Some(spill) = self.pipe.spill.get() else {
            return self.memory_retry_after();
        };
        // Room becomes free by whole segments, of which there are sixteen.
        let max = self.config.max_bytes().0;
        let full = spill.snapshot().bytes >= max - max / 16;
        full.then(|| spill.retry_after())
    }

    /// Seconds until the queued batches have left memory; `None` if the queue is empty. If nothing
    /// leaves at all, the estimate grows with the fill of the queue.
    fn memory_retry_after(&self) -> Option<u64> {
        let bytes = self.pipe.queue.bytes();
        if bytes == 0 {
            return None;
        }
        let seconds = self.pipe.outflow.seconds_for(bytes as u64);
        let seconds = seconds.unwrap_or_else(|| {
            let max = self.config.memory_bytes().bytes().max(1);
            LONGEST_RETRY as f64 * bytes as f64 / max as f64
        });
        Some((seconds.ceil() as u64).clamp(1, LONGEST_RETRY))
    }
}
