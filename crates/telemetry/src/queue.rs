//! What queues tell of themselves, as the page shows it.

use metrifold_model::ledger::{Ledger, Reason, Tally};

/// What a queue tells of itself.
pub trait QueueGauge: Send + Sync {
    /// Bytes, bound in bytes, batches waiting.
    fn fill(&self) -> (usize, usize, usize);

    /// What is on disk, if it has a queue there.
    fn disk(&self) -> Option<DiskReading> {
        None
    }

    /// What came to the sink and what became of it.
    fn ledger(&self) -> Ledger;

    /// How long it takes to deliver so many bytes, if so many are sent; none if nothing goes.
    fn drain_seconds(&self, bytes: u64, sent_per_second: f64) -> Option<f64>;
}

/// What a queue on disk tells of itself.
#[derive(Clone, Debug)]
pub struct DiskReading {
    /// Samples that are queued, of batches that were decoded.
    pub samples: u64,
    /// Batches that are queued.
    pub batches: u64,
    /// What the files take.
    pub bytes: u64,
    /// What they may take.
    pub max_bytes: u64,
    /// How long ago the oldest batch was accepted.
    pub oldest_seconds: f64,
    /// How long draining it takes at the present rate; none if nothing goes.
    pub drain_seconds: Option<f64>,
    /// How often the disk was asked to make something durable.
    pub fsyncs: u64,
    /// Batches that were lost to damage.
    pub corrupt: u64,
    /// What was dropped on disk since the last reading, by reason.
    pub dropped: Vec<(Reason, Tally)>,
}
