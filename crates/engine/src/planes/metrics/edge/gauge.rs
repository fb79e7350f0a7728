//! What a queue tells of itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use metrifold_model::ledger::Ledger;
use metrifold_queue::QueueConfig;
use metrifold_telemetry::{DiskReading, QueueGauge};

use super::{Line, store};

/// Reads the queue behind an edge.
pub(super) struct Gauge {
    pub(super) line: Arc<Line>,
    pub(super) config: QueueConfig,
}

impl QueueGauge for Gauge {
    fn fill(&self) -> (usize, usize, usize) {
        let queue = &self.line.queue;
        (
            queue.bytes(),
            self.config.memory_bytes().bytes(),
            queue.waiting(),
        )
    }

    fn disk(&self) -> Option<DiskReading> {
        let store = self.line.store.get()?;
        let snapshot = store.snapshot();
        let queued = snapshot.total.queued();
        let age = |accepted| store::now_millis().saturating_sub(accepted) as f64 / 1000.0;
        let stats = store.stats();
        Some(DiskReading {
            samples: queued.samples,
            batches: queued.batches,
            bytes: snapshot.bytes,
            max_bytes: self.config.max_bytes().0,
            oldest_seconds: snapshot.oldest.map_or(0.0, age),
            drain_seconds: store.drained.seconds(queued.bytes),
            fsyncs: stats.fsyncs,
            corrupt: store.watch.corrupt.load(Ordering::Relaxed),
            dropped: store.newly_dropped(&snapshot),
        })
    }

    fn drain_seconds(&self, bytes: u64, sent_per_second: f64) -> Option<f64> {
        match self.line.store.get() {
            Some(store) => store.drained.seconds(bytes),
            None if bytes == 0 => Some(0.0),
            None => (sent_per_second > 0.0).then(|| bytes as f64 / sent_per_second),
        }
    }

    fn ledger(&self) -> Ledger {
        self.line.ledger()
    }
}
