//! Targets for peers to scrape: a node exporter, and pages that the test serves.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::{Endpoint, Process, Reply, free_address};

/// A node_exporter with a few of its collectors.
pub struct NodeExporter {
    _process: Process,
    pub address: SocketAddr,
    _folder: TempDir,
}

impl NodeExporter {
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let collectors = [
            "cpu", "loadavg", "meminfo", "netdev", "stat", "time", "uname", "vmstat",
        ];
        let mut process = Process::spawn(
            Command::new("prometheus-node-exporter")
                .arg("--collector.disable-defaults")
                .arg(format!("--web.listen-address={address}"))
                .args(collectors.map(|name| format!("--collector.{name}")))
                .current_dir(folder.path())
                .stdout(Stdio::null()),
        );
        process.until_ready(address, "/metrics");
        Self {
            _process: process,
            address,
            _folder: folder,
        }
    }
}

/// The content type of Prometheus's text format.
pub const TEXT: &str = "text/plain; version=0.0.4";
/// The content type of OpenMetrics.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of Prometheus's protobuf format.
pub const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// A target served by the test. Dropping it closes all connections.
pub struct Target {
    pub address: SocketAddr,
    endpoint: Endpoint,
}

impl Target {
    /// Serves pages that `page` makes from the number of the scrape, which starts at 1.
    pub fn start(
        content_type: &'static str,
        page: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let endpoint = Endpoint::new(move |seen| {
            let number = seen.order as u64 + 1;
            let reply = Reply::new(200).header("content-type", content_type);
            reply.body(page(number))
        });
        Self {
            address: endpoint.address(),
            endpoint,
        }
    }

    /// Number of scrapes so far.
    pub fn scrapes(&self) -> u64 {
        self.endpoint.count() as u64
    }
}
