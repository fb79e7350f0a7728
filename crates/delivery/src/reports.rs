//! What a sink says in the log of its endpoint: what is lost, what is tried again, what is over.
//!
//! Each can come with every batch, so each topic, and each reason of loss apart from the others, is
//! told once in [`EVERY`]. What was held back meanwhile is told when that is over, also if nothing
//! more happens, and at the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use metrifold_model::ledger::Reason;

use super::pace::Recovery;

/// Messages on one topic are as far apart as that.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// Recoveries from less than this are not worth a message.
const BLINK: Duration = Duration::from_secs(1);

/// The messages of one sink.
#[derive(Debug)]
pub(super) struct Reports {
    sink: Arc<str>,
    topics: Mutex<BTreeMap<Topic, Held>>,
}

/// What a message is about. There are no more than reasons and these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Lost(Reason),
    Retried,
    Recovered,
}

/// When a topic was last told of, and what has been held back since.
#[derive(Debug)]
struct Held {
    told: Instant,
    sum: Sum,
}

/// What a message tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sum {
    /// How often it happened.
    times: u64,
    /// How many samples it concerns, as far as they were counted.
    samples: u64,
    /// How often nobody had counted them.
    uncounted: u64,
    /// What was said the last time.
    text: String,
}

impl Sum {
    fn one(samples: Option<u64>, text: &str) -> Self {
        Self {
            times: 1,
            samples: samples.unwrap_or(0),
            uncounted: u64::from(samples.is_none()),
            text: text.to_owned(),
        }
    }

    fn add(&mut self, other: Self) {
        self.times += other.times;
        self.samples += other.samples;
        self.uncounted += other.uncounted;
        self.text = other.text;
    }
}

impl Reports {
    pub(super) fn new(sink: Arc<str>) -> Self {
        Self {
            sink,
            topics: Mutex::default(),
        }
    }

    /// A batch, or a part of it, is lost.
    pub(super) fn lost(&self, reason: Reason, samples: Option<u64>, text: &str) {
        self.note(Topic::Lost(reason), Sum::one(samples, text));
    }

    /// An attempt has failed, and its batch is kept.
    pub(super) fn retried(&self, samples: Option<u64>, text: &str) {
        self.note(Topic::Retried, Sum::one(samples, text));
    }

    /// An endpoint that was in trouble is not any more.
    pub(super) fn recovered(&self, recovery: &Recovery) {
        if recovery.after >= BLINK {
            let secs = recovery.after.as_secs();
            let text = match &recovery.tenant {
                Some(tenant) => {
                    format!("endpoint takes data of tenant {tenant:?} again after {secs} s")
                }
                None => format!("endpoint is back after {secs} s"),
            };
            self.note(Topic::Recovered, Sum::one(Some(0), &text));
        }
    }

    /// Tells what was held back for long enough.
    pub(super) fn flush(&self) {
        self.tell_held(false);
    }

    fn topics(&self) -> MutexGuard<'_, BTreeMap<Topic, Held>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, topic: Topic, sum: Sum) {
        if let Some(sum) = pass(&mut self.topics(), topic, sum) {
            self.tell(topic, &sum);
        }
    }

    fn tell_held(&self, all: bool) {
        let held = take_held(&mut self.topics(), all);
        for (topic, sum) in held {
            self.tell(topic, &sum);
        }
    }

    fn tell(&self, topic: Topic, sum: &Sum) {
        let Self { sink, .. } = self;
        let suppressed = sum.times - 1;
        let (samples, uncounted, text) = (sum.samples, sum.uncounted, sum.text.as_str());
        match topic {
            Topic::Lost(reason) => error!(
                %sink, reason = reason.as_str(), samples, uncounted_batches = uncounted,
                suppressed, error = text, advice = advice(reason), "data is lost"
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

/// What to tell now, if anything, after something has happened.
fn pass(topics: &mut BTreeMap<Topic, Held>, topic: Topic, sum: Sum) -> Option<Sum> {
    let now = Instant::now();
    let Some(held) = topics.get_mut(&topic) else {
        let held = Held {
            told: now,
            sum: Sum::default(),
        };
        topics.insert(topic, held);
        return Some(sum);
    };
    held.sum.add(sum);
    (now >= held.told + EVERY).then(|| {
        held.told = now;
        std::mem::take(&mut held.sum)
    })
}

/// What was held back for long enough, or all of it.
fn take_held(topics: &mut BTreeMap<Topic, Held>, all: bool) -> Vec<(Topic, Sum)> {
    let now = Instant::now();
    let due = topics
        .iter_mut()
        .filter(|(_, held)| held.sum.times > 0 && (all || now >= held.told + EVERY));
    let take = |(topic, held): (&Topic, &mut Held)| {
        held.told = now;
        (*topic, std::mem::take(&mut held.sum))
    };
    due.map(take).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: Topic = Topic::Lost(Reason::Refused);

    fn one(text: &str) -> Sum {
        Sum::one(Some(2), text)
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_is_told_now_and_then_and_all_of_it_in_the_end() {
        let mut topics = BTreeMap::new();
        assert_eq!(pass(&mut topics, LOST, one("first")), Some(one("first")));
        for _ in 0..5 {
            assert_eq!(pass(&mut topics, LOST, one("held back")), None);
        }
        assert_eq!(take_held(&mut topics, false), [], "not yet");
        tokio::time::advance(EVERY).await;
        let last = pass(&mut topics, LOST, Sum::one(None, "last")).unwrap();
        let expected = Sum {
            times: 6,
            samples: 10,
            uncounted: 1,
            text: "last".into(),
        };
        assert_eq!(last, expected);
        assert_eq!(pass(&mut topics, LOST, one("again")), None);
        assert_eq!(take_held(&mut topics, true), [(LOST, one("again"))]);
        assert_eq!(take_held(&mut topics, true), [], "once");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_held_back_is_told_though_nothing_more_happens() {
        let mut topics = BTreeMap::new();
        pass(&mut topics, LOST, one("first"));
        pass(&mut topics, LOST, one("second"));
        tokio::time::advance(EVERY).await;
        assert_eq!(take_held(&mut topics, false), [(LOST, one("second"))]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_topic_holds_another_back() {
        let mut topics = BTreeMap::new();
        for topic in [LOST, Topic::Lost(Reason::TooOld), Topic::Retried] {
            assert!(
                pass(&mut topics, topic, one("first")).is_some(),
                "{topic:?}"
            );
        }
    }
}
