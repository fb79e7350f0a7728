//! Log messages about batches that a sink's queue drops, and about samples that a sink has no room or
//! no form for. What is lost at an endpoint is logged with its answer, by the sinks that send.

use std::sync::Arc;
use std::time::Duration;

use tracing::error;

use metrifold_base::{Limited, Sum};
use metrifold_model::ledger::{Reason, Tally};

/// Minimum time between two messages about one reason.
const EVERY: Duration = Duration::from_secs(10);

/// The losses of one sink, by reason.
#[derive(Debug)]
pub(super) struct Losses {
    sink: Arc<str>,
    reasons: Limited<Reason, Lost>,
}

#[derive(Debug)]
struct Lost {
    /// Number of messages that this one stands for.
    times: u64,
    tally: Tally,
}

impl Sum for Lost {
    fn add(&mut self, later: Self) {
        self.times += later.times;
        self.tally += later.tally;
    }
}

impl Losses {
    pub(super) fn new(sink: Arc<str>) -> Self {
        Self {
            sink,
            reasons: Limited::new(EVERY),
        }
    }

    /// Reports data that is lost, unless something else reports this reason.
    pub(super) fn note(&self, reason: Reason, tally: Tally) {
        if told(reason).is_some()
            && let Some(lost) = self.reasons.note(reason, Lost { times: 1, tally })
        {
            self.tell(reason, &lost);
        }
    }

    /// Logs the messages that were held back, as far as they are due, or all of them.
    pub(super) fn flush(&self, all: bool) {
        for (reason, lost) in self.reasons.held(all) {
            self.tell(reason, &lost);
        }
    }

    fn tell(&self, reason: Reason, lost: &Lost) {
        let Some((text, advice)) = told(reason) else {
            return;
        };
        let Tally {
            batches,
            samples,
            uncounted,
            ..
        } = lost.tally;
        let suppressed = lost.times - 1;
        error!(
            sink = %self.sink, reason = reason.as_str(), samples, batches, uncounted_batches = uncounted,
            suppressed, error = text, advice, "data is lost"
        );
    }
}

impl Drop for Losses {
    fn drop(&mut self) {
        self.flush(true);
    }
}

/// The cause of a loss, and the advice to the operator. `None` for reasons that are reported elsewhere
/// or are no loss.
fn told(reason: Reason) -> Option<(&'static str, &'static str)> {
    Some(match reason {
        Reason::QueueFull => (
            "queue is full",
            "fix the endpoint or the access to it, raise queue.max_bytes, or let senders wait: a required \
             sink does with queue.when_full = \"block\"",
        ),
        Reason::TooOld => (
            "reached queue.max_age on disk",
            "fix the endpoint or the access to it, or raise queue.max_age",
        ),
        Reason::Corrupt => (
            "the disk did not return what was written",
            "check the disk: the messages about the queue on disk name the files",
        ),
        Reason::TooLarge => (
            "the batch is larger than the queue",
            "raise queue.max_bytes, or let the sender send less at a time",
        ),
        Reason::DiskFailed => (
            "the disk did not take the batch",
            "check the disk: the message that batches cannot be stored has its error",
        ),
        Reason::SinkDied => (
            "the sink failed while it had the batch",
            "see the message about the component's failure, and report it",
        ),
        Reason::TooManySeries => (
            "the page is full",
            "raise max_series and max_bytes, or drop series in front of the sink",
        ),
        Reason::NativeHistogram => (
            "the text format has no place for native histograms",
            "drop them in front of the sink, or send them to one of another type",
        ),
        Reason::NoMetricName => (
            "series without a metric name",
            "fix the sender, or the rules that removed the name",
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The others are told by sinks that send, or are no loss, or are told as what the end of the
    /// process or of the sink has left.
    #[test]
    fn what_a_queue_or_a_page_drops_is_told_here() {
        let here = Reason::ALL.into_iter().filter(|it| told(*it).is_some());
        assert_eq!(
            here.collect::<Vec<_>>(),
            [
                Reason::QueueFull,
                Reason::TooOld,
                Reason::Corrupt,
                Reason::TooLarge,
                Reason::SinkDied,
                Reason::DiskFailed,
                Reason::TooManySeries,
                Reason::NativeHistogram,
                Reason::NoMetricName,
            ]
        );
    }
}
