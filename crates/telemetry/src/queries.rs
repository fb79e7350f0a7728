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

/// A query in flight. Drop it when the answer has been sent.
pub struct UnderWay(Gauge);

impl QueryMeters {
    pub(super) fn new(recording: &Recording, labels: &[Label]) -> Self {
        Self {
            seconds: recording.histogram(Metric::QuerySeconds, labels.to_vec()),
            in_flight: recording.gauge(Metric::QueriesInFlight, labels.to_vec()),
        }
    }

    /// Counts a query as in flight.
    pub fn begin(&self) -> UnderWay {
        self.in_flight.increment(1.0);
        UnderWay(self.in_flight.clone())
    }

    /// Records the time from a query's arrival to the head of its answer.
    pub fn head_after(&self, time: Duration) {
        self.seconds.record(time.as_secs_f64());
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
