//! The meters of a sink that answers queries.

use std::time::Duration;

use metrics::{Gauge, Histogram, Label};

use super::Metric;
use super::recording::Recording;

/// Held handles of a sink that answers queries.
pub struct QueryMeters {
    seconds: Histogram,
    in_flight: Gauge,
}

/// A query that is being answered. Drop it when the answer is over.
pub struct UnderWay(Gauge);

impl QueryMeters {
    pub(super) fn new(recording: &Recording, labels: &[Label]) -> Self {
        Self {
            seconds: recording.histogram(Metric::QuerySeconds, labels.to_vec()),
            in_flight: recording.gauge(Metric::QueriesInFlight, labels.to_vec()),
        }
    }

    /// Counts a query as being answered.
    pub fn begin(&self) -> UnderWay {
        self.in_flight.increment(1.0);
        UnderWay(self.in_flight.clone())
    }

    /// The head of an answer was there after this time.
    pub fn head_after(&self, time: Duration) {
        self.seconds.record(time.as_secs_f64());
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
