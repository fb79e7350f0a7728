//! Counters of the batches, samples and bytes through one side of a component, with recent rates.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::Counter;

use metrifold_model::Counts;

use super::UPKEEP;

/// Meters of one side of a component: what it received, or what it sent.
pub struct Flow {
    pub(crate) batches: Meter,
    pub(crate) samples: Meter,
    pub(crate) bytes: Meter,
}

/// A counter whose total can be read back, and its rate over the last upkeep interval.
pub(crate) struct Meter {
    exported: Counter,
    total: AtomicU64,
    before: AtomicU64,
    rate: AtomicU64,
}

impl Meter {
    pub(crate) fn new(exported: Counter) -> Self {
        Self {
            exported,
            total: AtomicU64::new(0),
            before: AtomicU64::new(0),
            rate: AtomicU64::new(0),
        }
    }

    fn add(&self, n: u64) {
        if n > 0 {
            self.exported.increment(n);
            self.total.fetch_add(n, Ordering::Relaxed);
        }
    }

    fn tick(&self) {
        let total = self.total.load(Ordering::Relaxed);
        let before = self.before.swap(total, Ordering::Relaxed);
        let rate = (total - before) as f64 / UPKEEP.as_secs_f64();
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn rate(&self) -> f64 {
        f64::from_bits(self.rate.load(Ordering::Relaxed))
    }
}

impl Flow {
    /// Counts a batch; `counts` is `None` if the batch was never decoded.
    pub fn batch(&self, counts: Option<Counts>, bytes: usize) {
        self.batches.add(1);
        self.bytes.add(bytes as u64);
        if let Some(counts) = counts {
            self.samples.add(counts.all_samples());
        }
    }

    pub(crate) fn tick(&self) {
        self.batches.tick();
        self.samples.tick();
        self.bytes.tick();
    }

    /// Totals and rates per second, for the topology API.
    pub fn reading(&self) -> FlowReading {
        let total = |meter: &Meter| meter.total.load(Ordering::Relaxed);
        FlowReading {
            batches: total(&self.batches),
            samples: total(&self.samples),
            bytes: total(&self.bytes),
            batches_per_second: self.batches.rate(),
            samples_per_second: self.samples.rate(),
            bytes_per_second: self.bytes.rate(),
        }
    }
}

/// Totals since the start, and rates per second over the last upkeep interval.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct FlowReading {
    batches: u64,
    samples: u64,
    bytes: u64,
    batches_per_second: f64,
    samples_per_second: f64,
    bytes_per_second: f64,
}
