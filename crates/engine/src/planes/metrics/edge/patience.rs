//! When it is worth trying again for a sender that found no room.

use metrifold_queue::LONGEST_RETRY;

use super::Edge;

impl Edge {
    /// After how many seconds it is worth trying again, as far as its queue knows.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        match self.pipe.spill.get() {
            Some(spill) => Some(spill.retry_after()),
            None => self.memory_retry_after(),
        }
    }

    /// The same, if it is for its queue that senders wait.
    pub(crate) fn holds_up(&self) -> Option<u64> {
        let Some(spill) = self.pipe.spill.get() else {
            return self.memory_retry_after();
        };
        // Room comes by segments, of which there are sixteen.
        let max = self.config.max_bytes().0;
        let full = spill.snapshot().bytes >= max - max / 16;
        full.then(|| spill.retry_after())
    }

    /// In how many seconds those who wait for memory now are through; none if nobody waits. If
    /// nothing leaves at all, nobody knows: the fuller the queue, the longer.
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
