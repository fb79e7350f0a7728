//! Metrifold between a real Prometheus 3 and a real Thanos, all of which are killed meanwhile.
//!
//! `make live` builds the programs (`tests/peers`) and runs these tests, which are ignored
//! otherwise: without Go they do not run, and do not count as passed.

use std::collections::BTreeMap;

use metrifold_testing::peers::{
    Described, Labels, OPENMETRICS, PROTOBUF, Prometheus, QueryApi, Samples, TEXT, Target, Thanos,
    histogram_page, now, until_same,
};
use metrifold_testing::{Metrifold, until};

/// Selector of everything that the sender has scraped.
const ALL: &str = r#"{job!=""}"#;

/// Values and labels that are easily damaged.
const PAGE: &str = r#"# HELP test_values Values that are "easily" damaged.
# TYPE test_values gauge
test_values{kind="nan"} NaN
test_values{kind="inf"} +Inf
test_values{kind="tiny"} 2.2250738585072014e-308
test_values{kind="third"} 0.3333333333333333
test_values{kind="ünïcode 🙂, \"quotes\", \\ and \n"} 1
"#;

/// Version of remote write that a Prometheus 3 sends.
#[derive(Clone, Copy)]
enum Message {
    V1,
    V2,
}

impl Message {
    fn name(self) -> &'static str {
        match self {
            Self::V1 => "prometheus.WriteRequest",
            Self::V2 => "io.prometheus.write.v2.Request",
        }
    }
}

/// Targets of a Prometheus 3: itself, and targets of the test.
struct Scraped {
    plain: Target,
    traced: Target,
    native: Target,
}

impl Scraped {
    fn start() -> Self {
        Self {
            plain: Target::start(TEXT, |number| {
                format!("{PAGE}test_served_total {number}\n").into()
            }),
            traced: Target::start(OPENMETRICS, |number| {
                let exemplar = format!("# {{trace_id=\"t{number}\"}} 0.{number}");
                format!(
                    "# TYPE test_traced counter\ntest_traced_total {number} {exemplar}\n# EOF\n"
                )
                .into()
            }),
            native: Target::start(PROTOBUF, |number| histogram_page("test_native", number)),
        }
    }

    fn config(&self, write_url: &str, message: Message) -> String {
        let Self {
            plain,
            traced,
            native,
        } = self;
        let message = message.name();
        format!(
            r#"
global: {{ scrape_interval: 1s, scrape_timeout: 1s, scrape_native_histograms: true }}
remote_write:
  - url: {write_url}
    protobuf_message: {message}
    send_exemplars: true
    send_native_histograms: true
    queue_config: {{ batch_send_deadline: 500ms, max_backoff: 500ms, max_shards: 4 }}
    metadata_config: {{ send_interval: 2s }}
scrape_configs:
  - job_name: prometheus
    static_configs: [{{ targets: [SELF] }}]
  - job_name: targets
    static_configs: [{{ targets: ["{}", "{}", "{}"] }}]
"#,
            plain.address, traced.address, native.address
        )
    }

    fn scrapes(&self) -> u64 {
        let all = [&self.plain, &self.traced, &self.native].map(Target::scrapes);
        all.into_iter().min().unwrap()
    }

    /// Waits for `more` further scrapes of each target.
    fn wait(&self, more: u64) {
        let before = self.scrapes();
        until("targets to be scraped", || {
            (self.scrapes() >= before + more).then_some(())
        });
    }
}

/// Series without the labels by which a Thanos tells its replicas and tenants apart.
fn own<T>(series: BTreeMap<Labels, T>) -> BTreeMap<Labels, T> {
    let own = series.into_iter().map(|(mut labels, values)| {
        labels.remove("tenant_id");
        labels.remove("test_replica");
        (labels, values)
    });
    own.collect()
}

/// Access to all data of an API in a span of time.
struct Span {
    start: f64,
    end: f64,
}

impl Span {
    fn seconds(&self) -> u32 {
        (self.end - self.start).ceil() as u32 + 60
    }

    fn samples(&self, of: &QueryApi) -> Samples {
        own(of.samples(ALL, self.seconds(), self.end))
    }

    fn histograms(&self, of: &QueryApi) -> Described {
        own(of.histograms(ALL, self.seconds(), self.end))
    }

    fn exemplars(&self, of: &QueryApi) -> Described {
        own(of.exemplars(ALL, self.start, self.end))
    }

    /// Waits until a receiver has all data of the sender.
    fn compare(&self, what: &str, sender: &QueryApi, receiver: &QueryApi) -> usize {
        let found = until_same(what, 0.0, || (self.samples(receiver), self.samples(sender)));
        let histograms = self.histograms(sender);
        assert!(!histograms.is_empty());
        until("a receiver to have the same histograms", || {
            (self.histograms(receiver) == histograms).then_some(())
        });
        let exemplars = self.exemplars(sender);
        assert!(!exemplars.is_empty());
        until("a receiver to have the same exemplars", || {
            (self.exemplars(receiver) == exemplars).then_some(())
        });
        found.values().map(Vec::len).sum()
    }
}

/// A Prometheus 3 sends through a Metrifold to a Prometheus 3 and a Thanos, and each receiver and
/// Metrifold are killed and started again.
fn all_arrives(message: Message) {
    let (mut receiver, mut thanos) = (Prometheus::start_3(""), Thanos::start());
    let queues = tempfile::tempdir().unwrap();
    let mut metrifold = Metrifold::start(
        &r#"
        data_dir = "QUEUES"

        [sources.ingest]
        type = "remote_write"
        address = "INGEST"

        [sinks.prometheus]
        type = "remote_write"
        inputs = ["ingest"]
        endpoint = "RECEIVER"
        queue = { type = "disk" }
        retry = { max_backoff = "500ms" }

        [sinks.thanos]
        type = "thanos"
        inputs = ["ingest"]
        endpoint = "THANOS"
        queue = { type = "disk" }
        retry = { max_backoff = "500ms" }
        "#
        .replace("QUEUES", &queues.path().to_string_lossy())
        .replace("RECEIVER", &receiver.write_url())
        .replace("THANOS", &thanos.write_url()),
    );
    let scraped = Scraped::start();
    let start = now();
    let sender = Prometheus::start_3(&scraped.config(&metrifold.write_url(), message));
    scraped.wait(4);

    receiver.process.kill();
    scraped.wait(4);
    thanos.receive.kill();
    scraped.wait(4);
    metrifold.kill();
    scraped.wait(3);
    metrifold.start_again();
    scraped.wait(2);
    receiver.start_again();
    scraped.wait(2);
    thanos.start_again();
    scraped.wait(3);

    let span = Span {
        start,
        end: now() + 1.0,
    };
    until("time to pass", || (now() > span.end + 1.5).then_some(()));
    let samples = span.compare("Prometheus 3", &sender, &receiver);
    assert_eq!(span.compare("Thanos", &sender, &thanos), samples);
    assert!(samples > 3000, "only {samples} samples");
    for sink in ["prometheus", "thanos"] {
        let labels = [("component_id", sink)];
        let lost = metrifold.metric("metrifold_component_discarded_samples_total", &labels);
        assert_eq!(lost, 0.0, "{sink}: {}", metrifold.log());
    }
    println!("{samples} samples are the same at both receivers");
}

#[test]
#[ignore = "needs Prometheus 3 and Thanos, which `make live` builds"]
fn what_prometheus_3_sends_as_1_0_is_the_same_behind_kills_of_everybody() {
    all_arrives(Message::V1);
}

#[test]
#[ignore = "needs Prometheus 3 and Thanos, which `make live` builds"]
fn what_prometheus_3_sends_as_2_0_is_the_same_behind_kills_of_everybody() {
    all_arrives(Message::V2);
}
