//! Log messages of a sink about its endpoint: lost batches, retries, recoveries.
//!
//! Each event can occur with every batch, so each topic, and each reason of loss separately, is
//! logged once in [`EVERY`]. Suppressed messages are summed up and logged at the end of that time,
//! even if nothing more happens, and when the sink ends.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use metrifold_base::{Limited, Sum};
use metrifold_model::ledger::{Reason, Tally};

use super::pace::Recovery;

/// Minimum time between two messages on one topic.
const EVERY: Duration = Duration::from_secs(10);

/// Failures shorter than this end without a message.
const BLINK: Duration = Duration::from_secs(1);

/// The messages of one sink.
#[derive(Debug)]
pub(super) struct Reports {
    sink: Arc<str>,
    topics: Limited<Topic, Told>,
}

/// Topic of a message. The number of topics is bounded by the number of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Lost(Reason),
    /// Lost for an answer that says nothing about the content, as configured.
    Unwanted(Reason),
    Exemplars,
    Retried,
    Recovered,
}

/// Content of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    /// Number of occurrences.
    times: u64,
    /// Number of samples or exemplars concerned, as far as they were counted.
    samples: u64,
    /// Number of occurrences without a count.
    uncounted: u64,
    /// Text of the last occurrence.
    text: String,
}

impl Told {
    fn one(samples: Option<u64>, text: &str) -> Self {
        Self {
            times: 1,
            samples: samples.unwrap_or(0),
            uncounted: u64::from(samples.is_none()),
            text: text.to_owned(),
        }
    }
}

impl Sum for Told {
    fn add(&mut self, later: Self) {
        self.times += later.times;
        self.samples += later.samples;
        self.uncounted += later.uncounted;
        self.text = later.text;
    }
}

impl Reports {
    pub(super) fn new(sink: Arc<str>) -> Self {
        Self {
            sink,
            topics: Limited::new(EVERY),
        }
    }

    /// Reports a lost batch, or a lost part of one.
    pub(super) fn lost(&self, reason: Reason, samples: Option<u64>, text: &str) {
        self.note(Topic::Lost(reason), Told::one(samples, text));
    }

    /// Reports a batch that is lost because the configuration gives it up for such an answer.
    pub(super) fn unwanted(&self, reason: Reason, samples: Option<u64>, text: &str) {
        self.note(Topic::Unwanted(reason), Told::one(samples, text));
    }

    /// Reports lost exemplars of a batch whose samples are stored.
    pub(super) fn lost_exemplars(&self, exemplars: u64, text: &str) {
        self.note(Topic::Exemplars, Told::one(Some(exemplars), text));
    }

    /// Reports a failed attempt whose batch is kept.
    pub(super) fn retried(&self, samples: Option<u64>, text: &str) {
        self.note(Topic::Retried, Told::one(samples, text));
    }

    /// Reports that an endpoint works again; `waiting` returns the batches that wait for delivery.
    pub(super) fn recovered(&self, recovery: &Recovery, waiting: impl FnOnce() -> Option<Tally>) {
        if recovery.after >= BLINK {
            let secs = recovery.after.as_secs();
            let mut text = match &recovery.tenant {
                Some(tenant) => {
                    format!("endpoint accepts data of tenant {tenant:?} again after {secs} s")
                }
                None => format!("endpoint is back after {secs} s"),
            };
            if let Some(waiting) = waiting() {
                text.push_str(", ");
                text.push_str(&shown(waiting));
            }
            let recovered = Topic::Recovered;
            if let Some(told) = self.topics.note(recovered, Told::one(Some(0), &text)) {
                // Told later, earlier failures would look like new ones.
                if let Some(held) = self.topics.release(&Topic::Retried) {
                    self.tell(Topic::Retried, &held);
                }
                self.tell(recovered, &told);
            }
        }
    }

    /// Logs suppressed messages that are due.
    pub(super) fn flush(&self) {
        self.tell_held(false);
    }

    fn note(&self, topic: Topic, told: Told) {
        if let Some(told) = self.topics.note(topic, told) {
            self.tell(topic, &told);
        }
    }

    fn tell_held(&self, all: bool) {
        for (topic, told) in self.topics.held(all) {
            self.tell(topic, &told);
        }
    }

    fn tell(&self, topic: Topic, told: &Told) {
        let Self { sink, .. } = self;
        let suppressed = told.times - 1;
        let (samples, uncounted, text) = (told.samples, told.uncounted, told.text.as_str());
        let lost = |reason: Reason, advice| {
            error!(
                %sink, reason = reason.as_str(), samples, uncounted_batches = uncounted,
                suppressed, error = text, advice, "data is lost"
            );
        };
        match topic {
            Topic::Lost(reason) => lost(reason, advice(reason)),
            Topic::Unwanted(reason) => lost(reason, UNWANTED),
            Topic::Exemplars => warn!(
                %sink, exemplars = samples, suppressed, error = text,
                "exemplars are lost: the endpoint has the samples"
            ),
            Topic::Retried => warn!(
                %sink, error = text, suppressed,
                "attempt failed: the batch is kept and tried again"
            ),
            Topic::Recovered => info!(%sink, suppressed, "{text}"),
        }
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        self.tell_held(true);
    }
}

/// Waiting batches in words, for people.
fn shown(waiting: Tally) -> String {
    let plural = |n: u64, one: &str, more: &str| match n {
        1 => format!("1 {one}"),
        n => format!("{n} {more}"),
    };
    let samples = plural(waiting.samples, "sample", "samples");
    let batches = plural(waiting.batches, "batch", "batches");
    match waiting.uncounted {
        0 => format!("{samples} in {batches} waiting"),
        more => format!("{samples} in {batches} waiting, {more} of them not counted"),
    }
}

/// Advice for operators about batches that the configuration gives up.
const UNWANTED: &str = "fix what the endpoint says, or change the status in retry.statuses to \"retry\" so that batches \
    are kept; no dead letter is written, since the answer is not about the content";

/// Advice for operators about a reason of loss.
fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::Refused | Reason::RefusedTogether => {
            "see the refused data with `metrifold dead-letters list` if there is a data_dir, and fix its \
             sender or the limits of the endpoint"
        }
        Reason::Isolated => {
            "see the endpoint's own log for why it fails on this series, and the series with `metrifold \
             dead-letters list` if there is a data_dir"
        }
        Reason::TooLarge => {
            "raise the endpoint's limit for the size of a request; what cannot be encoded at all is seen with \
             `metrifold dead-letters list` if there is a data_dir"
        }
        Reason::TooOld => {
            "fix the endpoint or the access to it, or raise retry.max_age (queue.max_age for a queue on disk)"
        }
        Reason::Partial => {
            "the endpoint stored the rest: its own log names the series, often those out of order or \
             too old"
        }
        Reason::NotInV1 => {
            "remote write 1.0 has no place for histograms with custom buckets: use an endpoint that \
             takes 2.0"
        }
        Reason::Invalid => "fix the sender: these series break the rules of remote write",
        _ => "see the sink's metric metrifold_component_discarded_samples_total by reason",
    }
}
