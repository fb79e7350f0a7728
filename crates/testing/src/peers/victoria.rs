//! A VictoriaMetrics server with queries to it, and a vmagent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{Labels, Samples, labels};
use crate::{Process, encode, free_address, get};

/// A VictoriaMetrics server.
pub struct Victoria {
    _process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Victoria {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let mut process = Process::spawn(
            Command::new("victoria-metrics")
                .args(["-storageDataPath=data", "-retentionPeriod=1d"])
                .args(["-memory.allowedBytes=128MB", "-loggerLevel=WARN"])
                .arg(format!("-httpListenAddr={address}"))
                .current_dir(folder.path())
                .stdout(Stdio::null()),
        );
        process.until_ready(address, "/health");
        Self {
            _process: process,
            address,
            _folder: folder,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn write_url(&self) -> String {
        format!("{}/api/v1/write", self.url())
    }

    /// Raw samples of the series of `selector` until `end`, and the times of stale markers, which
    /// are the only NaNs that the server keeps.
    pub fn samples(&self, selector: &str, end: f64) -> (Samples, BTreeMap<Labels, Vec<i64>>) {
        let (mut samples, mut markers) = (Samples::new(), BTreeMap::<_, Vec<i64>>::new());
        get(&format!("{}/internal/force_flush", self.url()));
        let url = format!(
            "{}/api/v1/export?match[]={}&end={end}",
            self.url(),
            encode(selector)
        );
        let reply = get(&url);
        assert_eq!(reply.status, 200, "{}", reply.text());
        for line in reply.text().lines() {
            // Values that are not finite make the line invalid JSON.
            let (head, values) = line.split_once("\"values\":").unwrap();
            let values = values
                .replace("NaN", "null")
                .replace("+Inf", "\"inf\"")
                .replace("-Inf", "\"-inf\"");
            let line = format!("{head}\"values\":{values}");
            let series: Value = serde_json::from_str(&line).unwrap();
            let labels = labels(&series["metric"]);
            let values = series["values"].as_array().unwrap();
            let times = series["timestamps"].as_array().unwrap();
            for (value, time) in values.iter().zip(times) {
                let time = time.as_i64().unwrap();
                let value = match value {
                    Value::Null => {
                        markers.entry(labels.clone()).or_default().push(time);
                        continue;
                    }
                    Value::String(infinity) => infinity.parse().unwrap(),
                    number => number.as_f64().unwrap(),
                };
                samples
                    .entry(labels.clone())
                    .or_default()
                    .push((time, value));
            }
        }
        (samples, markers)
    }
}

/// Starts a vmagent that writes to several URLs, in order.
#[track_caller]
pub fn vmagent(scrape_config: &str, write_urls: &[String], folder: &Path) -> Process {
    let file = folder.join("scrape.yml");
    std::fs::write(&file, scrape_config).unwrap();
    let address = free_address();
    let urls = write_urls
        .iter()
        .map(|url| format!("-remoteWrite.url={url}"));
    let mut process = Process::spawn(
        Command::new("vmagent")
            .arg(format!("-promscrape.config={}", file.display()))
            .arg(format!("-httpListenAddr={address}"))
            .args(["-remoteWrite.tmpDataPath=queue", "-remoteWrite.queues=1"])
            .arg("-loggerLevel=WARN")
            .args(urls)
            .current_dir(folder)
            .stdout(Stdio::null()),
    );
    process.until_ready(address, "/health");
    process
}
