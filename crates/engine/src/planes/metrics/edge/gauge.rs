//! The measurements of a queue for metrics and the topology.

use std::sync::Arc;

use metrifold_model::ledger::Ledger;
use metrifold_queue::{QueueConfig, age, now_millis};
use metrifold_telemetry::{DiskReading, QueueGauge};

use super::Pipe;

/// Reads the queue behind an edge.
pub(super) struct Gauge {
    pub(super) pipe: Arc<Pipe>,
    pub(super) config: QueueConfig,
}

impl QueueGauge for Gauge {
    fn fill(&self) -> (usize, usize, usize) {
        let queue = &self.pipe.queue;
        (
            queue.bytes(),
            self.config.memory_bytes().bytes(),
            queue.waiting(),
        )
    }

    fn disk(&self) -> Option<DiskReading> {
        let spill = self.pipe.spill.get()?;
        let snapshot = spill.snapshot();
        let queued = snapshot.total.queued();
        let age = |accepted| age(accepted, now_millis()).as_secs_f64();
        let stats = spill.disk().stats();
        let dropped = spill.newly_dropped(&snapshot);
        for (reason, tally) in &dropped {
            self.pipe.losses.note(*reason, *tally);
        }
        Some(DiskReading {
            samples: queued.samples,
            batches: queued.batches,
            bytes: snapshot.bytes,
            max_bytes: self.config.max_bytes().0,
            oldest_seconds: snapshot.oldest.map_or(0.0, age),
            drain_seconds: spill.seconds_to_drain(queued.bytes),
            fsyncs: stats.fsyncs,
            corrupt: spill.corrupt(),
            dropped,
        })
    }

    fn drain_seconds(&self, bytes: u64, sent_per_second: f64) -> Option<f64> {
        match self.pipe.spill.get() {
            Some(spill) => spill.seconds_to_drain(bytes),
            None if bytes == 0 => Some(0.0),
            None => (sent_per_second > 0.0).then(|| bytes as f64 / sent_per_second),
        }
    }

    fn ledger(&self) -> Ledger {
        self.pipe.ledger()
    }

    fn upkeep(&self) {
        self.pipe.losses.flush(false);
    }
}
