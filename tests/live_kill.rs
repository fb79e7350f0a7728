//! A real Prometheus that writes to another one through a queue on disk, while Metrifold and the
//! receiver are killed: what the receiver has in the end is what the sender has. `make test`
//! installs Prometheus. `METRIFOLD_KILL_SEED` has other moments tried.

mod support;
mod support_net;

use std::time::Duration;

use support::peers::{Prometheus, now, until_same};
use support::process::{Metrifold, wait};
use support_net::Random;
use tokio::time::sleep;

const SEED: u64 = 9;
/// How long anything may take to be seen.
const SOON: Duration = Duration::from_secs(40);

/// A selector of everything that was scraped.
const ALL: &str = r#"{job!=""}"#;
/// A counter that grows with each scrape.
const SCRAPES: &str = r#"count_over_time(up{job="prometheus"}[5m])"#;

/// Milliseconds at random.
fn pause(random: &mut Random, from: u64, to: u64) -> Duration {
    Duration::from_millis(from + random.next() % (to - from))
}

async fn scraped(sender: &Prometheus, more: f64) {
    let before = sender.value(SCRAPES, now()).await.unwrap_or_default();
    wait("scrapes", SOON, async || {
        let scrapes = sender.value(SCRAPES, now()).await?;
        (scrapes >= before + more).then_some(())
    })
    .await;
}

async fn on_disk(metrifold: &Metrifold) -> f64 {
    let labels = [("component_id", "receiver")];
    metrifold
        .metric("metrifold_queue_disk_batches", &labels)
        .await
}

#[tokio::test]
async fn neither_a_kill_of_metrifold_nor_one_of_the_receiver_leaves_a_gap() {
    let seed = std::env::var("METRIFOLD_KILL_SEED");
    let mut random = Random(seed.map_or(SEED, |seed| seed.parse().unwrap()));
    let mut receiver = Prometheus::start("").await;
    let mut metrifold = Metrifold::start(
        &r#"
data_dir = "data"
[sources.ingest]
type = "remote_write"
address = "{ingest}"
[sinks.receiver]
type = "remote_write"
inputs = ["ingest"]
endpoint = "RECEIVER"
retry = { max_backoff = "300ms" }
queue = { type = "disk" }
"#
        .replace("RECEIVER", &receiver.write_url()),
    )
    .await;
    let started = now();
    let sender = Prometheus::start(&format!(
        r#"
global: {{ scrape_interval: 500ms, scrape_timeout: 500ms }}
remote_write:
  - url: {}/api/v1/write
    queue_config: {{ batch_send_deadline: 200ms, max_backoff: 300ms, max_shards: 4, max_samples_per_send: 200 }}
scrape_configs:
  - job_name: prometheus
    static_configs: [{{ targets: [SELF] }}]
  - job_name: metrifold
    static_configs: [{{ targets: ["{}"] }}]
"#,
        metrifold.ingest,
        metrifold.api.trim_start_matches("http://"),
    ))
    .await;
    scraped(&sender, 4.0).await;

    // While it delivers.
    sleep(pause(&mut random, 0, 1000)).await;
    metrifold.process.kill();
    sleep(pause(&mut random, 0, 1500)).await;
    metrifold.start_again().await;
    scraped(&sender, 3.0).await;

    // While nobody takes what it has.
    receiver.process.kill();
    wait("a backlog", SOON, async || {
        (on_disk(&metrifold).await > 8.0).then_some(())
    })
    .await;
    sleep(pause(&mut random, 0, 1000)).await;
    let backlog = on_disk(&metrifold).await;
    metrifold.process.kill();
    sleep(pause(&mut random, 0, 1500)).await;
    metrifold.start_again().await;
    let kept = on_disk(&metrifold).await;
    assert!(kept >= backlog, "{kept} of {backlog} batches are left");
    scraped(&sender, 3.0).await;
    receiver.start_again().await;
    scraped(&sender, 4.0).await;

    let end = now();
    let seconds = (end - started).ceil() as u32 + 60;
    let found = until_same("the receiver", 0.0, async || {
        let expected = sender.samples(ALL, seconds, end).await;
        (receiver.samples(ALL, seconds, end).await, expected)
    })
    .await;
    // The same in PromQL's words: nothing is more or less than it was in any range.
    for expression in [
        "count_over_time(up[5s])",
        "increase(prometheus_http_requests_total[10s])",
        "rate(metrifold_source_requests_total[5s])",
        "count by (__name__, job) ({job!=''})",
    ] {
        let course = sender.course(expression, started, end).await;
        assert!(!course.is_empty(), "{expression}");
        assert!(
            receiver.course(expression, started, end).await == course,
            "{expression}"
        );
    }

    let samples: usize = found.values().map(Vec::len).sum();
    let scrapes = sender.value(SCRAPES, end).await.unwrap_or_default();
    println!(
        "{} series, {samples} samples of {scrapes} scrapes; {kept} batches were on disk in between",
        found.len()
    );
    assert!(found.len() > 400, "only {} series", found.len());
    for metric in ["prometheus_tsdb_head_series", "metrifold_queue_bytes"] {
        let mut names = found.keys().map(|labels| &labels["__name__"]);
        assert!(names.any(|name| name == metric), "{metric}");
    }
    // The log of a process that was killed has no word of damage.
    let log = metrifold.process.log();
    for word in ["panicked", "corrupt", "ERROR"] {
        assert!(!log.contains(word), "{log}");
    }
}
