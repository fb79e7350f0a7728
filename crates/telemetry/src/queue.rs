//! Readings of queues for the metrics page.

use metrifold_model::ledger::{Ledger, Reason, Tally};

/// A queue whose fill and ledger the metrics page shows.
pub trait QueueGauge: Send + Sync {
    /// Bytes, byte bound, and batches waiting.
    fn fill(&self) -> (usize, usize, usize);

    /// State of the queue on disk; `None` if the queue is in memory only.
    fn disk(&self) -> Option<DiskReading> {
        None
    }

    /// Batches and samples that the sink received, delivered, dropped and still has.
    fn ledger(&self) -> Ledger;

    /// Logs what was held back. Called every [`UPKEEP`](super::UPKEEP).
    fn upkeep(&self) {}

    /// Seconds that delivering `bytes` takes: at the rate that the queue on disk measures, or else
    /// at `sent_per_second`. `None` if nothing is delivered.
    fn drain_seconds(&self, bytes: u64, sent_per_second: f64) -> Option<f64>;
}

/// State of a queue on disk.
#[derive(Clone, Debug)]
pub struct DiskReading {
    /// Queued samples, of decoded batches only.
    pub samples: u64,
    /// Queued batches.
    pub batches: u64,
    /// Bytes that the files take.
    pub bytes: u64,
    /// Bytes that the files may take.
    pub max_bytes: u64,
    /// Age of the oldest batch, counted from when it was accepted.
    pub oldest_seconds: f64,
    /// Seconds until the queue is drained at the present rate; `None` if nothing is delivered.
    pub drain_seconds: Option<f64>,
    /// Number of syncs.
    pub fsyncs: u64,
    /// Batches lost to damage.
    pub corrupt: u64,
    /// Batches dropped on disk since the last reading, by reason.
    pub dropped: Vec<(Reason, Tally)>,
}
