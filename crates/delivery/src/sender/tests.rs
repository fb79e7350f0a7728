//! The loop of attempts, with a scripted transport and paused time.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::time::{Instant, timeout};

use metrifold_base::ShutdownTrigger;
use metrifold_codec::Batch;
use metrifold_codec::remote_write::messages::{v1, v2};
use metrifold_codec::remote_write::{CompanionBounds, Limits};
use metrifold_engine::planes::metrics::testing::Feed;
use metrifold_engine::planes::metrics::{EdgeConfig, Form};
use metrifold_model::ledger::Reason;
use metrifold_model::{Kind, Origin, Outcome, Tenant, Version};
use metrifold_queue::QueueConfig;
use metrifold_telemetry::Telemetry;

use super::*;
use crate::transport::{Answer, Attempt, Failure, Refusal, RefusalClass};

mod mixed;

/// A request that the transport received.
#[derive(Clone, Debug)]
struct Asked {
    at: Duration,
    version: Version,
    tenant: Option<Tenant>,
    /// Number of series in the request; `None` if it was merged.
    series: Option<u64>,
    /// Names of the series, if the request has version 1.0.
    names: Vec<String>,
    failures: u32,
}

/// The names of the series in a request of version 1.0.
fn names(request: &Attempt<'_>) -> Vec<String> {
    let body = request.body.concat();
    let raw = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    let decoded = v1::WriteRequest::decode(&*raw);
    let series = decoded.map(|it| it.timeseries).unwrap_or_default();
    series
        .iter()
        .map(|series| series.labels[0].value.clone())
        .collect()
}

/// Determines the answer from the attempt and the number of attempts before it.
type Script = Box<dyn Fn(&Asked, usize) -> Answer + Send + Sync>;

struct Scripted {
    script: Script,
    since: Instant,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl Transport for Scripted {
    async fn attempt(&self, attempt: Attempt<'_>) -> Answer {
        let asked = Asked {
            at: self.since.elapsed(),
            version: attempt.version,
            tenant: attempt.tenant.cloned(),
            series: attempt.counts.map(|counts| counts.series),
            names: match attempt.version {
                Version::V1 => names(&attempt),
                Version::V2 => Vec::new(),
            },
            failures: attempt.failures,
        };
        assert!(attempt.body.iter().any(|part| !part.is_empty()));
        let mut log = self.log.lock().unwrap();
        log.push(asked.clone());
        (self.script)(&asked, log.len() - 1)
    }
}

/// A running sink with a scripted transport.
struct Running {
    feed: Feed,
    log: Arc<Mutex<Vec<Asked>>>,
    _sink: tokio::task::JoinHandle<Result<(), RunError>>,
}

impl Running {
    fn new(script: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::of(true, script)
    }

    fn of(
        merges_senders: bool,
        script: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let metrics = Telemetry::new().component("z", Kind::Sink, "test");
        let (feed, input) = Feed::new(
            EdgeConfig {
                required: true,
                queue: QueueConfig::default(),
                form: Form::AsReceived,
                checks_series: false,
                companions: CompanionBounds::NOTHING,
            },
            metrics.clone(),
        )
        .unwrap();
        let log = Arc::default();
        let transport = Scripted {
            script: Box::new(script),
            since: Instant::now(),
            log: Arc::clone(&log),
        };
        let terms = Terms {
            id: "z".into(),
            protocol: Protocol::Auto,
            probe_after: Duration::from_secs(300),
            min_connections: 1,
            connections: 4,
            merge_bytes: 4 << 20,
            merges_senders,
            retry: Retry {
                min_backoff: Duration::from_millis(30),
                max_backoff: Duration::from_secs(5),
                max_age: Duration::from_secs(7200),
                refusals_per_second: 50,
            },
            isolate_after: Duration::from_secs(300),
            letters: None,
            metrics,
        };
        let (_, shutdown) = ShutdownTrigger::new();
        let sink = Box::new(Sender::new(terms, transport));
        Self {
            feed,
            log,
            _sink: tokio::spawn(sink.run(input, shutdown)),
        }
    }

    /// Sends a batch and returns the outcome that its sender receives.
    async fn send(&self, batch: Batch) -> Outcome {
        self.feed.send(batch).verdict().await
    }

    fn asked(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }

    fn versions(&self) -> Vec<Version> {
        self.asked().iter().map(|asked| asked.version).collect()
    }
}

fn origin() -> Arc<Origin> {
    Arc::new(Origin::internal("test".into()))
}

fn compressed(message: &impl Message) -> Bytes {
    let raw = message.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&raw).unwrap().into()
}

fn batch_v1(series: usize) -> Batch {
    let label = |name: &str, value: String| v1::Label {
        name: name.into(),
        value,
    };
    let timeseries = (0..series).map(|number| v1::TimeSeries {
        labels: vec![label("__name__", format!("m{number:05}"))],
        samples: vec![v1::Sample::default()],
        ..Default::default()
    });
    let request = v1::WriteRequest {
        timeseries: timeseries.collect(),
        metadata: vec![],
    };
    let body = compressed(&request);
    let mut batch = Batch::from_body(Version::V1, body, Limits::default(), origin());
    batch.count().unwrap();
    batch
}

fn batch_v2() -> Batch {
    let request = v2::Request {
        symbols: vec![String::new(), "__name__".into(), "m".into()],
        timeseries: vec![v2::TimeSeries {
            labels_refs: vec![1, 2],
            samples: vec![v2::Sample::default()],
            ..Default::default()
        }],
    };
    let body = compressed(&request);
    let mut batch = Batch::from_body(Version::V2, body, Limits::default(), origin());
    batch.count().unwrap();
    batch
}

fn of(tenant: &str, mut batch: Batch) -> Batch {
    batch.set_tenant(tenant.into());
    batch
}

fn failed(failure: Failure) -> Answer {
    Answer::Failed {
        failure,
        reason: "endpoint answered no".into(),
        after: None,
    }
}

fn refused(class: RefusalClass) -> Answer {
    Answer::Refused(Refusal {
        code: "400".into(),
        class,
        reason: "endpoint answered 400".into(),
    })
}

fn may_retry(outcome: &Outcome) -> Option<bool> {
    match outcome {
        Outcome::Delivered | Outcome::Lacks(_) => None,
        Outcome::Rejected { rejection, .. } => Some(rejection.may_retry()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_kept_through_any_trouble_of_its_endpoint_with_pauses_that_grow() {
    let running = Running::new(|asked, _| match asked.at < Duration::from_secs(60) {
        true => failed(Failure::Broken),
        false => Answer::Stored,
    });
    let outcome = running.send(batch_v1(3)).await;
    assert_eq!(outcome, Outcome::Delivered);
    let asked = running.asked();
    assert!((15..40).contains(&asked.len()), "{} attempts", asked.len());
    for (number, pair) in asked.windows(2).enumerate() {
        assert_eq!(pair[1].failures as usize, number + 1);
        let pause = pair[1].at - pair[0].at;
        assert!(pause <= Duration::from_millis(5100), "{pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_reaches_max_age_is_one_to_send_again() {
    let running = Running::new(|_, _| failed(Failure::Broken));
    let start = Instant::now();
    let outcome = running.send(batch_v1(1)).await;
    assert_eq!(may_retry(&outcome), Some(true), "{outcome:?}");
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs(7200), "{waited:?}");
    assert!(waited <= Duration::from_secs(7206), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_costs_the_offender_and_its_sender_is_told_not_to_send_again() {
    let running = Running::new(|asked, _| match asked.series {
        Some(1) => refused(RefusalClass::Content),
        Some(8 | 4 | 2) => refused(RefusalClass::Content),
        _ => Answer::Stored,
    });
    let outcome = running.send(batch_v1(8)).await;
    assert_eq!(may_retry(&outcome), Some(false), "{outcome:?}");
    assert!(running.asked().len() > 3);
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_sent_again_is_asked_about_once() {
    for answer in [
        refused(RefusalClass::Whole),
        Answer::Unwanted(Reason::Unauthorized, "endpoint answered 401".into()),
    ] {
        let running = Running::new(move |_, _| answer.clone());
        let outcome = running.send(batch_v1(8)).await;
        let Outcome::Rejected { rejection, lost } = outcome else {
            panic!("it is lost");
        };
        assert!(!rejection.may_retry());
        assert_eq!(lost.map(|lost| lost.samples), Some(8));
        assert_eq!(running.asked().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn batches_behind_one_another_share_a_request_over_any_transport() {
    let running = Running::new(|asked, number| match (number, asked.series) {
        (0, _) => failed(Failure::Broken),
        _ => Answer::Stored,
    });
    for _ in 0..5 {
        running.feed.send_unasked(batch_v1(1));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let merged: Vec<_> = running.asked().iter().map(|asked| asked.series).collect();
    assert!(merged.contains(&None), "{merged:?}");
    assert!(merged.len() < 5, "{merged:?}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_of_1_0_gets_1_0_and_is_asked_for_2_0_again_later() {
    for no in [Answer::OtherVersion, Answer::Unwritten] {
        let running = Running::new(move |asked, _| match asked.version {
            Version::V2 => no.clone(),
            Version::V1 => Answer::Stored,
        });
        use Version::{V1, V2};
        assert_eq!(running.send(batch_v2()).await, Outcome::Delivered);
        assert_eq!(running.feed.form(), Form::V1);
        assert_eq!(running.send(batch_v2()).await, Outcome::Delivered);
        assert_eq!(running.versions(), [V2, V1, V1]);
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(running.send(batch_v2()).await, Outcome::Delivered);
        assert_eq!(running.versions(), [V2, V1, V1, V2, V1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_in_place_of_an_endpoint_that_takes_2_0_costs_nothing() {
    let running = Running::new(|_, number| match number {
        1..=3 => Answer::Unwritten,
        _ => Answer::Stored,
    });
    for _ in 0..3 {
        assert_eq!(running.send(batch_v2()).await, Outcome::Delivered);
    }
    assert_eq!(running.versions(), [Version::V2; 6]);
    assert_eq!(running.feed.form(), Form::AsReceived);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_answers_400_to_the_first_2_0_and_takes_1_0_gets_1_0() {
    use Version::{V1, V2};
    let running = Running::new(|asked, _| match asked.version {
        V2 => refused(RefusalClass::ContentOrVersion),
        V1 => Answer::Stored,
    });
    for _ in 0..2 {
        assert_eq!(running.send(batch_v2()).await, Outcome::Delivered);
    }
    assert_eq!(running.versions(), [V2, V1, V1]);
}

#[tokio::test(start_paused = true)]
async fn content_that_is_refused_in_both_versions_is_at_fault_itself() {
    use Version::{V1, V2};
    let running = Running::new(|_, _| refused(RefusalClass::ContentOrVersion));
    let outcome = running.send(batch_v2()).await;
    assert_eq!(may_retry(&outcome), Some(false), "{outcome:?}");
    let versions = running.versions();
    let asked_v1 = versions.iter().filter(|version| **version == V1).count();
    assert_eq!((versions[0], asked_v1), (V2, 1), "{versions:?}");
}

#[tokio::test(start_paused = true)]
async fn many_tenants_over_their_limits_cost_the_endpoint_a_bounded_number_of_requests() {
    const TENANTS: usize = 1500;
    let running = Running::new(|asked, _| match asked.tenant.as_deref() {
        Some("well") => Answer::Stored,
        _ => failed(Failure::TooMuch),
    });
    let waiting: Vec<_> = (0..TENANTS)
        .map(|number| running.feed.send(of(&format!("t{number}"), batch_v1(1))))
        .collect();
    // Each tenant is refused once before the pace adapts.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = running.asked().len();
    tokio::time::sleep(Duration::from_secs(120)).await;
    let noes = running.asked().len() - before;
    assert!(noes <= 50 * 121, "{noes} requests in two minutes");
    assert!(noes >= 40 * 120, "{noes}: each is asked for again");
    // A tenant that is accepted does not wait for them.
    let well = of("well", batch_v1(1));
    let outcome = timeout(Duration::from_secs(1), running.send(well)).await;
    assert_eq!(outcome, Ok(Outcome::Delivered));
    drop(waiting);
}

/// The series that were accepted, without duplicates, by the answers of the script.
fn taken(running: &Running, fails: impl Fn(&Asked) -> bool) -> Vec<String> {
    let mut taken: Vec<String> = Vec::new();
    for asked in running.asked().iter().filter(|asked| !fails(asked)) {
        for name in &asked.names {
            if !taken.contains(name) {
                taken.push(name.clone());
            }
        }
    }
    taken
}

/// A batch with these series.
fn named(names: &[&str]) -> Batch {
    let timeseries = names.iter().map(|name| v1::TimeSeries {
        labels: vec![v1::Label {
            name: "__name__".into(),
            value: (*name).into(),
        }],
        samples: vec![v1::Sample::default()],
        ..Default::default()
    });
    let request = v1::WriteRequest {
        timeseries: timeseries.collect(),
        metadata: vec![],
    };
    let body = compressed(&request);
    let mut batch = Batch::from_body(Version::V1, body, Limits::default(), origin());
    batch.count().unwrap();
    batch
}

fn has_poison(asked: &Asked) -> bool {
    asked.names.iter().any(|name| name == "poison")
}

fn fails_on_poison(asked: &Asked, _: usize) -> Answer {
    match has_poison(asked) {
        true => failed(Failure::ServerError),
        false => Answer::Stored,
    }
}

#[tokio::test(start_paused = true)]
async fn a_series_on_which_the_endpoint_fails_for_ever_costs_itself_and_nothing_behind_it() {
    for batch in [
        &["a", "b", "c", "poison"][..],
        &["poison", "a", "b", "c"],
        &["a", "b", "poison", "c"],
    ] {
        let running = Running::new(fails_on_poison);
        running.feed.send_unasked(named(batch));
        for name in ["d", "e", "f"] {
            running.feed.send_unasked(named(&[name]));
        }
        tokio::time::sleep(Duration::from_secs(290)).await;
        assert!(taken(&running, has_poison).is_empty(), "too early");
        tokio::time::sleep(Duration::from_secs(20)).await;
        let taken = taken(&running, has_poison);
        assert_eq!(taken, ["a", "b", "c", "d", "e", "f"], "{batch:?}");
        let ledger = running.feed.ledger();
        assert!(ledger.balances());
        let total = ledger.total.account;
        assert_eq!(total.dropped[&Reason::Isolated].samples, 1, "{total:?}");
        assert_eq!(total.delivered.samples, 6, "{total:?}");
        assert_eq!(ledger.total.queued.batches, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_one_series_is_isolated_by_what_else_of_its_tenant_goes_through() {
    let running = Running::new(fails_on_poison);
    running.feed.send_unasked(named(&["a"]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    for name in ["poison", "b", "c"] {
        running.feed.send_unasked(named(&[name]));
    }
    tokio::time::sleep(Duration::from_secs(310)).await;
    assert_eq!(taken(&running, has_poison), ["a", "b", "c"]);
    let total = running.feed.ledger().total.account;
    assert_eq!(total.dropped[&Reason::Isolated].samples, 1, "{total:?}");
}

#[tokio::test(start_paused = true)]
async fn errors_of_a_batch_that_was_given_up_are_not_counted_for_the_next() {
    let running = Running::new(|_, number| match number {
        0 | 1 | 3 | 4 => failed(Failure::ServerError),
        2 => refused(RefusalClass::Content),
        _ => Answer::Stored,
    });
    running.feed.send_unasked(named(&["a"]));
    tokio::time::sleep(Duration::from_secs(600)).await;
    running.feed.send_unasked(named(&["b", "c"]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let names: Vec<Vec<String>> = running.asked().into_iter().map(|it| it.names).collect();
    assert_eq!(names[..3], [["a"]; 3]);
    assert_eq!(names[3..], [["b", "c"]; 3], "searched after two errors");
    assert_eq!(running.feed.ledger().total.account.delivered.samples, 2);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_on_everything_costs_nothing_however_long_it_does() {
    let down = Duration::from_secs(3600);
    let running = Running::new(move |asked, number| match (number, asked.at < down) {
        (1.., true) => failed(Failure::ServerError),
        _ => Answer::Stored,
    });
    running.feed.send_unasked(named(&["a"]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    for number in 0..5 {
        running.feed.send_unasked(batch_v1(10 + number));
    }
    tokio::time::sleep(down).await;
    let asked = running.asked().len();
    assert!(asked < 1500, "{asked} requests");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let ledger = running.feed.ledger();
    let total = ledger.total.account;
    assert_eq!((total.received, total.dropped.len()), (total.delivered, 0));
    assert_eq!(total.received.batches, 6);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_for_whom_the_endpoint_fails_loses_nothing_while_others_go_through() {
    let down = Duration::from_secs(3600);
    let running = Running::new(move |asked, _| {
        match asked.tenant.as_deref() == Some("a") && asked.at < down {
            true => failed(Failure::ServerError),
            false => Answer::Stored,
        }
    });
    for second in 0..3600 {
        running.feed.send_unasked(of("b", named(&["well"])));
        if second < 20 {
            running.feed.send_unasked(of("a", batch_v1(7)));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let total = running.feed.ledger().total.account;
    assert_eq!((total.received, total.dropped.len()), (total.delivered, 0));
}
