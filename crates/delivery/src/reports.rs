//! What a sink says in the log of its endpoint: what is lost, what is tried again, what is over.
//!
//! Each can come with every batch, so each topic, and each reason of loss apart from the others, is
//! told once in [`EVERY`]. What was held back meanwhile is told when that is over, also if nothing
//! more happens, and at the end.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use metrifold_base::{Limited, Sum};
use metrifold_model::ledger::{Reason, Tally};

use super::pace::Recovery;

/// Messages on one topic are as far apart as that.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// Recoveries from less than this are not worth a message.
const BLINK: Duration = Duration::from_secs(1);

/// The messages of one sink.
#[derive(Debug)]
pub(super) struct Reports {
    sink: Arc<str>,
    topics: Limited<Topic, Told>,
}

/// What a message is about. There are no more than reasons and these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Lost(Reason),
    Exemplars,
    Retried,
    Recovered,
}

/// What a message tells.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    /// How often it happened.
    times: u64,
    /// How many samples, or exemplars, it concerns, as far as they were counted.
    samples: u64,
    /// How often nobody had counted them.
    uncounted: u64,
    /// What was said the last time.
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

    /// A batch, or a part of it, is lost.
    pub(super) fn lost(&self, reason: Reason, samples: Option<u64>, text: &str) {
        self.note(Topic::Lost(reason), Told::one(samples, text));
    }

    /// Exemplars are lost of a batch whose samples are stored.
    pub(super) fn lost_exemplars(&self, exemplars: u64, text: &str) {
        self.note(Topic::Exemplars, Told::one(Some(exemplars), text));
    }

    /// An attempt has failed, and its batch is kept.
    pub(super) fn retried(&self, samples: Option<u64>, text: &str) {
        self.note(Topic::Retried, Told::one(samples, text));
    }

    /// An endpoint that was in trouble is not any more; `waiting` says what is still to be delivered.
    pub(super) fn recovered(&self, recovery: &Recovery, waiting: impl FnOnce() -> Option<Tally>) {
        if recovery.after >= BLINK {
            let secs = recovery.after.as_secs();
            let mut text = match &recovery.tenant {
                Some(tenant) => {
                    format!("endpoint takes data of tenant {tenant:?} again after {secs} s")
                }
                None => format!("endpoint is back after {secs} s"),
            };
            if let Some(waiting) = waiting() {
                text.push_str(", ");
                text.push_str(&shown(waiting));
            }
            self.note(Topic::Recovered, Told::one(Some(0), &text));
        }
    }

    /// Tells what was held back for long enough.
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
        match topic {
            Topic::Lost(reason) => error!(
                %sink, reason = reason.as_str(), samples, uncounted_batches = uncounted,
                suppressed, error = text, advice = advice(reason), "data is lost"
            ),
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

/// What waits, as people read it.
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

/// What to do about data that is lost.
fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::Refused | Reason::RefusedTogether => {
            "what the endpoint refused is in `metrifold dead-letters list` if there is a data_dir: \
             mend its sender, or what the endpoint allows"
        }
        Reason::Isolated => {
            "the endpoint's own log says why it fails on this series, which is in `metrifold \
             dead-letters list` if there is a data_dir"
        }
        Reason::TooLarge => "raise what the endpoint takes in one request",
        Reason::TooOld => {
            "mend the endpoint or its access, or raise retry.max_age, for a queue on disk queue.max_age"
        }
        Reason::Partial => {
            "the endpoint stored the rest: its own log names the series, often those out of order or \
             too old"
        }
        Reason::Unauthorized => {
            "mend the sink's credentials, or leave 401 out of retry.statuses so that batches are kept"
        }
        Reason::NotInV1 => {
            "remote write 1.0 has no place for histograms with custom buckets: use an endpoint that \
             takes 2.0"
        }
        Reason::Invalid => "mend the sender: these series break the rules of remote write",
        _ => "see the sink's metric metrifold_component_discarded_samples_total by reason",
    }
}
