//! A real Prometheus writes to another one through a queue on disk, while Metrifold and the
//! receiver are killed: in the end, both have the same samples. `make test` installs Prometheus.
//! `METRIFOLD_KILL_SEED` changes the moments.

use std::thread::sleep;
use std::time::Duration;

use metrifold_testing::peers::{Prometheus, now, until_same};
use metrifold_testing::{Metrifold, Random, until};

const SEED: u64 = 9;

/// Selector of everything that was scraped.
const ALL: &str = r#"{job!=""}"#;
/// A counter that grows with each scrape.
const SCRAPES: &str = r#"count_over_time(up{job="prometheus"}[5m])"#;

/// A random pause in milliseconds.
fn pause(random: &mut Random, from: u64, to: u64) -> Duration {
    Duration::from_millis(from + random.number() % (to - from))
}

fn scraped(sender: &Prometheus, more: f64) {
    let before = sender.value(SCRAPES, now()).unwrap_or_default();
    until("scrapes", || {
        let scrapes = sender.value(SCRAPES, now())?;
        (scrapes >= before + more).then_some(())
    });
}

fn on_disk(metrifold: &Metrifold) -> f64 {
    let labels = [("component_id", "receiver")];
    metrifold.metric("metrifold_queue_disk_batches", &labels)
}

#[test]
fn neither_a_kill_of_metrifold_nor_one_of_the_receiver_leaves_a_gap() {
    let seed = std::env::var("METRIFOLD_KILL_SEED");
    let mut random = Random(seed.map_or(SEED, |seed| seed.parse().unwrap()));
    let mut receiver = Prometheus::start("");
    let mut metrifold = Metrifold::start(
        &r#"
data_dir = "data"
[sources.ingest]
type = "remote_write"
address = "INGEST"
[sinks.receiver]
type = "remote_write"
inputs = ["ingest"]
endpoint = "RECEIVER"
retry = { max_backoff = "300ms" }
queue = { type = "disk" }
"#
        .replace("RECEIVER", &receiver.write_url()),
    );
    let started = now();
    let sender = Prometheus::start(&format!(
        r#"
global: {{ scrape_interval: 500ms, scrape_timeout: 500ms }}
remote_write:
  - url: {}
    queue_config: {{ batch_send_deadline: 200ms, max_backoff: 300ms, max_shards: 4, max_samples_per_send: 200 }}
scrape_configs:
  - job_name: prometheus
    static_configs: [{{ targets: [SELF] }}]
  - job_name: metrifold
    static_configs: [{{ targets: ["{}"] }}]
"#,
        metrifold.write_url(),
        metrifold.api,
    ));
    scraped(&sender, 4.0);

    // While it delivers.
    sleep(pause(&mut random, 0, 1000));
    metrifold.kill();
    sleep(pause(&mut random, 0, 1500));
    let mut log = metrifold.log();
    metrifold.start_again();
    scraped(&sender, 3.0);

    // While nothing accepts its batches.
    receiver.process.kill();
    until("a backlog", || (on_disk(&metrifold) > 8.0).then_some(()));
    sleep(pause(&mut random, 0, 1000));
    let backlog = on_disk(&metrifold);
    metrifold.kill();
    sleep(pause(&mut random, 0, 1500));
    log += &metrifold.log();
    metrifold.start_again();
    let kept = on_disk(&metrifold);
    assert!(kept >= backlog, "{kept} of {backlog} batches are left");
    scraped(&sender, 3.0);
    receiver.start_again();
    scraped(&sender, 4.0);

    let end = now();
    let seconds = (end - started).ceil() as u32 + 60;
    let found = until_same("the receiver", 0.0, || {
        let expected = sender.samples(ALL, seconds, end);
        (receiver.samples(ALL, seconds, end), expected)
    });
    // Aggregates agree as well: no range has more or fewer samples.
    for expression in [
        "count_over_time(up[5s])",
        "increase(prometheus_http_requests_total[10s])",
        "rate(metrifold_source_requests_total[5s])",
        "count by (__name__, job) ({job!=''})",
    ] {
        let course = sender.course(expression, started, end);
        assert!(!course.is_empty(), "{expression}");
        assert!(
            receiver.course(expression, started, end) == course,
            "{expression}"
        );
    }

    let samples: usize = found.values().map(Vec::len).sum();
    let scrapes = sender.value(SCRAPES, end).unwrap_or_default();
    println!(
        "{} series, {samples} samples of {scrapes} scrapes; {kept} batches were on disk in between",
        found.len()
    );
    assert!(found.len() > 400, "only {} series", found.len());
    for metric in ["prometheus_tsdb_head_series", "metrifold_queue_bytes"] {
        let mut names = found.keys().map(|labels| &labels["__name__"]);
        assert!(names.any(|name| name == metric), "{metric}");
    }
    // The logs of killed processes report no damage.
    log += &metrifold.log();
    for word in ["panicked", "corrupt", "ERROR"] {
        assert!(!log.contains(word), "{log}");
    }
}
