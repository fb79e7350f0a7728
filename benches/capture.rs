//! Captures the requests of a real sender, as input of the other benchmarks: Debian's Prometheus
//! scrapes itself, a node exporter and VictoriaMetrics, and its remote write goes into the folder
//! that `METRIFOLD_BENCH_CAPTURED` names, one file per body: `*.v1`. Another Prometheus, such as
//! one that sends 2.0, may write to the printed address: bodies of 2.0 become `*.v2`.
//! `METRIFOLD_BENCH_SECONDS` sets the duration.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use metrifold_testing::Endpoint;
use metrifold_testing::peers::{NodeExporter, Prometheus, Victoria};

fn main() {
    // `cargo test --benches` only checks that it compiles.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let folder = std::env::var_os("METRIFOLD_BENCH_CAPTURED");
    let folder = PathBuf::from(folder.expect("METRIFOLD_BENCH_CAPTURED names no folder"));
    std::fs::create_dir_all(&folder).unwrap();
    let seconds = std::env::var("METRIFOLD_BENCH_SECONDS");
    let seconds = seconds.ok().and_then(|s| s.parse().ok()).unwrap_or(20);

    let recorder = Endpoint::healthy();
    println!("recording for {seconds} s what comes to {}", recorder.url());
    let (node, victoria) = (NodeExporter::start(), Victoria::start());
    let target = |url: String| url.trim_start_matches("http://").to_string();
    let prometheus = Prometheus::start(&format!(
        "global:\n  scrape_interval: 1s\n\
         scrape_configs:\n\
         - job_name: prometheus\n  static_configs: [{{ targets: [SELF] }}]\n\
         - job_name: node\n  static_configs: [{{ targets: ['{}'] }}]\n\
         - job_name: victoria-metrics\n  static_configs: [{{ targets: ['{}'] }}]\n\
         remote_write:\n- url: '{}'\n  metadata_config: {{ send: false }}\n\
         \x20 queue_config: {{ max_samples_per_send: 2000, max_shards: 1, batch_send_deadline: 2s }}\n",
        node.address,
        target(victoria.url()),
        recorder.url(),
    ));
    thread::sleep(Duration::from_secs(seconds));
    drop(prometheus);

    let mut bytes = 0;
    let seen = recorder.take();
    for (number, request) in seen.iter().enumerate() {
        let second = request
            .header("content-type")
            .is_some_and(|message| message.contains("v2.Request"));
        let version = if second { "v2" } else { "v1" };
        bytes += request.body.len();
        std::fs::write(folder.join(format!("{number:05}.{version}")), &request.body).unwrap();
    }
    println!(
        "{} bodies, {bytes} bytes, in {}",
        seen.len(),
        folder.display()
    );
    assert!(!seen.is_empty(), "nothing was sent");
}
