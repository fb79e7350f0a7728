//! Requests as Prometheus in Kubernetes sends them: 2,000 series of 11 labels and about 295 bytes,
//! one sample each, compressed as one block.

use prost::Message;

use metrifold_codec::remote_write::messages::v1;

/// Series per request.
pub const SERIES: usize = 2_000;

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
    "go_gc_duration_seconds",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
];

/// A pseudo-random number that is the same in every run.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Sorted labels of a sender's series.
pub fn labels(sender: usize, series: usize) -> Vec<(&'static str, String)> {
    let pod = series / FAMILIES.len();
    let id = mix((sender * 1_000_003 + pod) as u64);
    let namespace = ["payments", "checkout", "inventory", "monitoring"][pod % 4];
    vec![
        ("__name__", FAMILIES[series % FAMILIES.len()].to_string()),
        ("cluster", format!("eu-1-prod-{sender}")),
        ("container", ["server", "proxy"][pod % 2].to_string()),
        ("endpoint", "http".to_string()),
        ("id", format!("{:08x}", mix(id ^ series as u64) as u32)),
        (
            "instance",
            format!("10.{}.{}.{}:8080", sender, pod % 250, id % 250),
        ),
        ("job", format!("service-{}", pod % 40)),
        ("namespace", namespace.to_string()),
        ("node", format!("ip-10-{}-{}.internal", sender, pod % 60)),
        (
            "pod",
            format!("service-{}-{:08x}-{:05x}", pod % 40, id as u32, id >> 44),
        ),
        ("service", format!("service-{}", pod % 40)),
    ]
}

/// The uncompressed 1.0 request number `round` of a sender.
pub fn request(sender: usize, round: usize) -> Vec<u8> {
    let timeseries = (0..SERIES).map(|series| v1::TimeSeries {
        labels: labels(sender, series)
            .into_iter()
            .map(|(name, value)| v1::Label {
                name: name.into(),
                value,
            })
            .collect(),
        samples: vec![v1::Sample {
            value: (mix((series + round * SERIES) as u64) >> 40) as f64 / 8.0,
            timestamp: 1_700_000_000_000 + round as i64 * 15_000 + (series % 1000) as i64,
        }],
        ..Default::default()
    });
    v1::WriteRequest {
        timeseries: timeseries.collect(),
        metadata: Vec::new(),
    }
    .encode_to_vec()
}

/// The compressed request.
pub fn body(sender: usize, round: usize) -> Vec<u8> {
    snap::raw::Encoder::new()
        .compress_vec(&request(sender, round))
        .unwrap()
}
