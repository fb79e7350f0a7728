//! Loads of several shapes, generated from a seed that differs from run to run, so that the code
//! cannot be tuned to the data. Every load holds the family and the label that the edit of the
//! benchmarks removes.
#![allow(dead_code, reason = "each benchmark uses its part")]

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use metrifold_codec::remote_write::messages::{BucketSpan, Count, Histogram, ZeroCount, v1, v2};

/// Family and label that the edit of the benchmarks removes.
pub const FAMILY: &str = "go_gc_duration_seconds";
pub const LABEL: &str = "endpoint";

/// Similarity of neighbouring series, and kind of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Neighbours belong to one pod and share nearly all labels.
    Alike,
    /// Neighbours belong to one family and differ in pod, instance, mode and namespace.
    Unlike,
    /// As `Unlike`, with a container's long id, image and name.
    Containers,
    /// Every request brings new series.
    Churn,
    /// Native histograms, and buckets with exemplars.
    Histograms,
}

impl Shape {
    pub const ALL: [Self; 5] = [
        Self::Alike,
        Self::Unlike,
        Self::Containers,
        Self::Churn,
        Self::Histograms,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Alike => "neighbours alike",
            Self::Unlike => "neighbours unlike",
            Self::Containers => "labels of containers",
            Self::Churn => "new series only",
            Self::Histograms => "histograms, exemplars",
        }
    }
}

/// The seed of this run: `METRIFOLD_BENCH_SEED`, or the time.
pub fn seed() -> u64 {
    let given = std::env::var("METRIFOLD_BENCH_SEED").ok();
    given.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64)
    })
}

/// A pseudo-random number that depends on `parts` only.
fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |state, part| {
        let mut x = state ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    })
}

const WORDS: [&str; 16] = [
    "payments",
    "checkout",
    "inventory",
    "search",
    "ledger",
    "session",
    "billing",
    "gateway",
    "orders",
    "pricing",
    "catalog",
    "shipping",
    "identity",
    "reports",
    "mailer",
    "audit",
];

const FAMILIES: [&str; 20] = [
    "container_cpu_usage_seconds_total",
    "container_memory_working_set_bytes",
    "container_network_receive_bytes_total",
    "container_network_transmit_bytes_total",
    "container_fs_reads_bytes_total",
    "container_fs_writes_bytes_total",
    "kube_pod_container_status_restarts_total",
    "kube_pod_container_resource_requests",
    "kube_pod_container_resource_limits",
    "http_server_requests_seconds_bucket",
    "http_server_requests_seconds_count",
    "http_server_requests_seconds_sum",
    "grpc_server_handled_total",
    "grpc_server_msg_received_total",
    "jvm_memory_used_bytes",
    "jvm_gc_pause_seconds_count",
    FAMILY,
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
];

/// Generates requests of one shape.
#[derive(Clone, Copy, Debug)]
pub struct Generator {
    pub shape: Shape,
    pub seed: u64,
    pub series: usize,
}

impl Generator {
    /// The request number `round` of a sender.
    pub fn request(&self, sender: usize, round: usize) -> v1::WriteRequest {
        let series = (0..self.series).map(|series| self.series(sender, round, series));
        v1::WriteRequest {
            timeseries: series.collect(),
            metadata: Vec::new(),
        }
    }

    fn number(&self, parts: &[u64]) -> u64 {
        mix(&[self.seed, mix(parts)])
    }

    fn series(&self, sender: usize, round: usize, series: usize) -> v1::TimeSeries {
        let labels = self.labels(sender, round, series).into_iter();
        let labels = labels.map(|(name, value)| v1::Label {
            name: name.into(),
            value,
        });
        let random = self.number(&[3, sender as u64, round as u64, series as u64]);
        let timestamp = 1_790_000_000_000 + round as i64 * 15_000 + (series / 100) as i64 * 37;
        let mut made = v1::TimeSeries {
            labels: labels.collect(),
            ..Default::default()
        };
        // Counters, gauges with fractions, and values that rarely change.
        let value = match series % 3 {
            0 => (random >> 44) as f64,
            1 => (random >> 40) as f64 / 1e6,
            _ => 1.0,
        };
        if self.shape == Shape::Histograms && series.is_multiple_of(4) {
            made.histograms.push(histogram(random, timestamp));
            return made;
        }
        made.samples.push(v1::Sample { value, timestamp });
        if self.shape == Shape::Histograms && series % 4 == 1 {
            made.exemplars.push(v1::Exemplar {
                labels: vec![v1::Label {
                    name: "trace_id".into(),
                    value: format!("{random:016x}{:016x}", mix(&[random])),
                }],
                value,
                timestamp,
            });
        }
        made
    }

    /// Sorted labels of a series.
    fn labels(&self, sender: usize, round: usize, series: usize) -> Vec<(&'static str, String)> {
        let sender = sender as u64;
        let (family, pod) = match self.shape {
            Shape::Alike => (series % FAMILIES.len(), series / FAMILIES.len()),
            // Family by family, as in a scrape.
            _ => (series * FAMILIES.len() / self.series, series),
        };
        let generation = match self.shape {
            Shape::Churn => round as u64 + 1,
            _ => 0,
        };
        let id = self.number(&[1, sender, pod as u64, generation]);
        let own = self.number(&[2, sender, series as u64, generation]);
        let word = WORDS[(id >> 8) as usize % WORDS.len()];
        let namespace = WORDS[(id >> 12) as usize % 6];
        let pod = format!("{word}-{:08x}-{:05x}", id as u32, id >> 44);
        let mut labels = vec![("__name__", FAMILIES[family].to_string())];
        if self.shape == Shape::Containers {
            let hash = |part| self.number(&[4, id, part]);
            let cgroup = format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{:016x}_{:016x}.slice/cri-containerd-{:016x}{:016x}{:016x}{:016x}.scope",
                hash(0),
                hash(1),
                hash(2),
                hash(3),
                hash(4),
                hash(5),
            );
            labels.extend([
                ("cluster", format!("eu-1-prod-{sender}")),
                ("container", word.to_string()),
                (LABEL, "https-metrics".into()),
                ("id", cgroup),
                (
                    "image",
                    format!("registry.example.com/{namespace}/{word}@sha256:{:016x}{:016x}{:016x}{:016x}", hash(6), hash(7), hash(8), hash(9)),
                ),
                ("instance", format!("10.{}.{}.{}:10250", sender, id >> 16 & 255, id & 255)),
                ("job", "kubelet".into()),
                ("metrics_path", "/metrics/cadvisor".into()),
                ("name", format!("{:016x}{:016x}{:016x}{:016x}", hash(2), hash(3), hash(4), hash(5))),
                ("namespace", namespace.to_string()),
                ("node", format!("ip-10-{}-{}.eu-1.example", sender, id >> 20 & 63)),
                ("pod", pod),
                ("service", "kubelet".into()),
            ]);
            return labels;
        }
        labels.extend([
            ("cluster", format!("eu-1-prod-{sender}")),
            (
                "container",
                ["server", "proxy"][id as usize & 1].to_string(),
            ),
            (LABEL, "http".to_string()),
        ]);
        if self.shape == Shape::Alike {
            labels.push(("id", format!("{:08x}", own as u32)));
        }
        labels.extend([
            (
                "instance",
                format!("10.{}.{}.{}:8080", sender, id >> 16 & 255, id & 255),
            ),
            ("job", word.to_string()),
        ]);
        match self.shape {
            Shape::Alike => {}
            Shape::Histograms => labels.push(("le", format!("{}", (own & 15) as f64 / 4.0))),
            _ => labels.push((
                "mode",
                ["user", "system", "idle", "iowait", "irq"][own as usize % 5].into(),
            )),
        }
        labels.extend([
            ("namespace", namespace.to_string()),
            (
                "node",
                format!("ip-10-{}-{}.node.example", sender, id >> 20 & 63),
            ),
            ("pod", pod),
            ("service", word.to_string()),
        ]);
        labels
    }
}

fn histogram(random: u64, timestamp: i64) -> Histogram {
    let deltas = (0..12).map(|bucket| (random >> (4 * bucket) & 15) as i64 - 7);
    Histogram {
        count: Some(Count::Int(random >> 50)),
        sum: (random >> 32) as f64 / 1e3,
        schema: 3,
        zero_threshold: 1e-128,
        zero_count: Some(ZeroCount::Int(random & 7)),
        positive_spans: vec![
            BucketSpan {
                offset: -3,
                length: 8,
            },
            BucketSpan {
                offset: 2,
                length: 4,
            },
        ],
        positive_deltas: deltas.collect(),
        timestamp,
        ..Default::default()
    }
}

/// Number of series that remain after the edit of the benchmarks.
pub fn kept(request: &v1::WriteRequest) -> usize {
    let dropped = |series: &&v1::TimeSeries| {
        let mut labels = series.labels.iter();
        labels.any(|label| label.name == "__name__" && label.value == FAMILY)
    };
    request.timeseries.len() - request.timeseries.iter().filter(dropped).count()
}

/// The same series as a 2.0 request.
pub fn as_v2(request: &v1::WriteRequest) -> v2::Request {
    let mut symbols = Symbols::default();
    symbols.number("");
    let timeseries = request.timeseries.iter().map(|series| v2::TimeSeries {
        labels_refs: symbols.labels(&series.labels),
        samples: series
            .samples
            .iter()
            .map(|sample| v2::Sample {
                value: sample.value,
                timestamp: sample.timestamp,
                start_timestamp: 0,
            })
            .collect(),
        histograms: series.histograms.clone(),
        exemplars: series
            .exemplars
            .iter()
            .map(|exemplar| v2::Exemplar {
                labels_refs: symbols.labels(&exemplar.labels),
                value: exemplar.value,
                timestamp: exemplar.timestamp,
            })
            .collect(),
        metadata: None,
        created_timestamp: 0,
    });
    let timeseries = timeseries.collect();
    v2::Request {
        symbols: symbols.table,
        timeseries,
    }
}

#[derive(Default)]
struct Symbols {
    table: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Symbols {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.table.len() as u32;
        self.table.push(text.into());
        self.numbers.insert(text.into(), number);
        number
    }

    fn labels(&mut self, labels: &[v1::Label]) -> Vec<u32> {
        let labels = labels.iter();
        let pairs = labels.flat_map(|label| [self.number(&label.name), self.number(&label.value)]);
        pairs.collect()
    }
}

/// A message, compressed as one block.
pub fn compressed(message: &impl Message) -> Vec<u8> {
    let raw = message.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&raw).unwrap()
}
